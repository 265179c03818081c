//! Storing jobs that wait for nobody.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hodei_core::job::{Cause, Epoch, Fingerprint, NewJob, State};
use hodei_core::map::JobSet;
use hodei_core::store::{Change, ChangeLog, SubmitOptions, Submitted};
use hodei_core::{Error, ErrorKind, JobId, Result, Timestamp};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::ask;
use crate::codec::{Bodies, changes_bytes};
use crate::error::{NO_LOCK, failed};
use crate::inner::Inner;
use crate::names::column;
use crate::pool::Conn;
use crate::record::{fingerprints, id_of, uuid_of};
use crate::tell::{At, Segment, Ticket};

pub(super) const OP: &str = "store.submit";

/// How often a group that was in another's way is stored again.
const ATTEMPTS: u32 = 12;

/// What became of jobs, each with the change that it made.
pub(super) type Stored = Vec<(Submitted, Option<Change>)>;

impl Inner {
    /// Says whether jobs can be stored in one statement.
    pub(crate) fn is_plain(&self, jobs: &[NewJob], options: SubmitOptions) -> bool {
        let Some(first) = jobs.first() else { return false };
        let (mut ids, mut keys) = (JobSet::default(), HashSet::new());
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
                    self.step_back(&error, attempt).await;
                }
                reply => return reply,
            }
        }
    }

    /// Makes the lanes of jobs of one tenant, and returns its number and theirs.
    pub(super) async fn make_lanes_of(&self, conn: &mut Conn, jobs: &[&NewJob]) -> Result<(i32, Vec<i32>)> {
        let most = Some(self.config.tenant_max_lanes);
        let (mut tenant, mut lanes) = (0, Vec::with_capacity(jobs.len()));
        let mut last: Option<(&NewJob, i32)> = None;
        let names = conn.names();
        for &job in jobs {
            // Those that follow each other are mostly of one lane.
            let no = match last.filter(|(before, _)| of_one_lane(before, job)) {
                Some((_, no)) => no,
                None => {
                    let lane = names.make_lane(conn, &job.tenant, &job.spec, most).await?;
                    tenant = lane.tenant_no;
                    lane.no
                }
            };
            lanes.push(no);
            last = Some((job, no));
        }
        Ok((tenant, lanes))
    }

    async fn store_once(self: &Arc<Self>, jobs: &[&NewJob]) -> Result<Stored> {
        let mut conn = self.pools.verbs.acquire(OP).await?;
        let (tenant, lanes) = self.in_time(OP, self.make_lanes_of(&mut conn, jobs)).await?;
        let uuid = |bytes: &[u8; 16]| Uuid::from_bytes(*bytes);
        let records = self.config.change_log != ChangeLog::Off;
        let births: Vec<Change> = jobs.iter().map(|job| born(job)).collect();
        let query = ask::query(
            "SELECT ord, id, fingerprint, at, pos, no
             FROM hodei.submit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind(self.node)
        .bind(records)
        .bind(tenant)
        .bind(jobs.iter().map(|job| uuid_of(job.id)).collect::<Vec<_>>())
        .bind(if_any(jobs.iter().map(|job| self.written_fingerprint(job))))
        .bind(once_if_alike(lanes))
        .bind(once_if_alike(jobs.iter().map(|job| rank(job)).collect()))
        .bind(if_any(jobs.iter().map(|job| job.pipeline.map(|id| uuid(id.as_bytes())))))
        .bind(once_if_alike(jobs.iter().map(|job| job.spec.name().as_str()).collect()))
        .bind(
            jobs.iter()
                .map(|job| self.bodies.bytes(job.unique.as_deref(), &[], &job.spec))
                .collect::<Vec<_>>(),
        )
        .bind(if_any(jobs.iter().map(|job| job.run_at.map(|at| at.as_micros()))))
        .bind(if_any(jobs.iter().map(|job| job.deadline.map(|at| at.as_micros()))))
        .bind(if_any(jobs.iter().map(|job| job.unique.as_deref())))
        .bind(records.then(|| changes_bytes(&births)));
        let ticket = self.teller.begin();
        let (mut conn, rows) = self.statement(OP, conn, query).await?;
        let unknown = |error: Error| Error::new(ErrorKind::Indeterminate, OP).source_error(error);
        let held = self.in_time(OP, self.held(&mut conn, &rows)).await.map_err(unknown)?;
        conn.clean().await.map_err(failed(OP))?;
        let Answer { now, place, replies, gone } = Answer::of(jobs, &rows, &held)?;
        let made = |n: usize, reply: &Submitted| matches!(reply, Submitted::New(_)) && !gone.contains(&n);
        let mut stored: Stored = (replies.into_iter().zip(births).enumerate())
            .map(|(n, (reply, birth))| (reply, made(n, &reply).then_some(Change { at: now, ..birth })))
            .collect();
        if let Some(at) = place {
            self.made(ticket, at, &stored).await;
        } else {
            drop(ticket);
        }
        for n in gone {
            let anew = Box::pin(self.store_plain(&jobs[n..=n])).await.map_err(unknown)?;
            stored.splice(n..=n, anew);
        }
        Ok(stored)
    }

    /// Tells of jobs that were stored.
    pub(super) async fn made(&self, ticket: Ticket, at: At, stored: &Stored) {
        let made = stored.iter().filter_map(|(_, change)| change.as_ref());
        self.wrote(2 * made.clone().count() as u64);
        let changes = if self.teller.is_heard() { made.cloned().collect() } else { Vec::new() };
        self.tell(ticket, &[Segment { at, changes }], true).await;
    }

    /// The fingerprint of a job, unless its row says it.
    pub(super) fn written_fingerprint(&self, job: &NewJob) -> Option<Uuid> {
        let said = self.bodies == Bodies::Lean && job.run_at.is_none() && job.deadline.is_none();
        (!said).then(|| Uuid::from_bytes(*job.fingerprint().as_bytes()))
    }

    /// Reads the fingerprints of those that were in the way, where they were not written down.
    async fn held(&self, conn: &mut Conn, rows: &[PgRow]) -> Result<HashMap<JobId, (Fingerprint, i32)>> {
        let mut ids = Vec::new();
        for row in rows {
            if column::<i64>(row, 0)? > 0 && column::<Option<Uuid>>(row, 2)?.is_none() {
                ids.push(id_of(column(row, 1)?));
            }
        }
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        self.trip();
        fingerprints(&conn.names(), conn, &ids).await
    }
}

