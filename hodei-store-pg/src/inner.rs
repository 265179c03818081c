//! What a store is made of, and how its transactions are run.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use hodei_core::store::{Change, Scope, StoreStats, WakeupSignal};
use hodei_core::{Error, ErrorKind, Result, Tenant};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use crate::ask;
use crate::codec::Bodies;
use crate::config::{Commits, PgStoreBuilder};
use crate::error::{BOUNDED, Stage, failed, of};
use crate::fast::{Frontier, Groups};
use crate::listen::Announcer;
use crate::pool::{Conn, Pools};
use crate::server::{self, Home};
use crate::tell::{Segment, Teller};
use crate::work::{Verb, Work};

/// How often a transaction that was in another's way is done again.
const ATTEMPTS: u32 = 12;

/// How long a transaction may take to be rolled back before its connection is closed instead: 1 s.
const ROLL_BACK: Duration = Duration::from_secs(1);

/// Runs a read on a connection; once more on a new one where an old one turns out to be dead.
macro_rules! reading {
    ($inner:expr, $op:expr, $scope:expr, $conn:ident => $read:expr) => {
        $crate::inner::reading!($inner, $op, $conn => {
            $inner.wall($op, &mut $conn, $crate::inner::walled($scope)).await?;
            let read: hodei_core::Result<_> = async { $read }.await;
            let reply = read?;
            $inner.unwall($op, &mut $conn, $crate::inner::walled($scope)).await?;
            Ok(reply)
        })
    };
    ($inner:expr, $op:expr, $conn:ident => $read:expr) => {
        loop {
            let mut $conn = $inner.pools.verbs.acquire($op).await?;
            match $inner.in_time($op, async { $read }).await {
                Ok(reply) => match $conn.clean().await {
                    Ok(()) => break Ok::<_, hodei_core::Error>(reply),
                    Err(error) => break Err($crate::error::failed($op)(error)),
                },
                // On a new connection.
                Err(error) if $conn.is_to_blame(&error) => $inner.pools.verbs.forget(),
                Err(error) => break Err(error),
            }
        }
    };
}
pub(crate) use reading;

/// The tenant behind whose wall a scope is read.
pub(crate) fn walled(scope: &Scope) -> Option<&Tenant> {
    match scope {
        Scope::All => None,
        Scope::Tenant(tenant) => Some(tenant),
    }
}

/// What every handle to a store shares.
pub(crate) struct Inner {
    pub(crate) pools: Pools,
    pub(crate) config: PgStoreBuilder,
    /// How the bodies of new jobs are written.
    pub(crate) bodies: Bodies,
    pub(crate) teller: Arc<Teller>,
    pub(crate) groups: Groups,
    pub(crate) frontier: Frontier,
    pub(crate) announcer: Arc<Announcer>,
    pub(crate) wakeups: WakeupSignal,
    /// Which process wrote a change.
    pub(crate) node: i64,
    /// On which course of history this store registered an owner last; 0 where it has registered none.
    pub(crate) lives_at: AtomicI64,
    pub(crate) counted: Counted,
    /// Whether the last exchange has seen limits wider than a key: ends of leases then wake those who wait.
    pub(crate) limited: AtomicBool,
    /// Whether limits of keys had no room left behind the last claim for another one like it: then what ends makes room for
    /// what is claimed in the same exchange, and is to come first.
    pub(crate) tight: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        crate::listen::stop(self);
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("pools", &self.pools).field("node", &self.node).finish_non_exhaustive()
    }
}

/// What was done since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    trips: AtomicU64,
    commits: AtomicU64,
    written: AtomicU64,
    read: AtomicU64,
}

impl Inner {
    pub(crate) fn new(pools: Pools, config: PgStoreBuilder, bodies: Bodies) -> Self {
        Self {
            pools,
            config,
            bodies,
            teller: Arc::default(),
            groups: Groups::default(),
            frontier: Frontier::default(),
            announcer: Arc::default(),
            wakeups: WakeupSignal::new(),
            node: RandomState::new().hash_one(std::process::id()).cast_signed(),
            lives_at: AtomicI64::new(0),
            counted: Counted::default(),
            limited: AtomicBool::new(false),
            tight: AtomicBool::new(false),
        }
    }

    /// Whether epochs that the owners of this store were given are good on a course of history: not on another one than
    /// that on which they live, until they live there.
    pub(crate) fn lives_on(&self, home: Home) -> bool {
        let at = self.lives_at.load(Ordering::Acquire);
        at == 0 || at == home.0
    }

