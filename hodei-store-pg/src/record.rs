//! Records out of rows.

use std::collections::HashMap;
use std::sync::Arc;

use hodei_core::job::{Cause, Epoch, Fingerprint, Job, Lease, Outcome, Output, Settled, State};
use hodei_core::{JobId, PipelineId, Result, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use crate::ask;
use crate::codec::{Body, SpecColumns, body_of, damaged, end_bytes, end_of, name_of, priority};
use crate::error::failed;
use crate::names::{LaneRow, Names, column};

/// The columns of a place and of the job that is there, in the order that [`record`] reads them; the place is `p`, the
/// job `j`.
macro_rules! record_columns {
    () => {
        "p.id, p.state, p.delayed, p.lane, p.rank, p.holder, p.version, p.epoch, p.attempt, p.waits_for, p.lost, \
         p.generation, p.cause, p.cancel, p.eligible_at, p.deadline, p.moved_at, p.started_at, p.settled, \
         j.fingerprint, j.created_at, j.pipeline, j.name, j.body"
    };
}
pub(crate) use record_columns;

/// A job, its lane, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) job: Job,
    pub(crate) lane: Arc<LaneRow>,
    /// Whether it waits for its time.
    pub(crate) delayed: bool,
    /// Who holds it.
    pub(crate) holder: Option<i32>,
}

/// The bytes of an id, as the database has them.
pub(crate) fn uuid_of(id: JobId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// The id of such bytes.
pub(crate) fn id_of(uuid: Uuid) -> JobId {
    JobId::from_bytes(*uuid.as_bytes())
}

pub(crate) fn uuids(ids: &[JobId]) -> Vec<Uuid> {
    ids.iter().copied().map(uuid_of).collect()
}

/// Reads records by id: of jobs that exist, in no order. The names that they need are read if they are not known.
pub(crate) async fn records(names: &Names, conn: &mut PgConnection, rows: &[PgRow]) -> Result<Vec<Record>> {
    let mut lanes: Vec<i32> = Vec::new();
    let mut holders: Vec<i32> = Vec::new();
    for row in rows {
        lanes.push(column(row, 3)?);
        holders.extend(column::<Option<i32>>(row, 5)?);
    }
    let lanes = names.load_lanes(conn, &distinct(lanes)).await?;
    let owners = names.load_owners(conn, &distinct(holders)).await?;
    rows.iter().map(|row| record(&lanes, &owners, row)).collect()
}

/// Leaves each number once.
pub(crate) fn distinct(mut numbers: Vec<i32>) -> Vec<i32> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn record(lanes: &HashMap<i32, Arc<LaneRow>>, owners: &HashMap<i32, Lease>, row: &PgRow) -> Result<Record> {
    let lane = lanes.get(&column(row, 3)?).cloned().ok_or_else(|| damaged("a job without a lane"))?;
    let holder: Option<i32> = column(row, 5)?;
    let lease: Option<Lease> = match holder {
        Some(no) => Some(owners.get(&no).cloned().ok_or_else(|| damaged("a lease without an owner"))?),
        None => None,
    };
    let state = state_of(column(row, 1)?)?;
    let moved_at = Timestamp::from_micros(column(row, 16)?);
    let body = body(&lane, column(row, 4)?, column::<&str>(row, 22)?, column::<&[u8]>(row, 23)?)?;
    let pipeline = column::<Option<Uuid>>(row, 21)?.map(|id| PipelineId::from_bytes(*id.as_bytes()));
    let fingerprint = fingerprint_of(column(row, 19)?, &lane, pipeline, &body);
    let job = Job {
        id: id_of(column(row, 0)?),
        tenant: lane.lane.tenant.clone(),
        spec: body.spec,
        pipeline,
        parents: body.parents,
        unique: body.unique,
        fingerprint,
        created_at: Timestamp::from_micros(column(row, 20)?),
        deadline: column::<Option<i64>>(row, 15)?.map(Timestamp::from_micros),
        state,
        cause: cause_of(column(row, 12)?)?,
        cancel_requested: column(row, 13)?,
        version: column::<i32>(row, 6)?.cast_unsigned(),
        attempt: column::<i32>(row, 8)?.cast_unsigned(),
        waits_for: column::<i32>(row, 9)?.cast_unsigned(),
        lost_count: column::<i16>(row, 10)?.cast_unsigned(),
        generation: column::<i16>(row, 11)?.cast_unsigned(),
        epoch: Epoch::from_number(column::<i64>(row, 7)?.cast_unsigned()),
        eligible_at: Timestamp::from_micros(column(row, 14)?),
        moved_at,
        started_at: column::<Option<i64>>(row, 17)?.map(Timestamp::from_micros),
        lease,
        settled: settled_of(state, moved_at, column::<Option<&[u8]>>(row, 18)?)?.map(Arc::new),
    };
    Ok(Record { job, lane, delayed: column(row, 2)?, holder })
}

/// Reads what a job was born with.
pub(crate) fn body(lane: &LaneRow, rank: i16, name: &str, bytes: &[u8]) -> Result<Body> {
    let level = u8::try_from(63 - rank).map_err(|_| damaged("a bad rank"))?;
    let columns = SpecColumns {
        name: name_of(name)?,
        queue: lane.lane.queue.clone(),
        priority: priority(level)?,
        class: lane.lane.class,
    };
    body_of(bytes, columns)
}

/// The fingerprint of a job: what was written down, and else what its row says.
pub(crate) fn fingerprint_of(
    written: Option<Uuid>,
    lane: &LaneRow,
    pipeline: Option<PipelineId>,
    body: &Body,
) -> Fingerprint {
    match written {
        Some(uuid) => Fingerprint::from_bytes(*uuid.as_bytes()),
        None => {
            let Body { spec, parents, unique } = body;
            Fingerprint::of_untimed(spec, &lane.lane.tenant, unique.as_deref(), pipeline, parents)
        }
    }
}

/// Reads the fingerprints of stored jobs, each with the number of its tenant.
pub(crate) async fn fingerprints(
    names: &Names,
    conn: &mut PgConnection,
    ids: &[JobId],
) -> Result<HashMap<JobId, (Fingerprint, i32)>> {
    let rows = ask::query(
        "SELECT j.id, j.lane, j.rank, j.fingerprint, j.pipeline, j.name, j.body
         FROM unnest($1::uuid[]) u (id) JOIN hodei.job j ON j.id = u.id",
    )
    .bind(uuids(ids))
    .fetch_all(&mut *conn)
    .await
    .map_err(failed("store.fingerprints"))?;
    let nos = rows.iter().map(|row| column(row, 1)).collect::<Result<_>>()?;
    let lanes = names.load_lanes(conn, &distinct(nos)).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let lane = lanes.get(&column(row, 1)?).ok_or_else(|| damaged("a job without a lane"))?;
        let pipeline = column::<Option<Uuid>>(row, 4)?.map(|id| PipelineId::from_bytes(*id.as_bytes()));
        let body = body(lane, column(row, 2)?, column::<&str>(row, 5)?, column::<&[u8]>(row, 6)?)?;
        let fingerprint = fingerprint_of(column(row, 3)?, lane, pipeline, &body);
        found.insert(id_of(column(row, 0)?), (fingerprint, lane.tenant_no));
    }
    Ok(found)
}

