//! What is ready.

use std::collections::HashMap;
use std::sync::Arc;

use hodei_core::job::{Job, Priority};
use hodei_core::store::{Before, Lane, LaneHead, Lanes, Served};
use hodei_core::{Result, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};

use crate::ask;
use crate::codec::{damaged, priority};
use crate::error::failed;
use crate::inner::{Inner, reading};
use crate::names::{LaneRow, column};
use crate::record::{distinct, uuid_of};
use crate::work::rank_of;

const OP: &str = "store.lanes";
/// The rank of the row that tells when rates let more through.
const OPENS: i16 = -1;

impl Inner {
    pub(crate) async fn lanes(self: &Arc<Self>, served: &Served) -> Result<Lanes> {
        let queues: Option<Vec<String>> =
            served.queues.as_ref().map(|all| all.iter().map(|queue| queue.as_str().to_owned()).collect());
        let levels = if served.every_level { i32::from(Priority::MAX.level()) + 1 } else { 1 };
        let inner = Arc::clone(self);
        // It moves what has become due, so it is run to its end.
        self.detached(OP, async move {
            reading!(inner, OP, conn => {
                let mut rows = inner.look(&mut conn, queues.as_deref(), levels).await?;
                if rows.iter().any(is_ahead) {
                    inner.trip();
                    ask::query("SELECT hodei.bring_back_rates(hodei.now())")
                        .execute(&mut *conn)
                        .await
                        .map_err(failed(OP))?;
                    rows = inner.look(&mut conn, queues.as_deref(), levels).await?;
                }
                inner.read(rows.len());
                let mut lanes: Vec<i32> = Vec::new();
                for row in &rows {
                    lanes.extend(column::<Option<i32>>(row, 0)?);
                }
                let lanes = conn.names().load_lanes(&mut conn, &distinct(lanes)).await?;
                let mut found = Lanes::default();
                for row in &rows {
                    found.next_due = column::<Option<i64>>(row, 5)?.map(Timestamp::from_micros);
                    if column::<Option<i16>>(row, 1)? == Some(OPENS) {
                        found.opens_at = column::<Option<i64>>(row, 3)?.map(Timestamp::from_micros);
                    }
                    found.heads.extend(head(&lanes, row)?);
                }
                Ok(found)
            })
        })
        .await
    }

    async fn look(
        &self,
        conn: &mut PgConnection,
        queues: Option<&[String]>,
        levels: i32,
    ) -> Result<Vec<PgRow>> {
        self.trip();
        ask::query("SELECT lane, rank, depth, eligible_at, weight, next_due FROM hodei.lanes($1, $2)")
            .bind(queues)
            .bind(levels)
            .fetch_all(conn)
            .await
            .map_err(failed(OP))
    }
}

/// Whether a rate is closed until a time that a clock saw which was set back since.
fn is_ahead(row: &PgRow) -> bool {
    let told = column::<Option<i16>>(row, 1).ok().flatten() == Some(OPENS);
    told && column::<Option<i64>>(row, 2).is_ok_and(|depth| depth.is_some())
}

/// The job's own lane, then lane by lane, without looking at those in which nothing is ready, until as many are counted.
const BEFORE: &str = "WITH RECURSIVE own AS (
         SELECT count(*) AS n FROM (SELECT 1 FROM hodei.ready r
             WHERE r.lane = $5 AND (r.rank, r.eligible_at, r.id) < ($1, $2, $3) LIMIT $4) x
     ), w AS (
         (SELECT r.lane AS no FROM hodei.ready r ORDER BY r.lane LIMIT 1)
         UNION ALL
         SELECT (SELECT r.lane FROM hodei.ready r WHERE r.lane > w.no ORDER BY r.lane LIMIT 1) FROM w
         WHERE w.no IS NOT NULL
     ), others AS (
         SELECT count(*) AS n FROM (SELECT 1 FROM w CROSS JOIN LATERAL (SELECT 1 FROM hodei.ready r
             WHERE r.lane = w.no AND (r.rank, r.eligible_at, r.id) < ($1, $2, $3) LIMIT $4) x
             WHERE w.no IS DISTINCT FROM $5 LIMIT (SELECT $4 - n FROM own)) y
     )
     SELECT own.n, own.n + others.n FROM own, others";

impl Inner {
    pub(crate) async fn before(self: &Arc<Self>, job: &Job, most: u64) -> Result<Before> {
        const OP: &str = "store.before";
        reading!(self, OP, conn => {
            let lane = conn.names().find_lane(&mut conn, &Lane::of(job)).await?;
            self.trip();
            let row = ask::query(BEFORE)
                .bind(rank_of(job))
                .bind(job.eligible_at.as_micros())
                .bind(uuid_of(job.id))
                .bind(i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1))
                .bind(lane.map(|lane| lane.no))
                .fetch_one(&mut *conn)
                .await
                .map_err(failed(OP))?;
            let count = |n: usize| column::<i64>(&row, n).map(|n| n.max(0).cast_unsigned());
            Ok(Before { lane: count(0)?, all: count(1)?, more: false }.up_to(most))
        })
    }
}

fn head(lanes: &HashMap<i32, Arc<LaneRow>>, row: &PgRow) -> Result<Option<LaneHead>> {
    let Some(no) = column::<Option<i32>>(row, 0)? else { return Ok(None) };
    let lane = lanes.get(&no).ok_or_else(|| damaged("a lane without a row"))?;
    let level = u8::try_from(63 - column::<i16>(row, 1)?).map_err(|_| damaged("a bad rank"))?;
    Ok(Some(LaneHead {
        lane: lane.lane.clone(),
        request: Arc::clone(&lane.request),
        level: priority(level)?,
        depth: column::<i64>(row, 2)?.max(0).cast_unsigned(),
        eligible_at: Timestamp::from_micros(column(row, 3)?),
        weight: u32::try_from(column::<i64>(row, 4)?).unwrap_or(1),
    }))
}
