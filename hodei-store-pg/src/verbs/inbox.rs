//! Making jobs of what came in by SQL.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hodei_core::job::{Encoding, JobSpecBuilder, NewJob, Payload};
use hodei_core::{Result, Tenant, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};

use super::submit::make_lanes;
use crate::ask;
use crate::codec::{damaged, name_of, priority};
use crate::error::failed;
use crate::inner::{Inner, reading};
use crate::names::column;
use crate::pool::Conn;
use crate::work::{Verb, Work};

const OP: &str = "store.inbox";

/// How many are made in one transaction.
const MOST: usize = 500;

/// Makes jobs of what came in, in its order; says whether there may be more.
#[derive(Debug, Default)]
pub(crate) struct Drain;

/// A row, and the job that it asks for, or why there can be none.
type Asked = (i64, std::result::Result<NewJob, String>);

#[async_trait]
impl Verb for Drain {
    type Reply = bool;

    async fn prepare(&mut self, inner: &Inner, conn: &mut Conn) -> Result<()> {
        let asked = read(inner, conn, "").await?;
        let jobs: Vec<NewJob> = asked.into_iter().filter_map(|(_, job)| job.ok()).collect();
        make_lanes(inner, conn, &jobs).await
    }

    async fn run(&mut self, work: &mut Work<'_>) -> Result<bool> {
        let inner = Arc::clone(work.inner());
        let asked = read(&inner, &mut *work.conn, "FOR UPDATE SKIP LOCKED").await?;
        let more = asked.len() == MOST;
        let (mut made, mut jobs, mut refused, mut why) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (no, job) in asked {
            match job {
                Ok(job) => {
                    made.push(no);
                    jobs.push(job);
                }
                Err(reason) => {
                    refused.push(no);
                    why.push(reason);
                }
            }
        }
        work.submit_inside(&jobs).await?;
        inner.trip();
        ask::query(
            "WITH r AS (
                 UPDATE hodei.inbox i SET refused = u.why FROM unnest($2::int8[], $3::text[]) u (no, why)
                 WHERE i.no = u.no
             )
             DELETE FROM hodei.inbox WHERE no = ANY ($1)",
        )
        .bind(made)
        .bind(refused)
        .bind(why)
        .execute(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
        Ok(more)
    }
}

async fn read(inner: &Inner, conn: &mut PgConnection, lock: &'static str) -> Result<Vec<Asked>> {
    let sql = match lock {
        "" => {
            "SELECT no, tenant, queue, kind, args, priority, run_at, unique_key FROM hodei.inbox
             WHERE refused IS NULL ORDER BY no LIMIT $1"
        }
        _ => {
            "SELECT no, tenant, queue, kind, args, priority, run_at, unique_key FROM hodei.inbox
             WHERE refused IS NULL ORDER BY no LIMIT $1 FOR UPDATE SKIP LOCKED"
        }
    };
    inner.trip();
    let most = i64::try_from(MOST).unwrap_or(i64::MAX);
    let rows = ask::query(sql).bind(most).fetch_all(conn).await.map_err(failed(OP))?;
    rows.iter().map(asked).collect()
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
            if !there || !self.write(OP, Drain).await?.0 {
                return Ok(());
            }
        }
    }
}
