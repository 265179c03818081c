//! Removing what retention no longer keeps.

use std::time::Duration;

use async_trait::async_trait;
use hodei_core::job::State;
use hodei_core::store::{Pruned, Retention, Term};
use hodei_core::{JobId, Result, Tenant};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::terms::leads;
use crate::ask;
use crate::codec::name_of;
use crate::error::failed;
use crate::names::column;
use crate::read::{LOOK, LOOKS};
use crate::record::id_of;
use crate::work::{Verb, Work};

const OP: &str = "store.prune";

/// How long the row of a dead owner is kept at least: an hour, which no transaction takes.
const OWNER_KEPT: i64 = 3_600_000_000;

/// Removes what retention no longer keeps.
#[derive(Debug)]
pub(crate) struct Prune {
    pub(crate) term: Term,
    pub(crate) retention: Retention,
    pub(crate) limit: usize,
}

#[async_trait]
impl Verb for Prune {
    type Reply = Pruned;

    async fn run(&mut self, work: &mut Work<'_>) -> Result<Pruned> {
        if !leads(work, &self.term).await? {
            return Ok(Pruned { term_lost: true, ..Pruned::default() });
        }
        let (gone, more_jobs) = self.prune_jobs(work).await?;
        let (changes, more_changes) = self.prune_changes(work).await?;
        forget_owners(work).await?;
        work.rows += gone.len() as u64 + u64::from(changes > 0);
        Ok(Pruned {
            jobs: gone.len() as u64,
            gone,
            changes,
            more: more_jobs || more_changes,
            ..Pruned::default()
        })
    }
}

impl Prune {
    fn most(&self) -> i64 {
        i64::try_from(self.limit).unwrap_or(i64::MAX)
    }

    /// The times until which what ended is kept no longer, and what failed.
    fn cuts(&self, work: &Work<'_>) -> (i64, i64) {
        let kept = work.inner().config.history;
        let age = |state| if kept { self.retention.age(state) } else { Duration::ZERO };
        let cut = |state| work.now.saturating_sub(age(state)).as_micros();
        (cut(State::Succeeded), cut(State::Failed))
    }

    /// Takes leave of the jobs of an era that went whole, and removes others one by one; says whether there are more.
    async fn prune_jobs(&self, work: &mut Work<'_>) -> Result<(Vec<(Tenant, JobId)>, bool)> {
        work.inner().trip();
        let swept = ask::query("SELECT id, tenant FROM hodei.sweep($1)")
            .bind(self.most())
            .fetch_all(&mut *work.conn)
            .await
            .map_err(failed(OP))?;
        let mut gone = gone_of(&swept)?;
        if gone.len() >= self.limit {
            return Ok((gone, true));
        }
        let left = self.limit - gone.len();
        let (mut found, unseen) = self.outlived(work, left.saturating_add(1)).await?;
        // An era that is empty has to be dropped.
        let more = unseen || found.len() > left || !swept.is_empty();
        found.truncate(left);
        if !found.is_empty() {
            work.inner().trip();
            let removed = ask::query("SELECT id, tenant FROM hodei.remove($1)")
                .bind(&found)
                .fetch_all(&mut *work.conn)
                .await
                .map_err(failed(OP))?;
            gone.extend(gone_of(&removed)?);
        }
        Ok((gone, more))
    }

    /// Finds and locks ended jobs that are not kept: those that are too old, then those that are too many. Says whether there
    /// is more to look through.
    async fn outlived(&self, work: &mut Work<'_>, most: usize) -> Result<(Vec<Uuid>, bool)> {
        let (jobs, failed_jobs) = self.cuts(work);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        work.inner().trip();
        let seen: Vec<Option<Uuid>> = ask::scalar("SELECT hodei.outlived($1, $2, $3)")
            .bind(jobs)
            .bind(failed_jobs)
            .bind(most)
            .fetch_all(&mut *work.conn)
            .await
            .map_err(failed(OP))?;
        let unseen = seen.iter().any(Option::is_none);
        let mut found: Vec<Uuid> = seen.into_iter().flatten().collect();
        let left = most - i64::try_from(found.len()).unwrap_or(most);
        if self.retention.most < u64::MAX && left > 0 {
            work.inner().trip();
            let surplus: Vec<Uuid> = ask::scalar("SELECT hodei.surplus($1, $2, $3, $4)")
                .bind(i64::try_from(self.retention.most).unwrap_or(i64::MAX))
                .bind(&found)
                .bind(work.now.saturating_sub(Retention::KEYS_MIN).as_micros())
                .bind(left)
                .fetch_all(&mut *work.conn)
                .await
                .map_err(failed(OP))?;
            found.extend(surplus);
        }
        Ok((found, unseen))
    }

