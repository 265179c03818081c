//! The connections: those that the verbs share, the one that is kept for those who must prove that they live, and one for
//! what nobody waits for.
//!
//! No pool of sqlx: that sends a ping with every return, which costs the next user of the connection a round trip. Here a
//! connection comes back only when whoever had it says that it is clean; any other, also one whose user was
//! cancelled, is closed.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hodei_core::{Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{Commits, PgStoreBuilder};
use crate::error::{NAMELESS, RETRY_AFTER, failed, unconnected};
use crate::names::{Latest, Names};
use crate::server::Home;
use crate::{address, ask, server};

const OPEN: &str = "store.open";

/// How many statements a connection keeps prepared.
const STATEMENTS: usize = 256;

/// How long the server waits at most for the next statement of a transaction: 10 s, far more than a node that is not frozen
/// takes.
const SILENT: Duration = Duration::from_secs(10);

/// The connections of a store.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    /// What every verb takes.
    pub(crate) verbs: Pool,
    /// What heartbeats, owners and terms take: a flood of work never makes a node look dead.
    pub(crate) reserved: Pool,
    /// What announces and adds up, which may take its time.
    pub(crate) aside: Pool,
    /// What sweeps up after the claims, for as long as that takes.
    pub(crate) sweeping: Pool,
    /// What is known of names where the server is at home.
    pub(crate) latest: Arc<Latest>,
    options: PgConnectOptions,
    /// Whether a proxy gives each transaction another connection.
    lent: bool,
}

impl Pools {
    /// Makes all, and the first connection.
    pub(crate) async fn connect(config: &PgStoreBuilder) -> Result<Self> {
        let options = address::parse(&config.url)
            .map_err(|_| Error::new(ErrorKind::Config, "store.open").with("fault", "url: malformed"))?
            .application_name("hodei")
            .statement_cache_capacity(STATEMENTS)
            .disable_statement_logging();
        let latest = Arc::new(Latest::default());
        let pool = |options, most| Pool::new(options, config, most, &latest);
        let verbs = pool(options.clone(), config.connections);
        // The server knows by this name that they write nothing to the log: see `hodei.horizon`.
        let quiet = options.clone().application_name("hodei reserved");
        let (reserved, aside, sweeping) = (pool(quiet.clone(), 1), pool(quiet.clone(), 1), pool(quiet, 1));
        let lent = config.pooled || lends(&verbs, &reserved).await?;
        if lent {
            ask::without_names();
        }
        verbs.acquire(OPEN).await?.clean().await.map_err(failed(OPEN))?;
        Ok(Self { verbs, reserved, aside, sweeping, latest, options, lent })
    }

    /// Whether a proxy stands before the server that gives each transaction another connection, as far as is known.
    pub(crate) fn are_lent(&self) -> bool {
        self.lent
    }

    /// Returns how to connect beside the pools.
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Closes every connection that nobody uses, and lets nobody have another.
    pub(crate) async fn close(&self) {
        self.verbs.close().await;
        self.reserved.close().await;
        self.aside.close().await;
        self.sweeping.close().await;
    }
}

/// Whether the connections of two pools are lent for a transaction each.
async fn lends(one: &Pool, other: &Pool) -> Result<bool> {
    let (mut one, mut other) = (one.acquire(OPEN).await?, other.acquire(OPEN).await?);
    for conn in [&mut one, &mut other] {
        // As where another store of the process is behind such a proxy.
        conn.end().await.map_err(failed(OPEN))?;
    }
    let lent = tokio::time::timeout(one.pool.0.acquire_timeout, server::lends(&mut one, &mut other)).await;
    let late = |_| Error::new(ErrorKind::Unavailable, OPEN).with("timeout", "open").retry_after(RETRY_AFTER);
    let lent = lent.map_err(late)?.map_err(failed(OPEN))?;
    one.clean().await.map_err(failed(OPEN))?;
    other.clean().await.map_err(failed(OPEN))?;
    Ok(lent)
}

