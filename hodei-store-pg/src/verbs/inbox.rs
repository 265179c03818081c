//! Making jobs of what came in by SQL.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hodei_core::job::{Encoding, JobSpecBuilder, NewJob, Payload};
use hodei_core::store::{Refusal, SubmitOptions, Submitted};
use hodei_core::{Result, Tenant, Timestamp};
use sqlx::postgres::PgRow;

use super::submit::make_lanes;
use crate::ask;
use crate::codec::{damaged, name_of, priority};
use crate::error::{CROWDED, failed};
use crate::inner::{Inner, reading};
use crate::names::column;
use crate::pool::Conn;
use crate::work::{Verb, Work};

const OP: &str = "store.inbox";

/// How many are made in one transaction. Each has at most 1 MiB of arguments, as its table says.
const MOST: i64 = 64;
/// For how long one stays that no job can be made of.
const REFUSED_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Makes jobs of what came in, in its order; says whether there may be more.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    /// Those whose tenants have as many lanes as they may.
    crowded: HashSet<i64>,
}

/// A row, and the job that it asks for, or why there can be none.
type Asked = (i64, std::result::Result<NewJob, String>);

/// What became of rows.
#[derive(Debug, Default)]
struct Became {
    made: Vec<i64>,
    refused: Vec<i64>,
    why: Vec<String>,
}

impl Became {
    fn refuse(&mut self, no: i64, why: impl Into<String>) {
        self.refused.push(no);
        self.why.push(why.into());
    }
}

#[async_trait]
impl Verb for Drain {
    type Reply = bool;

    async fn prepare(&mut self, inner: &Inner, conn: &mut Conn) -> Result<()> {
        self.crowded.clear();
        inner.trip();
        // Which lane it is does not depend on the arguments.
        let rows = ask::query(
            "SELECT no, tenant, queue, kind, 'null'::bytea, priority, run_at, unique_key FROM hodei.inbox
             WHERE refused IS NULL ORDER BY no LIMIT $1",
        )
        .bind(MOST)
        .fetch_all(&mut **conn)
        .await
        .map_err(failed(OP))?;
        for row in &rows {
            let (no, Ok(job)) = asked(row)? else { continue };
            match make_lanes(conn, &[job], Some(inner.config.tenant_max_lanes)).await {
                Err(error) if error.context("sqlstate") == Some(CROWDED) => {
                    self.crowded.insert(no);
                    // Behind a proxy the transaction has failed with it, and a new one is needed.
                    conn.anew().await.map_err(failed(OP))?;
                }
                made => made?,
            }
        }
        Ok(())
    }

    async fn run(&mut self, work: &mut Work<'_>) -> Result<bool> {
        let inner = Arc::clone(work.inner());
        inner.trip();
        let rows = ask::query(
            "SELECT no, tenant, queue, kind, args, priority, run_at, unique_key FROM hodei.inbox
             WHERE refused IS NULL ORDER BY no LIMIT $1 FOR UPDATE SKIP LOCKED",
        )
        .bind(MOST)
        .fetch_all(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
        let more = i64::try_from(rows.len()).is_ok_and(|n| n == MOST);
        let (mut became, mut nos, mut jobs) = (Became::default(), Vec::new(), Vec::new());
        for row in &rows {
            match asked(row)? {
                (no, Ok(_)) if self.crowded.contains(&no) => became.refuse(no, "too many queues"),
                (no, Ok(job)) => {
                    nos.push(no);
                    jobs.push(job);
                }
                (no, Err(why)) => became.refuse(no, why),
            }
        }
        // Through the door, where bounds are held.
        let replies = work.submit(&jobs, SubmitOptions::each()).await?;
        for (no, reply) in nos.into_iter().zip(replies) {
            match reply {
                Submitted::Refused(Refusal::TooMany) => became.refuse(no, "too many unsettled jobs"),
                Submitted::Refused(_) => became.refuse(no, "invalid"),
                _ => became.made.push(no),
            }
        }
        settle(work, became).await?;
        Ok(more)
    }
}

/// Notes what became of rows, and takes away those that were refused long ago.
async fn settle(work: &mut Work<'_>, became: Became) -> Result<()> {
    work.inner().trip();
    let kept = i64::try_from(REFUSED_FOR.as_micros()).unwrap_or(i64::MAX);
    ask::query(
        "WITH r AS (
             UPDATE hodei.inbox i SET refused = u.why, refused_at = hodei.now()
             FROM unnest($2::int8[], $3::text[]) u (no, why) WHERE i.no = u.no
         ), e AS (
             DELETE FROM hodei.inbox WHERE no IN (
                 SELECT no FROM hodei.inbox WHERE refused_at < hodei.now() - $4 ORDER BY refused_at LIMIT $5
                 FOR UPDATE SKIP LOCKED
             )
         )
         DELETE FROM hodei.inbox WHERE no = ANY ($1)",
    )
    .bind(became.made)
    .bind(became.refused)
    .bind(became.why)
    .bind(kept)
    .bind(MOST)
    .execute(&mut *work.conn)
    .await
    .map_err(failed(OP))?;
    Ok(())
}

fn asked(row: &PgRow) -> Result<Asked> {
    let no = column(row, 0)?;
    let tenant = Tenant::from(name_of(column::<&str>(row, 1)?)?);
    let payload = Payload::Handler {
        kind: name_of(column::<&str>(row, 3)?)?,
        version: 1,
        encoding: Encoding::Json,
        args: Bytes::copy_from_slice(column(row, 4)?),
    };
    let level = u8::try_from(column::<i16>(row, 5)?).map_err(|_| damaged("a bad priority"))?;
    let spec =
        JobSpecBuilder::handler(payload).queue(column::<&str>(row, 2)?).priority(priority(level)?).build();
    let job = spec.map(|spec| NewJob::of(tenant, spec));
    let (run_at, key): (Option<i64>, Option<&str>) = (column(row, 6)?, column(row, 7)?);
    let job = job.map(|job| match run_at {
        Some(at) => job.run_at(Timestamp::from_micros(at)),
        None => job,
    });
    let job = job.map(|job| match key {
        Some(key) => job.unique(key),
        None => job,
    });
    Ok((no, job.map_err(|error| error.to_string())))
}

impl Inner {
    /// Makes jobs of all that came in.
    pub(crate) async fn drain_inbox(self: &Arc<Self>) -> Result<()> {
        loop {
            let there: bool = reading!(self, OP, conn => {
                self.trip();
                ask::scalar("SELECT EXISTS (SELECT 1 FROM hodei.inbox WHERE refused IS NULL)")
                    .fetch_one(&mut *conn)
                    .await
                    .map_err(failed(OP))
            })?;
            if !there || !self.write(OP, Drain::default()).await?.0 {
                return Ok(());
            }
        }
    }
}
