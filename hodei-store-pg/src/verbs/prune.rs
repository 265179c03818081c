//! Removing what retention no longer keeps.

use async_trait::async_trait;
use hodei_core::job::State;
use hodei_core::store::{Pruned, Retention, Term};
use hodei_core::{JobId, Result, Tenant};
use uuid::Uuid;

use super::terms::leads;
use crate::ask;
use crate::codec::name_of;
use crate::error::failed;
use crate::names::column;
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
        let (found, more_jobs) = self.outlived(work).await?;
        let gone = remove(work, &found).await?;
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

    /// Finds and locks ended jobs that are not kept, and says whether there are more.
    async fn outlived(&self, work: &mut Work<'_>) -> Result<(Vec<Uuid>, bool)> {
        let cut = |state| work.now.saturating_sub(self.retention.age(state)).as_micros();
        let (jobs, failed_jobs) = (cut(State::Succeeded), cut(State::Failed));
        let keys = work.now.saturating_sub(Retention::KEYS_MIN).as_micros();
        work.inner().trip();
        let mut found: Vec<Uuid> = ask::scalar("SELECT hodei.outlived($1, $2, $3)")
            .bind(jobs)
            .bind(failed_jobs)
            .bind(self.most().saturating_add(1))
            .fetch_all(&mut *work.conn)
            .await
            .map_err(failed(OP))?;
        if self.retention.most < u64::MAX && found.len() <= self.limit {
            work.inner().trip();
            let surplus: Vec<Uuid> = ask::scalar(
                "WITH c AS (
                     SELECT tenant, 4 AS state, succeeded AS n FROM hodei.total
                     UNION ALL SELECT tenant, 5, failed FROM hodei.total
                     UNION ALL SELECT tenant, 6, cancelled FROM hodei.total
                     UNION ALL SELECT tenant, 4, succeeded FROM hodei.delta
                     UNION ALL SELECT tenant, 5, failed FROM hodei.delta
                     UNION ALL SELECT tenant, 6, cancelled FROM hodei.delta
                 ), s AS (
                     SELECT c.tenant, c.state, sum(c.n)::int8 - $1 - (SELECT count(*) FROM hodei.done g
                         WHERE g.id = ANY ($2) AND g.tenant = c.tenant AND g.state = c.state) AS surplus
                     FROM c GROUP BY c.tenant, c.state
                 )
                 SELECT d.id FROM s CROSS JOIN LATERAL (
                     SELECT d.id FROM hodei.done d
                     WHERE d.tenant = s.tenant AND d.state = s.state AND d.moved_at <= $3 AND d.id <> ALL ($2)
                         AND NOT EXISTS (SELECT 1 FROM hodei.edge e WHERE e.parent = d.id
                             AND NOT EXISTS (SELECT 1 FROM hodei.done c WHERE c.id = e.child))
                         AND NOT EXISTS (SELECT 1 FROM hodei.edge e WHERE e.child = d.id AND e.turn AND NOT e.told)
                     ORDER BY d.moved_at, d.id LIMIT least(s.surplus, $4) FOR UPDATE OF d SKIP LOCKED
                 ) d WHERE s.surplus > 0 LIMIT $4",
            )
            .bind(i64::try_from(self.retention.most).unwrap_or(i64::MAX))
            .bind(&found)
            .bind(keys)
            .bind(self.most().saturating_add(1))
            .fetch_all(&mut *work.conn)
            .await
            .map_err(failed(OP))?;
            found.extend(surplus);
        }
        let more = found.len() > self.limit;
        found.truncate(self.limit);
        Ok((found, more))
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
        work.inner().trip();
        // A row of the log has a change at least.
        let rows = ask::query(
            "SELECT pos, no, n FROM hodei.change WHERE (pos, no) >= ($1, $2) AND pos < (SELECT hodei.horizon())
             ORDER BY pos, no LIMIT $3",
        )
        .bind(pos)
        .bind(no)
        .bind(wanted.saturating_add(1))
        .fetch_all(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
        let (mut left, mut floor) = (wanted, (pos, no, skip));
        for row in &rows {
            let (pos, no, n): (i64, i64, i32) = (column(row, 0)?, column(row, 1)?, column(row, 2)?);
            let gone = if (floor.0, floor.1) == (pos, no) { floor.2 } else { 0 };
            let taken = left.min(i64::from(n - gone));
            floor = (pos, no, gone + i32::try_from(taken).unwrap_or_default());
            left -= taken;
            if left == 0 {
                break;
            }
        }
        let removed = wanted - left;
        work.inner().trip();
        ask::query(
            "WITH f AS (UPDATE hodei.change_floor SET pos = $1, no = $2, skip = $3),
                 d AS (INSERT INTO hodei.delta (tenant, changes) SELECT 0, -$4::int4 WHERE $4 > 0)
             DELETE FROM hodei.change WHERE (pos, no) < ($1, $2) OR ((pos, no) = ($1, $2) AND n <= $3)",
        )
        .bind(floor.0)
        .bind(floor.1)
        .bind(floor.2)
        .bind(i32::try_from(removed).unwrap_or(i32::MAX))
        .execute(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
        Ok((removed.max(0).cast_unsigned(), spare > removed))
    }
}