    /// Moves the floor of the change log up, and says whether it has to go further.
    async fn prune_changes(&self, work: &mut Work<'_>) -> Result<(u64, bool)> {
        work.inner().trip();
        let row = ask::query(
            "SELECT f.pos, f.no, f.skip, ((SELECT coalesce(sum(changes), 0) FROM hodei.total)
                 + (SELECT coalesce(sum(changes), 0) FROM hodei.delta))::int8
             FROM hodei.change_floor f FOR UPDATE",
        )
        .fetch_one(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
        let (pos, no): (i64, i64) = (column(&row, 0)?, column(&row, 1)?);
        let (skip, kept): (i32, i64) = (column(&row, 2)?, column(&row, 3)?);
        let most = i64::try_from(self.retention.changes).unwrap_or(i64::MAX);
        let spare = (kept - most).max(0);
        let wanted = spare.min(self.most());
        if wanted == 0 {
            return Ok((0, spare > 0));
        }
        // A row of the log has a change at least; where one has more, the last that are read are not needed.
        let (mut left, mut floor) = (wanted, (pos, no, skip));
        for look in 1..=LOOKS {
            (left, floor) = (wanted, (pos, no, skip));
            for row in self.first_changes(work, (pos, no), wanted.saturating_add(1)).await? {
                let gone = if (floor.0, floor.1) == (row.0, row.1) { floor.2 } else { 0 };
                let taken = left.min(i64::from(row.2 - gone));
                floor = (row.0, row.1, gone + i32::try_from(taken).unwrap_or_default());
                left -= taken;
                if left == 0 {
                    break;
                }
            }
            if left == 0 || look == LOOKS {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let removed = wanted - left;
        work.inner().trip();
        // What lies in a volume goes with it, but from the first of a migrated database, which ends far ahead.
        ask::query(
            "WITH f AS (UPDATE hodei.change_floor SET pos = $1, no = $2, skip = $3 RETURNING hodei.thin_out($1)),
                 d AS (INSERT INTO hodei.delta (tenant, changes) SELECT 0, -$4::int4 WHERE $4 > 0)
             DELETE FROM hodei.change_rest WHERE (pos, no) < ($1, $2) OR ((pos, no) = ($1, $2) AND n <= $3)",
        )
        .bind(floor.0)
        .bind(floor.1)
        .bind(floor.2)
        .bind(i32::try_from(removed).unwrap_or(i32::MAX))
        .execute(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
        // What is not complete yet is for the next round: to come back at once would be in vain.
        Ok((removed.max(0).cast_unsigned(), left == 0 && spare > removed))
    }

    /// Reads the first rows of the log from a place on that are complete: their places, and how many changes they have.
    async fn first_changes(
        &self,
        work: &mut Work<'_>,
        (pos, no): (i64, i64),
        most: i64,
    ) -> Result<Vec<(i64, i64, i32)>> {
        work.inner().trip();
        let rows = ask::query(
            "SELECT pos, no, n FROM hodei.change WHERE pos >= $1 AND (pos, no) >= ($1, $2) AND pos < (SELECT hodei.horizon())
             ORDER BY pos, no LIMIT $3",
        )
        .bind(pos)
        .bind(no)
        .bind(most)
        .fetch_all(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
        rows.iter().map(|row| Ok((column(row, 0)?, column(row, 1)?, column(row, 2)?))).collect()
    }
}

fn gone_of(rows: &[PgRow]) -> Result<Vec<(Tenant, JobId)>> {
    let gone = |row| Ok((Tenant::from(name_of(column::<&str>(row, 1)?)?), id_of(column(row, 0)?)));
    rows.iter().map(gone).collect()
}

/// Removes the rows of owners that are long dead and hold nothing; incarnations come from one sequence, so none comes
/// twice.
async fn forget_owners(work: &mut Work<'_>) -> Result<()> {
    work.inner().trip();
    ask::query(
        "DELETE FROM hodei.owner WHERE no = ANY (ARRAY(
             SELECT no FROM hodei.owner WHERE cleared AND expires_at <= $1 ORDER BY no LIMIT 1000
             FOR UPDATE SKIP LOCKED
         ))",
    )
    .bind(work.now.as_micros().saturating_sub(OWNER_KEPT))
    .execute(&mut *work.conn)
    .await
    .map_err(failed(OP))?;
    Ok(())
}
