//! Owners and terms: on the connection that is kept for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::job::{Epoch, Lease};
use hodei_core::store::{Beat, Coordination, Living, OWNER_TTL_MIN, Round, Rounded, Term};
use hodei_core::{Error, ErrorKind, Fault, Name, OwnerId, Result, Timestamp};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::ask;
use crate::codec::damaged;
use crate::error::{RETRY_AFTER, Stage, of};
use crate::inner::Inner;
use crate::names::column;
use crate::record::id_of;
use crate::store::PgStore;

/// The longest life that is written down: a hundred years.
const LIFE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

fn life(ttl: Duration) -> i64 {
    i64::try_from(ttl.min(LIFE_MAX).as_micros()).unwrap_or(i64::MAX)
}

/// How long what has no life to keep up with may take: 2 s. A heartbeat may be waiting for the connection.
const PATIENCE: Duration = Duration::from_secs(2);
/// What every call is given: 1 s. A server that is busy is not one that is gone.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// How long a call that prolongs a life may take: a third of it, so that the call after it, on another connection, is in
/// time.
fn patience(ttl: Duration) -> Duration {
    (ttl / 3).max(PATIENCE_MIN)
}

/// What the rows of `hodei.round` say that are not of an owner: the term is kept, a new one was taken, there may be
/// something to reap, somebody leads, and there are schedules.
const KEPT: i64 = 0;
const TAKEN: i64 = -1;
const REAPABLE: i64 = -2;
const LED: i64 = -3;
const SCHEDULED: i64 = -4;

type Args = sqlx::postgres::PgArguments;

impl Inner {
    /// Runs one statement, which is a transaction of its own, to its end, or until it took too long: then the connection
    /// is given up, so that the next call does not wait for a server that this one does not reach.
    async fn reserved(
        self: &Arc<Self>,
        op: &'static str,
        patience: Duration,
        query: sqlx::query::Query<'static, sqlx::Postgres, Args>,
    ) -> Result<Vec<PgRow>> {
        let inner = Arc::clone(self);
        self.detached(op, async move {
            let until = tokio::time::Instant::now() + patience.min(inner.config.statement_timeout);
            let late = |kind| Error::new(kind, op).with("timeout", "reserved");
            let conn = tokio::time::timeout_at(until, inner.pools.reserved.acquire(op)).await;
            let mut conn = conn.map_err(|_| late(ErrorKind::Unavailable).retry_after(RETRY_AFTER))??;
            inner.trip();
            let asked = async {
                let rows = query.fetch_all(&mut *conn).await;
                let rows = rows.map_err(|error| of(op, Stage::Commit, error))?;
                conn.clean().await.map_err(|error| of(op, Stage::Commit, error))?;
                Ok(rows)
            };
            let done = tokio::time::timeout_at(until, asked).await;
            match done.unwrap_or_else(|_| Err(late(ErrorKind::Indeterminate))) {
                Ok(rows) => {
                    inner.wrote(1);
                    Ok(rows)
                }
                Err(error) => {
                    inner.pools.reserved.forget();
                    Err(error)
                }
            }
        })
        .await
    }
}

fn first<T>(rows: &[PgRow]) -> Result<T>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Bug, "store.reserved").with("rows", 0))?;
    column(row, 0)
}

/// Takes in a row of what owners learn: that one of them is alive, and perhaps what it must stop.
fn hear(beats: &mut [Beat], row: &PgRow) -> Result<()> {
    let ord = usize::try_from(column::<i64>(row, 0)?).unwrap_or_default();
    let Some(beat) = ord.checked_sub(1).and_then(|n| beats.get_mut(n)) else { return Ok(()) };
    beat.alive = true;
    if let (Some(id), Some(epoch)) = (column::<Option<Uuid>>(row, 1)?, column::<Option<i64>>(row, 2)?) {
        beat.cancel.push((id_of(id), Epoch::from_number(epoch.cast_unsigned())));
    }
    Ok(())
}

/// The rows of those who live have not been cleared; those of the dead are, soon.
const OWNERS: &str = "SELECT o.name, o.incarnation, o.expires_at, ARRAY(
        SELECT t.duty FROM hodei.term t
        WHERE t.owner = o.name AND t.incarnation = o.incarnation AND t.expires_at > hodei.now() ORDER BY 1
    ) FROM hodei.owner o WHERE NOT o.cleared AND o.expires_at > hodei.now() ORDER BY 1, 2";

fn living(row: &PgRow) -> Result<Living> {
    let bad = |_| damaged("a bad name of an owner or of a duty");
    let owner = OwnerId::new(column::<String>(row, 0)?).map_err(bad)?;
    let incarnation = column::<i64>(row, 1)?.cast_unsigned();
    let duties = column::<Vec<String>>(row, 3)?.into_iter().map(|duty| Name::new(duty).map_err(bad));
    Ok(Living {
        lease: Lease { owner, incarnation },
        until: Timestamp::from_micros(column(row, 2)?),
        duties: duties.collect::<Result<_>>()?,
    })
}

fn owner_of(lease: &Lease) -> (String, i64) {
    (lease.owner.name().as_str().to_owned(), lease.incarnation.cast_signed())
}