/// The state of a number.
pub(crate) fn state_of(number: i16) -> Result<State> {
    u8::try_from(number).ok().and_then(State::from_number).ok_or_else(|| damaged("a bad state"))
}

/// The cause of a number.
pub(crate) fn cause_of(number: i16) -> Result<Cause> {
    u8::try_from(number).ok().and_then(Cause::from_number).ok_or_else(|| damaged("a bad cause"))
}

/// Reads how the last run ended. What succeeded or was cancelled without leaving anything has no bytes.
pub(crate) fn settled_of(state: State, moved_at: Timestamp, bytes: Option<&[u8]>) -> Result<Option<Settled>> {
    let plain = |outcome| Settled { at: moved_at, outcome, output: Output::none(), manifest: None };
    match (bytes, state) {
        (Some(bytes), _) => end_of(bytes, moved_at).map(Some),
        (None, State::Succeeded) => Ok(Some(plain(Outcome::Succeeded))),
        (None, State::Cancelled) => Ok(Some(plain(Outcome::Cancelled))),
        (None, _) => Ok(None),
    }
}

/// Writes how the last run of a job ended.
pub(crate) fn settled_bytes(job: &Job) -> Option<Vec<u8>> {
    let settled = job.settled.as_deref()?;
    let same = job.state.is_terminal() && settled.at == job.moved_at;
    let bare = settled.output == Output::none() && settled.manifest.is_none();
    let told = matches!(
        (&settled.outcome, job.state),
        (Outcome::Succeeded, State::Succeeded) | (Outcome::Cancelled, State::Cancelled)
    );
    if same && bare && told {
        return None;
    }
    let at = (!same).then_some(settled.at);
    Some(end_bytes(&settled.outcome, &settled.output, settled.manifest.as_deref(), at))
}

/// Brings records into the order of ids.
pub(crate) fn in_order(records: Vec<Record>, ids: &[JobId]) -> Vec<Option<Record>> {
    let mut found: HashMap<JobId, Record> =
        records.into_iter().map(|record| (record.job.id, record)).collect();
    let mut again: HashMap<JobId, Record> = HashMap::new();
    ids.iter()
        .map(|id| {
            let record = found.remove(id).or_else(|| again.get(id).cloned())?;
            again.insert(*id, record.clone());
            Some(record)
        })
        .collect()
}