/// What the server says of jobs that were to be stored.
struct Answer {
    now: Timestamp,
    /// Where in the log the new ones stand, if there are any.
    place: Option<(i64, i64)>,
    replies: Vec<Submitted>,
    /// Those whose holder was pruned since it was found: they are new by now.
    gone: Vec<usize>,
}

impl Answer {
    /// `held` are the fingerprints that were not written down.
    fn of(jobs: &[&NewJob], rows: &[PgRow], held: &HashMap<JobId, (Fingerprint, i32)>) -> Result<Self> {
        let replies = jobs.iter().map(|job| Submitted::New(job.id)).collect();
        let mut all = Self { now: Timestamp::from_micros(0), place: None, replies, gone: Vec::new() };
        for row in rows {
            let ord = usize::try_from(column::<i64>(row, 0)?).unwrap_or_default();
            let Some(n) = ord.checked_sub(1) else {
                all.now = Timestamp::from_micros(column(row, 3)?);
                all.place = column::<Option<i64>>(row, 4)?.zip(column::<Option<i64>>(row, 5)?);
                continue;
            };
            let id = id_of(column(row, 1)?);
            let written =
                column::<Option<Uuid>>(row, 2)?.map(|uuid| Fingerprint::from_bytes(*uuid.as_bytes()));
            let Some(found) = written.or_else(|| held.get(&id).map(|(fingerprint, _)| *fingerprint)) else {
                all.gone.push(n);
                continue;
            };
            let same = found == jobs[n].fingerprint();
            all.replies[n] = if same { Submitted::Existing(id) } else { Submitted::Conflict(id) };
        }
        Ok(all)
    }
}

fn of_one_lane(one: &NewJob, other: &NewJob) -> bool {
    one.tenant == other.tenant
        && one.spec.queue() == other.spec.queue()
        && one.spec.class() == other.spec.class()
}

/// The rank of a job: the most urgent first.
pub(super) fn rank(job: &NewJob) -> i16 {
    63 - i16::from(job.spec.priority().level())
}

/// A column, of which one is enough where all jobs have the same in it.
fn once_if_alike<T: PartialEq>(mut column: Vec<T>) -> Vec<T> {
    if column.iter().all(|value| Some(value) == column.first()) {
        column.truncate(1);
    }
    column
}

/// A column, unless it has nothing in it.
fn if_any<T>(column: impl Iterator<Item = Option<T>>) -> Option<Vec<Option<T>>> {
    let column: Vec<Option<T>> = column.collect();
    column.iter().any(Option::is_some).then_some(column)
}

/// The change of a job that is stored, but for when.
pub(super) fn born(job: &NewJob) -> Change {
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
        at: Timestamp::from_micros(0),
    }
}