/// Removes ended jobs that are locked, unless somebody waits for them after all, and all that points to them.
async fn remove(work: &mut Work<'_>, found: &[Uuid]) -> Result<Vec<(Tenant, JobId)>> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    work.inner().trip();
    let rows = ask::query(
        "DELETE FROM hodei.done d USING hodei.tenant t
         WHERE d.id = ANY ($1) AND t.no = d.tenant
             AND NOT EXISTS (SELECT 1 FROM hodei.edge e WHERE e.parent = d.id
                 AND NOT EXISTS (SELECT 1 FROM hodei.done c WHERE c.id = e.child))
         RETURNING d.id, t.name, d.tenant, d.state",
    )
    .bind(found)
    .fetch_all(&mut *work.conn)
    .await
    .map_err(failed(OP))?;
    let (mut gone, mut ids, mut tenants, mut states) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let id: Uuid = column(row, 0)?;
        gone.push((Tenant::from(name_of(column::<&str>(row, 1)?)?), id_of(id)));
        ids.push(id);
        tenants.push(column::<i32>(row, 2)?);
        states.push(column::<i16>(row, 3)?);
    }
    if ids.is_empty() {
        return Ok(gone);
    }
    work.inner().trip();
    ask::query(
        "WITH e AS (DELETE FROM hodei.edge WHERE parent = ANY ($1)),
             c AS (DELETE FROM hodei.edge WHERE child = ANY ($1) AND parent <> ALL ($1)),
             k AS (DELETE FROM hodei.unique_key WHERE id = ANY ($1)),
             -- A row that is held is about to name somebody else.
             s AS (
                 DELETE FROM hodei.sequence WHERE (tenant, key) IN (
                     SELECT tenant, key FROM hodei.sequence WHERE last = ANY ($1) FOR UPDATE SKIP LOCKED
                 )
             ),
             n AS (
                 INSERT INTO hodei.delta (tenant, succeeded, failed, cancelled)
                 SELECT u.tenant, -count(*) FILTER (WHERE u.state = 4), -count(*) FILTER (WHERE u.state = 5),
                     -count(*) FILTER (WHERE u.state = 6)
                 FROM unnest($2::int4[], $3::int2[]) u (tenant, state) GROUP BY u.tenant
             )
         DELETE FROM hodei.job WHERE id = ANY ($1)",
    )
    .bind(&ids)
    .bind(tenants)
    .bind(states)
    .execute(&mut *work.conn)
    .await
    .map_err(failed(OP))?;
    Ok(gone)
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