/// Some connections.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    options: PgConnectOptions,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    acquire_timeout: Duration,
    connect_timeout: Duration,
    idle_timeout: Duration,
    commits: Commits,
    /// How a transaction is begun.
    begin: String,
    latest: Arc<Latest>,
}

struct Idle {
    connection: PgConnection,
    at: At,
    since: Instant,
    named: bool,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.0.idle().len()).finish_non_exhaustive()
    }
}

/// Begins a transaction that the server ends by itself when nobody waits for it any more: a statement that its caller has
/// given up, and a transaction whose caller has fallen silent with locks in its hands. It is said to each transaction and
/// not to the session, which may be somebody else's behind a proxy.
fn begin_of(statement_timeout: Duration) -> String {
    // Zero would be without end for the server, and more than its longest is refused.
    let millis = |time: Duration| time.as_millis().clamp(1, 2_147_483_647);
    format!(
        "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}",
        millis(statement_timeout),
        millis(statement_timeout.min(SILENT))
    )
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, home: Home) -> At {
        At { home, names: self.latest.at(home) }
    }
}

impl Pool {
    fn new(options: PgConnectOptions, config: &PgStoreBuilder, most: u32, latest: &Arc<Latest>) -> Self {
        Self(Arc::new(Shared {
            options,
            permits: Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS))),
            idle: Mutex::default(),
            acquire_timeout: config.acquire_timeout,
            connect_timeout: config.connect_timeout,
            idle_timeout: config.idle_timeout,
            commits: config.commits,
            begin: begin_of(config.statement_timeout),
            latest: Arc::clone(latest),
        }))
    }

    /// The statements that begin a transaction, in one round trip.
    pub(crate) fn begin_sql(&self) -> String {
        self.0.begin.clone()
    }

    /// Waits for a connection: one that was used last, or a new one.
    pub(crate) async fn acquire(&self, op: &'static str) -> Result<Conn> {
        let shared = &self.0;
        let permit = Arc::clone(&shared.permits).acquire_owned();
        let gone =
            |what| Error::new(ErrorKind::Unavailable, op).with("connection", what).retry_after(RETRY_AFTER);
        let permit = match tokio::time::timeout(shared.acquire_timeout, permit).await {
            Ok(permit) => permit.map_err(|_| gone("closed"))?,
            Err(_) => return Err(gone("all in use")),
        };
        let named = ask::named();
        let last = {
            let mut idle = shared.idle();
            // One that knows statements by name would go on calling them so.
            idle.retain(|idle| idle.since.elapsed() < shared.idle_timeout && idle.named == named);
            idle.pop()
        };
        let reused = last.is_some();
        let (connection, at) = match last {
            Some(idle) => (idle.connection, idle.at),
            None => self.connect(op).await?,
        };
        let connection = Some(connection);
        let mut conn =
            Conn { connection, at, pool: self.clone(), reused, named, begun: false, _permit: permit };
        if !named {
            if !conn.begin().await && conn.reused {
                // The server has let go of it, or the way there is gone.
                self.forget();
                let (connection, at) = self.connect(op).await?;
                (conn.connection, conn.at, conn.reused) = (Some(connection), at, false);
                conn.begin().await;
            }
            if !conn.begun {
                return Err(gone("not begun"));
            }
        }
        Ok(conn)
    }

    async fn connect(&self, op: &'static str) -> Result<(PgConnection, At)> {
        let connecting = async {
            let mut connection =
                PgConnection::connect_with(&self.0.options).await.map_err(unconnected(op))?;
            let home = server::keeps_commits(&mut connection, op, self.0.commits).await?;
            if self.0.latest.is_other(home) {
                server::move_in(&mut connection).await;
            }
            Ok((connection, self.0.at(home)))
        };
        match tokio::time::timeout(self.0.connect_timeout, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(Error::new(ErrorKind::Unavailable, op)
                .with("connection", "not made in time")
                .retry_after(RETRY_AFTER)),
        }
    }

    /// Closes what nobody uses: the server has let go of a connection, so of the others too.
    pub(crate) fn forget(&self) {
        self.0.idle().clear();
    }

    async fn close(&self) {
        self.0.permits.close();
        let idle = std::mem::take(&mut *self.0.idle());
        for idle in idle {
            // Whether the server hears the goodbye makes no difference.
            drop(idle.connection.close().await);
        }
    }
}

