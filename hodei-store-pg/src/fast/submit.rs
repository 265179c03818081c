//! Storing jobs that wait for nobody.

use std::collections::HashSet;
use std::sync::Arc;

use hodei_core::job::{Cause, Epoch, Fingerprint, NewJob, State};
use hodei_core::store::{Change, ChangeLog, SubmitOptions, Submitted};
use hodei_core::{ErrorKind, Result, Timestamp};
use uuid::Uuid;

use crate::ask;
use crate::codec::body_bytes;
use crate::error::{NO_LOCK, failed};
use crate::inner::Inner;
use crate::names::column;
use crate::record::{id_of, uuid_of};
use crate::tell::Segment;

const OP: &str = "store.submit";

/// How often a group that was in another's way is stored again.
const ATTEMPTS: u32 = 12;

/// What became of jobs, each with the change that it made.
pub(super) type Stored = Vec<(Submitted, Option<Change>)>;

impl Inner {
    /// Says whether jobs can be stored in one statement.
    pub(crate) fn is_plain(&self, jobs: &[NewJob], options: SubmitOptions) -> bool {
        let Some(first) = jobs.first() else { return false };
        let (mut ids, mut keys) = (HashSet::with_capacity(jobs.len()), HashSet::new());
        let config = &self.config;
        (!options.atomic || jobs.len() == 1)
            && config.max_jobs == u64::MAX
            && config.tenant_max_open == u64::MAX
            && jobs.iter().all(|job| {
                job.parents.is_empty()
                    && job.spec.sequence().is_none()
                    && job.tenant == first.tenant
                    && ids.insert(job.id)
                    && job.unique.as_deref().is_none_or(|key| keys.insert(key))
                    && job.check().is_ok()
            })
    }

    /// Stores jobs of one tenant.
    pub(super) async fn store_plain(self: &Arc<Self>, jobs: &[&NewJob]) -> Result<Stored> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.store_once(jobs).await {
                // Who holds the lock may do so for long: that is for the caller to see to.
                Err(error) if error.context("sqlstate") == Some(NO_LOCK) => return Err(error),
                Err(error) if error.kind() == ErrorKind::Locked && attempt < ATTEMPTS => {
                    tokio::time::sleep(self.pause(attempt)).await;
                }
                reply => return reply,
            }
        }
    }

    async fn store_once(self: &Arc<Self>, jobs: &[&NewJob]) -> Result<Stored> {
        let mut conn = self.pools.verbs.acquire(OP).await?;
        let (mut lanes, mut tenant) = (Vec::with_capacity(jobs.len()), 0);
        let made = async {
            for job in jobs {
                let most = Some(self.config.tenant_max_lanes);
                let lane = self.names.make_lane(&mut conn, &job.tenant, &job.spec, most).await?;
                tenant = lane.tenant_no;
                lanes.push(lane.no);
            }
            Ok(())
        };
        self.in_time(OP, made).await?;
        let uuid = |bytes: &[u8; 16]| Uuid::from_bytes(*bytes);
        let keyed = jobs.iter().any(|job| job.unique.is_some());
        let keys = keyed.then(|| jobs.iter().map(|job| job.unique.as_deref()).collect::<Vec<_>>());
        let fingerprints: Vec<Fingerprint> = jobs.iter().map(|job| job.fingerprint()).collect();
        let query = ask::query(
            "SELECT ord, id, fingerprint, at, pos, no
             FROM hodei.submit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(self.node)
        .bind(self.config.change_log != ChangeLog::Off)
        .bind(tenant)
        .bind(jobs.iter().map(|job| uuid_of(job.id)).collect::<Vec<_>>())
        .bind(fingerprints.iter().map(|fingerprint| uuid(fingerprint.as_bytes())).collect::<Vec<_>>())
        .bind(lanes)
        .bind(jobs.iter().map(|job| 63 - i16::from(job.spec.priority().level())).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.pipeline.map(|id| uuid(id.as_bytes()))).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.spec.name().as_str()).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| body_bytes(job.unique.as_deref(), &[], &job.spec)).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.run_at.map(|at| at.as_micros())).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.deadline.map(|at| at.as_micros())).collect::<Vec<_>>())
        .bind(keys);
        let ticket = self.teller.begin();
        let (conn, rows) = self.statement(OP, conn, query).await?;
        conn.clean().await.map_err(failed(OP))?;
        let mut replies: Vec<Submitted> = jobs.iter().map(|job| Submitted::New(job.id)).collect();
        let (mut now, mut place) = (Timestamp::from_micros(0), None);
        for row in &rows {
            let ord = usize::try_from(column::<i64>(row, 0)?).unwrap_or_default();
            let Some(n) = ord.checked_sub(1) else {
                now = Timestamp::from_micros(column(row, 3)?);
                place = column::<Option<i64>>(row, 4)?.zip(column::<Option<i64>>(row, 5)?);
                continue;
            };
            let id = id_of(column(row, 1)?);
            let same = column::<Uuid>(row, 2)?.as_bytes() == fingerprints[n].as_bytes();
            replies[n] = if same { Submitted::Existing(id) } else { Submitted::Conflict(id) };
        }
        let change =
            |job: &&NewJob, reply: &Submitted| matches!(reply, Submitted::New(_)).then(|| born(job, now));
        let stored: Stored =
            jobs.iter().zip(replies).map(|(job, reply)| (reply, change(job, &reply))).collect();
        let changes: Vec<Change> = stored.iter().filter_map(|(_, change)| change.clone()).collect();
        if let Some(at) = place {
            self.wrote(2 * changes.len() as u64);
            self.committed(ticket, vec![Segment { at, changes }], true).await;
        }
        Ok(stored)
    }
}

/// The change of a job that was stored.
fn born(job: &NewJob, now: Timestamp) -> Change {
    Change {
        job: job.id,
        tenant: job.tenant.clone(),
        queue: Some(job.spec.queue().clone()),
        pipeline: job.pipeline,
        version: 1,
        from: None,
        to: State::Pending,
        cause: Cause::Submitted,
        attempt: 0,
        epoch: Epoch::default(),
        at: now,
    }
}