    /// Counts a round trip.
    pub(crate) fn trip(&self) {
        self.counted.trips.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts rows that were read.
    pub(crate) fn read(&self, rows: usize) {
        self.counted.read.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Counts a commit that wrote rows.
    pub(crate) fn wrote(&self, rows: u64) {
        self.counted.commits.fetch_add(1, Ordering::Relaxed);
        self.counted.written.fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn trips(&self) -> u64 {
        self.counted.trips.load(Ordering::Relaxed)
    }

    /// Whether what is acknowledged stands.
    pub(crate) fn is_durable(&self) -> bool {
        self.config.commits != Commits::MayBeLost
    }

    pub(crate) fn stats(&self) -> StoreStats {
        let commits = self.counted.commits.load(Ordering::Relaxed);
        StoreStats {
            commits,
            // A server that keeps commits acknowledges none that is not synced.
            syncs: if self.is_durable() { commits } else { 0 },
            rows_written: self.counted.written.load(Ordering::Relaxed),
            rows_read: self.counted.read.load(Ordering::Relaxed),
            bytes_written: 0,
            cache: None,
        }
    }

    /// Waits for a call of the server, not for longer than a statement may take.
    pub(crate) async fn in_time<R>(
        &self,
        op: &'static str,
        call: impl Future<Output = Result<R>>,
    ) -> Result<R> {
        match tokio::time::timeout(self.config.statement_timeout, call).await {
            Ok(reply) => reply,
            Err(_) => Err(Error::new(ErrorKind::Timeout, op).with("timeout", "statement")),
        }
    }

    /// Begins a transaction behind the wall of a tenant: rows of others are not there, whatever a statement forgets.
    pub(crate) async fn wall(
        &self,
        op: &'static str,
        conn: &mut PgConnection,
        tenant: Option<&Tenant>,
    ) -> Result<()> {
        if let Some(tenant) = tenant {
            self.trip();
            let sql = AssertSqlSafe(format!("{}; {}", self.pools.verbs.begin_sql(), wall_of(tenant)));
            sqlx::raw_sql(sql).execute(conn).await.map_err(failed(op))?;
        }
        Ok(())
    }

    /// Ends it.
    pub(crate) async fn unwall(
        &self,
        op: &'static str,
        conn: &mut PgConnection,
        tenant: Option<&Tenant>,
    ) -> Result<()> {
        if tenant.is_some() {
            self.trip();
            sqlx::raw_sql("COMMIT").execute(conn).await.map_err(failed(op))?;
        }
        Ok(())
    }

    /// Runs a transaction to its end, be its caller cancelled or not.
    pub(crate) async fn write<V>(
        self: &Arc<Self>,
        op: &'static str,
        verb: V,
    ) -> Result<(V::Reply, Vec<Change>)>
    where
        V: Verb + 'static,
        V::Reply: 'static,
    {
        let inner = Arc::clone(self);
        self.detached(op, async move { inner.transact(op, verb).await }).await
    }

    /// Runs something to its end, be its caller cancelled or not.
    pub(crate) async fn detached<R: Send + 'static>(
        &self,
        op: &'static str,
        run: impl Future<Output = Result<R>> + Send + 'static,
    ) -> Result<R> {
        match tokio::spawn(run).await {
            Ok(reply) => reply,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down: whether the write happened is not known.
                Err(error) => Err(Error::new(ErrorKind::Indeterminate, op).source_error(error)),
            },
        }
    }

    async fn transact<V: Verb>(
        self: &Arc<Self>,
        op: &'static str,
        mut verb: V,
    ) -> Result<(V::Reply, Vec<Change>)> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.once(op, &mut verb).await {
                Err(error) if error.kind() == ErrorKind::Locked && attempt < ATTEMPTS => {
                    self.step_back(&error, attempt).await;
                }
                reply => return reply,
            }
        }
    }

    /// Waits before another try, after what somebody was in the way of.
    pub(crate) async fn step_back(&self, error: &Error, attempt: u32) {
        tokio::time::sleep(self.pause(attempt)).await;
        self.make_way(error).await;
    }

    /// Lifts the bound of a part that was never made, where that is what a row was refused for; as well as it can be, since
    /// the next try says whether it is gone.
    pub(crate) async fn make_way(&self, error: &Error) {
        const OP: &str = "store.make_way";
        if error.context("sqlstate") != Some(BOUNDED) {
            return;
        }
        let lifted: Result<()> = async {
            reading!(self, OP, conn => {
                self.trip();
                ask::query("SELECT hodei.make_way()").execute(&mut *conn).await.map(drop).map_err(failed(OP))
            })
        }
        .await;
        drop(lifted);
    }

    /// How long to wait before another try: up to 2, 4, 8 … 64 ms.
    fn pause(&self, attempt: u32) -> Duration {
        self.random(Duration::from_micros(2_000_u64 << attempt.min(5)))
    }

    /// Some time that is shorter.
    pub(crate) fn random(&self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(RandomState::new().hash_one(self.node) % most)
    }

    async fn once<V: Verb>(
        self: &Arc<Self>,
        op: &'static str,
        verb: &mut V,
    ) -> Result<(V::Reply, Vec<Change>)> {
        let mut conn = self.begin(op, verb).await?;
        // Before anything is written, and not while a connection was waited for: others wait for what is entered.
        let ticket = self.teller.begin();
        let at = conn.at();
        let mut work = Work::new(Arc::clone(self), at, &mut conn);
        let done = self
            .in_time(op, async {
                let reply = verb.run(&mut work).await?;
                work.flush().await?;
                Ok(reply)
            })
            .await;
        let reply = match done {
            Ok(reply) => reply,
            Err(error) => {
                self.roll_back(conn).await;
                return Err(error);
            }
        };
        let (segments, rows, readied) = (work.segments, work.rows, work.readied);
        self.commit(op, conn).await?;
        if readied {
            // Perhaps behind what was claimed already.
            self.frontier.forget();
        }
        self.wrote(rows);
        let changes = self.committed(ticket, segments, readied).await;
        Ok((reply, changes))
    }

    /// Prepares and begins a transaction, on a new connection where an old one turns out to be dead.
    async fn begin<V: Verb>(&self, op: &'static str, verb: &mut V) -> Result<Conn> {
        loop {
            let mut conn = self.pools.verbs.acquire(op).await?;
            self.trip();
            let begun = self.in_time(op, async {
                verb.prepare(self, &mut conn).await?;
                conn.end().await.map_err(failed(op))?;
                if !ask::named() {
                    return self.begin_lent(op, &mut conn, verb.tenant()).await;
                }
                if let Some(tenant) = verb.tenant() {
                    return self.wall(op, &mut conn, Some(tenant)).await;
                }
                let sql = AssertSqlSafe(self.pools.verbs.begin_sql());
                sqlx::raw_sql(sql).execute(&mut *conn).await.map_err(failed(op))?;
                Ok(())
            });
            match begun.await {
                Ok(()) => return Ok(conn),
                Err(error) if conn.is_to_blame(&error) => self.pools.verbs.forget(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Begins a transaction behind a proxy, which may lead to another server than where it was prepared: then that is not
    /// good, and has to be done there.
    async fn begin_lent(&self, op: &'static str, conn: &mut Conn, tenant: Option<&Tenant>) -> Result<()> {
        let begun = server::begin(&mut *conn, &self.pools.verbs.begin_sql()).await.map_err(failed(op))?;
        if begun != Some(conn.at().home) {
            return Err(Error::new(ErrorKind::Locked, op).with("server", "another one has taken over"));
        }
        if let Some(tenant) = tenant {
            self.trip();
            sqlx::raw_sql(AssertSqlSafe(wall_of(tenant))).execute(&mut **conn).await.map_err(failed(op))?;
        }
        Ok(())
    }

    pub(crate) async fn commit(&self, op: &'static str, mut conn: Conn) -> Result<()> {
        self.trip();
        let committing = async {
            let done = sqlx::raw_sql("COMMIT").execute(&mut *conn).await;
            done.map_err(|error| of(op, Stage::Commit, error))
        };
        match self.in_time(op, committing).await {
            Ok(_) => conn.clean().await.map_err(failed(op)),
            Err(error) => Err(match error.kind() {
                ErrorKind::Timeout => Error::new(ErrorKind::Indeterminate, op).source_error(error),
                ErrorKind::Indeterminate => {
                    self.pools.verbs.forget();
                    error
                }
                _ => error,
            }),
        }
    }

    pub(crate) async fn roll_back(&self, mut conn: Conn) {
        self.trip();
        let rolling_back =
            async { sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await.map_err(failed("store.rollback")) };
        // A connection that does not come so far is closed, which rolls back too.
        if tokio::time::timeout(ROLL_BACK, rolling_back).await.is_ok_and(|done| done.is_ok()) {
            drop(conn.clean().await);
        }
    }

    /// Tells what a commit changed, and returns it in the order of the log.
    pub(crate) async fn committed(
        &self,
        ticket: crate::tell::Ticket,
        segments: Vec<Segment>,
        readied: bool,
    ) -> Vec<Change> {
        self.tell(ticket, &segments, readied).await;
        segments.into_iter().flat_map(|segment| segment.changes).collect()
    }

    /// Tells what a commit changed.
    pub(crate) async fn tell(&self, ticket: crate::tell::Ticket, segments: &[Segment], readied: bool) {
        ticket.committed(segments).await;
        if readied {
            self.wakeups.ring();
        }
        if readied || !segments.is_empty() {
            self.announcer.committed(readied);
        }
    }
}

/// The statement that raises the wall. A tenant's name has no character that means anything in SQL.
fn wall_of(tenant: &Tenant) -> String {
    format!("SELECT set_config('hodei.tenant', '{}', true)", tenant.as_str())
}
