//! What the server says of claimed jobs.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use hodei_core::job::{Cause, Epoch, Fingerprint, Job, Lease, Output, State};
use hodei_core::store::{Change, Claimed, Input};
use hodei_core::{JobId, PipelineId, Result, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use crate::ask;
use crate::codec::{damaged, name_of};
use crate::error::failed;
use crate::names::{LaneRow, column};
use crate::record::{body, id_of, settled_of, state_of, uuids};
use crate::tell::Segment;

/// The columns of a row of `hodei.exchanged`, by their place in it.
pub(crate) mod at {
    pub(crate) const WHAT: usize = 0;
    pub(crate) const ORD: usize = 1;
    pub(crate) const ID: usize = 2;
    pub(crate) const LANE: usize = 3;
    pub(crate) const RANK: usize = 4;
    pub(crate) const STATE: usize = 5;
    pub(crate) const VERSION: usize = 6;
    pub(crate) const EPOCH: usize = 7;
    pub(crate) const ATTEMPT: usize = 8;
    pub(crate) const LOST: usize = 9;
    pub(crate) const GENERATION: usize = 10;
    pub(crate) const ELIGIBLE_AT: usize = 11;
    pub(crate) const DEADLINE: usize = 12;
    pub(crate) const MOVED_AT: usize = 13;
    pub(crate) const STARTED_AT: usize = 14;
    pub(crate) const CREATED_AT: usize = 15;
    pub(crate) const PIPELINE: usize = 16;
    pub(crate) const SETTLED: usize = 17;
    pub(crate) const NAME: usize = 18;
    pub(crate) const FINGERPRINT: usize = 19;
    pub(crate) const BODY: usize = 20;
    pub(crate) const POS: usize = 21;
    pub(crate) const NO: usize = 22;
}

/// Reads the jobs that were claimed, and what their claims changed. Their lanes are among those given.
pub(crate) fn claimed(
    lanes: &HashMap<i32, Arc<LaneRow>>,
    rows: &[PgRow],
    owner: &Lease,
) -> Result<(Vec<Arc<Job>>, Vec<Segment>)> {
    let mut jobs = Vec::with_capacity(rows.len());
    let mut segments: Vec<Segment> = Vec::new();
    for row in rows {
        let job = claimed_one(lanes, row, owner)?;
        let place = (column(row, at::POS)?, column(row, at::NO)?);
        let change = Change::of(&job, Some(State::Pending));
        match segments.last_mut() {
            Some(last) if last.at == place => last.changes.push(change),
            _ => segments.push(Segment { at: place, changes: vec![change] }),
        }
        jobs.push(Arc::new(job));
    }
    Ok((jobs, segments))
}

fn claimed_one(lanes: &HashMap<i32, Arc<LaneRow>>, row: &PgRow, owner: &Lease) -> Result<Job> {
    let lane = lanes.get(&column(row, at::LANE)?).ok_or_else(|| damaged("a job without a lane"))?;
    let state = state_of(column(row, at::STATE)?)?;
    let moved_at = Timestamp::from_micros(column(row, at::MOVED_AT)?);
    let (rank, name) = (column(row, at::RANK)?, column::<&str>(row, at::NAME)?);
    let body = body(lane, rank, name, column::<&[u8]>(row, at::BODY)?)?;
    let time = |n| Ok::<_, hodei_core::Error>(column::<Option<i64>>(row, n)?.map(Timestamp::from_micros));
    let settled = settled_of(state, moved_at, column::<Option<&[u8]>>(row, at::SETTLED)?)?;
    Ok(Job {
        id: id_of(column(row, at::ID)?),
        tenant: lane.lane.tenant.clone(),
        spec: body.spec,
        pipeline: pipeline_of(row)?,
        parents: body.parents,
        unique: body.unique,
        fingerprint: Fingerprint::from_bytes(*column::<Uuid>(row, at::FINGERPRINT)?.as_bytes()),
        created_at: Timestamp::from_micros(column(row, at::CREATED_AT)?),
        deadline: time(at::DEADLINE)?,
        state,
        cause: Cause::Claimed,
        cancel_requested: false,
        version: column::<i32>(row, at::VERSION)?.cast_unsigned(),
        attempt: column::<i32>(row, at::ATTEMPT)?.cast_unsigned(),
        waits_for: 0,
        lost_count: column::<i16>(row, at::LOST)?.cast_unsigned(),
        generation: column::<i16>(row, at::GENERATION)?.cast_unsigned(),
        epoch: Epoch::from_number(column::<i64>(row, at::EPOCH)?.cast_unsigned()),
        eligible_at: Timestamp::from_micros(column(row, at::ELIGIBLE_AT)?),
        moved_at,
        started_at: time(at::STARTED_AT)?,
        lease: Some(owner.clone()),
        settled: settled.map(Arc::new),
    })
}

/// The pipeline of a row of `hodei.exchanged`.
pub(crate) fn pipeline_of(row: &PgRow) -> Result<Option<PipelineId>> {
    Ok(column::<Option<Uuid>>(row, at::PIPELINE)?.map(|id| PipelineId::from_bytes(*id.as_bytes())))
}

/// The list of most jobs, shared by all of them.
static NO_INPUTS: LazyLock<Arc<[Input]>> = LazyLock::new(|| Arc::from([]));

/// Adds what the direct parents gave back.
pub(crate) async fn inputs_of(conn: &mut PgConnection, jobs: Vec<Arc<Job>>) -> Result<Vec<Claimed>> {
    let mut parents: Vec<JobId> = jobs.iter().flat_map(|job| job.parents.iter().map(|p| p.id)).collect();
    parents.sort_unstable();
    parents.dedup();
    let mut found: HashMap<JobId, Input> = HashMap::new();
    if !parents.is_empty() {
        let rows = ask::query(
            "SELECT j.id, j.name, d.state, d.settled FROM unnest($1::uuid[]) u (id) JOIN hodei.job j ON j.id = u.id
             LEFT JOIN hodei.done d ON d.id = j.id",
        )
        .bind(uuids(&parents))
        .fetch_all(conn)
        .await
        .map_err(failed("store.inputs"))?;
        for row in &rows {
            let job = id_of(column(row, 0)?);
            let succeeded = column::<Option<i16>>(row, 2)? == Some(State::Succeeded as i16);
            let bytes: Option<&[u8]> = column(row, 3)?;
            let settled = match bytes.filter(|_| succeeded) {
                Some(bytes) => settled_of(State::Succeeded, Timestamp::from_micros(0), Some(bytes))?,
                None => None,
            };
            let output = settled.map_or_else(Output::none, |settled| settled.output);
            found.insert(job, Input { job, name: name_of(column::<&str>(row, 1)?)?, output });
        }
    }
    let with_inputs = |job: Arc<Job>| {
        let inputs = if job.parents.is_empty() {
            Arc::clone(&NO_INPUTS)
        } else {
            job.parents.iter().filter_map(|parent| found.get(&parent.id).cloned()).collect()
        };
        Claimed { job, inputs }
    };
    Ok(jobs.into_iter().map(with_inputs).collect())
}
