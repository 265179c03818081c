//! Taking back from the dead, and failing what is too late.

use async_trait::async_trait;
use hodei_core::job::rules;
use hodei_core::store::{Reaped, Term};
use hodei_core::{JobId, Result};
use uuid::Uuid;

use super::terms::leads;
use crate::ask;
use crate::error::failed;
use crate::names::column;
use crate::record::id_of;
use crate::work::{Verb, Work};

const OP: &str = "store.reap";

/// After how long a dead owner that holds nothing is looked at no more: ten minutes, which no transaction takes.
const CLEARED: i64 = 600_000_000;

/// Takes jobs back from dead owners, and fails pending ones whose deadline has passed.
#[derive(Debug)]
pub(crate) struct Reap {
    pub(crate) term: Term,
    pub(crate) lost_max: u16,
    pub(crate) limit: usize,
}

#[async_trait]
impl Verb for Reap {
    type Reply = Reaped;

    async fn run(&mut self, work: &mut Work<'_>) -> Result<Reaped> {
        if !leads(work, &self.term).await? {
            return Ok(Reaped { term_lost: true, ..Reaped::default() });
        }
        let mut found = self.held_by_the_dead(work).await?;
        let mut more = found.len() > self.limit;
        found.truncate(self.limit);
        let lost: Vec<JobId> = found.iter().map(|(id, _)| *id).collect();
        work.load_with_limits(&lost, &[]).await?;
        work.load_children(&lost).await?;
        let (now, lost_max) = (work.now, self.lost_max);
        for (id, holder) in &found {
            // It may have been settled, or claimed by somebody who lives, since it was found.
            if work.holder(*id) != Some(*holder) {
                continue;
            }
            let moved = work.update(*id, |job| {
                let change = rules::lose(job, lost_max, now);
                (change.is_some(), change)
            });
            if moved == Some(true) {
                work.cascade(*id).await?;
            }
        }
        work.flush().await?;
        // After the losses, so that a job which comes back too late does not wait for another reap.
        let left = self.limit - lost.len();
        let mut late = late(work, left.saturating_add(1)).await?;
        more |= late.len() > left;
        late.truncate(left);
        work.load(&late).await?;
        work.load_children(&late).await?;
        for id in &late {
            let moved = work.update(*id, |job| {
                let change = rules::expire(job, now);
                (change.is_some(), change)
            });
            if moved == Some(true) {
                work.cascade(*id).await?;
            }
        }
        Ok(Reaped { more, ..Reaped::default() })
    }
}

impl Reap {
    /// Finds what the dead hold, one more than the limit. Who is dead is marked so before, for good: a heartbeat that
    /// comes at this very moment is told that it is too late.
    async fn held_by_the_dead(&self, work: &mut Work<'_>) -> Result<Vec<(JobId, i32)>> {
        work.inner().trip();
        let dead: Vec<i32> = ask::scalar(
            "UPDATE hodei.owner o SET expires_at = o.expires_at WHERE o.no = ANY (ARRAY(
                 SELECT no FROM hodei.owner WHERE NOT cleared AND expires_at <= $1 ORDER BY no FOR UPDATE
             )) RETURNING o.no",
        )
        .bind(work.now.as_micros())
        .fetch_all(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
        if dead.is_empty() {
            return Ok(Vec::new());
        }
        work.inner().trip();
        let rows = ask::query("SELECT id, holder FROM hodei.leased WHERE holder = ANY ($1) LIMIT $2")
            .bind(&dead)
            .bind(i64::try_from(self.limit).unwrap_or(i64::MAX).saturating_add(1))
            .fetch_all(&mut *work.conn)
            .await
            .map_err(failed(OP))?;
        if rows.is_empty() {
            // Nobody asks for them again. Not at once: a claim that was made in their last moment may still be on its way.
            work.inner().trip();
            ask::query("UPDATE hodei.owner SET cleared = true WHERE no = ANY ($1) AND expires_at <= $2")
                .bind(&dead)
                .bind(work.now.as_micros().saturating_sub(CLEARED))
                .execute(&mut *work.conn)
                .await
                .map_err(failed(OP))?;
        }
        rows.iter().map(|row| Ok((id_of(column(row, 0)?), column(row, 1)?))).collect()
    }
}

async fn late(work: &mut Work<'_>, most: usize) -> Result<Vec<JobId>> {
    work.inner().trip();
    let found: Vec<Uuid> = ask::scalar(
        "(SELECT id FROM hodei.ready WHERE deadline <= $1 ORDER BY deadline LIMIT $2)
         UNION ALL
         (SELECT id FROM hodei.delayed WHERE deadline <= $1 ORDER BY deadline LIMIT $2) LIMIT $2",
    )
    .bind(work.now.as_micros())
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_all(&mut *work.conn)
    .await
    .map_err(failed(OP))?;
    Ok(found.into_iter().map(id_of).collect())
}