#[async_trait]
impl Coordination for PgStore {
    async fn register(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
        if ttl < OWNER_TTL_MIN {
            let limit = u64::try_from(OWNER_TTL_MIN.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::invalid("store.register", vec![Fault::new("ttl", "too_small").limit(limit)]));
        }
        let query = ask::query("SELECT hodei.register($1, $2, 1::int2), hodei.home()")
            .bind(owner.name().as_str().to_owned())
            .bind(life(ttl));
        let rows = self.inner().reserved("store.register", patience(ttl), query).await?;
        let incarnation: i64 = first(&rows)?;
        if let Some(row) = rows.first() {
            self.inner().lives_at.store(column(row, 1)?, Ordering::Release);
        }
        Ok(Lease { owner: owner.clone(), incarnation: incarnation.cast_unsigned() })
    }

    async fn beat(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>> {
        let mut beats = vec![Beat::default(); owners.len()];
        if owners.is_empty() {
            return Ok(beats);
        }
        let (names, incarnations): (Vec<String>, Vec<i64>) = owners.iter().map(owner_of).unzip();
        let query = ask::query("SELECT ord, id, epoch FROM hodei.beat($1, $2, $3)")
            .bind(names)
            .bind(incarnations)
            .bind(life(ttl));
        for row in &self.inner().reserved("store.beat", patience(ttl), query).await? {
            hear(&mut beats, row)?;
        }
        Ok(beats)
    }

    async fn round(&self, round: Round) -> Result<Rounded> {
        let Round { owners, ttl, duty, term } = round;
        if owners.is_empty()
            && term.is_none()
            && let Some(scheduled) = self.inner().announcer.is_led(&duty, ttl)
        {
            return Ok(Rounded { led: true, scheduled, ..Rounded::default() });
        }
        let mut rounded = Rounded { beats: vec![Beat::default(); owners.len()], ..Rounded::default() };
        let (names, incarnations): (Vec<String>, Vec<i64>) = owners.iter().map(owner_of).unzip();
        let (holder, life_of_holder) = term.as_ref().map(|term| owner_of(&term.holder)).unzip();
        let query = ask::query("SELECT ord, id, epoch FROM hodei.round($1, $2, $3, $4, $5, $6, $7)")
            .bind(names)
            .bind(incarnations)
            .bind(life(ttl))
            .bind(duty.as_str().to_owned())
            .bind(term.as_ref().map(|term| term.number.cast_signed()))
            .bind(holder)
            .bind(life_of_holder);
        for row in &self.inner().reserved("store.round", patience(ttl), query).await? {
            // What is said of the duty comes as rows of numbers that no owner has.
            match (column::<i64>(row, 0)?, column::<Option<i64>>(row, 2)?) {
                (KEPT, _) => rounded.term.clone_from(&term),
                (TAKEN, Some(number)) => {
                    let holder = owners.first().cloned();
                    let number = number.cast_unsigned();
                    rounded.term = holder.map(|holder| Term { duty: duty.clone(), number, holder });
                }
                (REAPABLE, _) => rounded.reapable = true,
                (LED, _) => rounded.led = true,
                (SCHEDULED, _) => rounded.scheduled = true,
                _ => hear(&mut rounded.beats, row)?,
            }
        }
        Ok(rounded)
    }

    async fn retire(&self, owner: &Lease) -> Result<()> {
        let (name, incarnation) = owner_of(owner);
        let query = ask::query("SELECT hodei.retire($1, $2)").bind(name).bind(incarnation);
        self.inner().reserved("store.retire", PATIENCE, query).await?;
        Ok(())
    }

    async fn take_term(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>> {
        let (name, incarnation) = owner_of(holder);
        let query = ask::query("SELECT hodei.take_term($1, $2, $3, $4)")
            .bind(duty.as_str().to_owned())
            .bind(name)
            .bind(incarnation)
            .bind(life(ttl));
        let number: Option<i64> =
            first(&self.inner().reserved("store.take_term", patience(ttl), query).await?)?;
        Ok(number.map(|number| Term {
            duty: duty.clone(),
            number: number.cast_unsigned(),
            holder: holder.clone(),
        }))
    }

    async fn keep_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        let (name, incarnation) = owner_of(&term.holder);
        let query = ask::query("SELECT hodei.keep_term($1, $2, $3, $4, $5)")
            .bind(term.duty.as_str().to_owned())
            .bind(term.number.cast_signed())
            .bind(name)
            .bind(incarnation)
            .bind(life(ttl));
        first(&self.inner().reserved("store.keep_term", patience(ttl), query).await?)
    }

    async fn owners(&self) -> Result<Vec<Living>> {
        let rows = self.inner().reserved("store.owners", PATIENCE, ask::query(OWNERS)).await?;
        rows.iter().map(living).collect()
    }

    async fn now(&self) -> Result<Timestamp> {
        let query = sqlx::query("SELECT hodei.now()");
        let now: i64 = first(&self.inner().reserved("store.now", PATIENCE, query).await?)?;
        Ok(Timestamp::from_micros(now))
    }
}