/// Where a connection leads: to a course of history, and what is remembered of names there.
#[derive(Clone, Debug)]
pub(crate) struct At {
    pub(crate) home: Home,
    pub(crate) names: Arc<Names>,
}

/// A connection in use.
pub(crate) struct Conn {
    connection: Option<PgConnection>,
    at: At,
    pool: Pool,
    /// Whether somebody used it before: then the server may have let go of it meanwhile.
    pub(crate) reused: bool,
    /// Whether statements had names when it was taken.
    named: bool,
    /// Whether it is in a transaction that has to be committed before it is given back: behind a proxy.
    pub(crate) begun: bool,
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("reused", &self.reused).finish_non_exhaustive()
    }
}

impl Conn {
    /// Whether another connection would not have failed so: the server has let go of this one, or it called a statement by
    /// a name that nobody knows.
    pub(crate) fn is_to_blame(&self, error: &Error) -> bool {
        let nameless = || error.context("sqlstate").is_some_and(|code| NAMELESS.contains(&code));
        (self.reused && error.kind() == ErrorKind::Unavailable) || (self.named && nameless())
    }

    /// Returns where it leads.
    pub(crate) fn at(&self) -> At {
        self.at.clone()
    }

    /// Returns what is remembered of names there.
    pub(crate) fn names(&self) -> Arc<Names> {
        Arc::clone(&self.at.names)
    }

    /// Begins a transaction, behind a proxy, which may lead to another server than before, and says whether that was done in
    /// time.
    async fn begin(&mut self) -> bool {
        let shared = Arc::clone(&self.pool.0);
        let begun =
            tokio::time::timeout(shared.acquire_timeout, server::begin(&mut *self, &shared.begin)).await;
        if let Ok(Ok(Some(home))) = begun {
            (self.at, self.begun) = (shared.at(home), true);
        }
        self.begun
    }

    /// Ends the transaction in which it was given behind a proxy: whoever has it begins another one.
    pub(crate) async fn end(&mut self) -> Result<(), sqlx::Error> {
        if std::mem::take(&mut self.begun) {
            sqlx::raw_sql("COMMIT").execute(&mut **self).await?;
        }
        Ok(())
    }

    /// Commits what was done so far behind a proxy, where each statement does so for itself elsewhere.
    pub(crate) async fn made(&mut self) -> Result<(), sqlx::Error> {
        if self.begun {
            sqlx::raw_sql("COMMIT AND CHAIN").execute(&mut **self).await?;
        }
        Ok(())
    }

    /// Goes on after a statement that failed: behind a proxy the transaction has failed with it.
    pub(crate) async fn anew(&mut self) -> Result<(), sqlx::Error> {
        if self.begun {
            sqlx::raw_sql("ROLLBACK AND CHAIN").execute(&mut **self).await?;
        }
        Ok(())
    }

    /// Gives it back: no statement is under way, and no transaction is open that anybody knows of.
    pub(crate) async fn clean(mut self) -> Result<(), sqlx::Error> {
        self.end().await?;
        if let Some(connection) = self.connection.take()
            && !self.pool.0.permits.is_closed()
        {
            self.pool.0.idle().push(Idle {
                connection,
                at: self.at,
                since: Instant::now(),
                named: self.named,
            });
        }
        Ok(())
    }
}

impl Deref for Conn {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("it is taken out only by `clean`, which consumes this"),
        }
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("it is taken out only by `clean`, which consumes this"),
        }
    }
}
