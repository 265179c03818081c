//! Owners and terms: on the connection that is kept for them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::job::{Epoch, Lease};
use hodei_core::store::{Beat, Coordination, OWNER_TTL_MIN, Term};
use hodei_core::{Error, ErrorKind, Fault, Name, OwnerId, Result, Timestamp};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::ask;
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
        let query = ask::query("SELECT hodei.register($1, $2)")
            .bind(owner.name().as_str().to_owned())
            .bind(life(ttl));
        let incarnation: i64 = first(&self.inner().reserved("store.register", patience(ttl), query).await?)?;
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
            let ord = usize::try_from(column::<i64>(row, 0)?).unwrap_or_default();
            let Some(beat) = ord.checked_sub(1).and_then(|n| beats.get_mut(n)) else { continue };
            beat.alive = true;
            if let (Some(id), Some(epoch)) = (column::<Option<Uuid>>(row, 1)?, column::<Option<i64>>(row, 2)?)
            {
                beat.cancel.push((id_of(id), Epoch::from_number(epoch.cast_unsigned())));
            }
        }
        Ok(beats)
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

    async fn now(&self) -> Result<Timestamp> {
        let query = sqlx::query("SELECT hodei.now()");
        let now: i64 = first(&self.inner().reserved("store.now", PATIENCE, query).await?)?;
        Ok(Timestamp::from_micros(now))
    }
}
