//! Storing one job that is taken for new: one statement without a function, which a lone caller waits for the least.
//!
//! Nothing of it is looked up first. Whether its id is there already the index of ids says, as an error, which the server
//! writes into its log: so this way is taken by ids that were minted just now and follow all that were submitted here, as
//! those do that nobody submits again. Where one is there all the same, nothing has happened, and it is looked at as any other.

use std::time::Duration;

use hodei_core::job::NewJob;
use hodei_core::store::{Change, ChangeLog, Submitted};
use hodei_core::{Error, ErrorKind, JobId, Result, Timestamp};
use uuid::Uuid;

use super::submit::{OP, Stored, born, rank};
use crate::ask;
use crate::codec::changes_bytes;
use crate::error::failed;
use crate::inner::Inner;
use crate::names::column;
use crate::record::uuid_of;

/// How long ago a job was made at most for its id to be taken for new: 10 s.
const JUST_NOW: Duration = Duration::from_secs(10);

/// The job, and where it is. For the locks of others it waits for moments only, as `hodei.submit` does. The place of its change
/// is that of `hodei.pos`: a new job was moved by nobody before, and whatever was told when this statement began stands before
/// it, as the statement sees it.
macro_rules! storing {
    ($rest:literal) => {
        concat!(
            "WITH t AS MATERIALIZED (
                SELECT hodei.now() AS now, set_config('lock_timeout', '200ms', true)
            ), j AS (
                INSERT INTO hodei.job (id, fingerprint, created_at, tenant, lane, rank, deadline, pipeline, name, body)
                SELECT $1, $2, now, $3, $4, $5, $6, $7, $8, $9 FROM t RETURNING created_at
            ), r AS (
                INSERT INTO hodei.ready (id, eligible_at, lane, rank, deadline, pipeline)
                SELECT $1, created_at, $4, $5, $6, $7 FROM j
            ), p AS (
                SELECT created_at, nextval('hodei.change_no') AS no,
                    greatest(pg_current_xact_id()::text::int8, pg_snapshot_xmax(pg_current_snapshot())::text::int8 - 1)
                        + coalesce((SELECT base FROM hodei.log_base WHERE timeline = hodei.timeline()), hodei.move_in()) AS pos
                FROM j
            ), ",
            $rest
        )
    };
}

/// With its change in the log.
const RECORDED: &str = storing!(
    "d AS (
        INSERT INTO hodei.delta (tenant, lane, pending, changes) VALUES ($3, $4, 1, 1)
    )
    INSERT INTO hodei.change (pos, no, at, node, tenant, n, body)
    SELECT pos, no, created_at, $10, $3, 1, $11 FROM p RETURNING at, pos, no"
);

/// Without.
const UNRECORDED: &str = storing!(
    "d AS (
        INSERT INTO hodei.delta (tenant, lane, pending) VALUES ($3, $4, 1)
    )
    SELECT created_at, pos, no FROM p"
);

/// Says whether an id was minted just now. The times in ids that were minted together run ahead of the clock.
pub(super) fn is_just_now(id: JobId, now: Timestamp) -> bool {
    let age = now.as_micros().abs_diff(id.minted_at().as_micros());
    u128::from(age) <= JUST_NOW.as_micros()
}

/// Says whether a job is of the kind that is stored so, if its id is new. Without names every statement is taken apart anew, and
/// the shortest is the best.
pub(super) fn is_simple(job: &NewJob) -> bool {
    ask::named() && job.unique.is_none() && job.run_at.is_none()
}

impl Inner {
    /// Stores a job that is new. Where its id is there it is `Locked`, as where somebody takes it at this moment.
    pub(super) async fn store_fresh(&self, job: &NewJob) -> Result<Stored> {
        let mut conn = self.pools.verbs.acquire(OP).await?;
        let (tenant, lanes) = self.in_time(OP, self.make_lanes_of(&mut conn, &[job])).await?;
        let records = self.config.change_log != ChangeLog::Off;
        let birth = born(job);
        let query = ask::query(if records { RECORDED } else { UNRECORDED })
            .bind(uuid_of(job.id))
            .bind(self.written_fingerprint(job))
            .bind(tenant)
            .bind(lanes.first().copied())
            .bind(rank(job))
            .bind(job.deadline.map(|at| at.as_micros()))
            .bind(job.pipeline.map(|id| Uuid::from_bytes(*id.as_bytes())))
            .bind(job.spec.name().as_str())
            .bind(self.bodies.bytes(None, &[], &job.spec));
        let query = if records { query.bind(self.node).bind(changes_bytes([&birth])) } else { query };
        let ticket = self.teller.begin();
        let (conn, rows) = self.statement(OP, conn, query).await?;
        conn.clean().await.map_err(failed(OP))?;
        let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Bug, OP).with("rows", "none"))?;
        let (at, place) = (Timestamp::from_micros(column(row, 0)?), (column(row, 1)?, column(row, 2)?));
        let stored = vec![(Submitted::New(job.id), Some(Change { at, ..birth }))];
        self.made(ticket, place, &stored).await;
        Ok(stored)
    }
}
