//! What the server says of claimed jobs.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use hodei_core::job::{Cause, Epoch, Job, Lease, Output, State};
use hodei_core::store::{Change, Claimed, Input};
use hodei_core::{JobId, PipelineId, Result, Timestamp};
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::exchange::Picks;
use crate::ask;
use crate::codec::{damaged, name_of};
use crate::error::failed;
use crate::names::{LaneRow, column};
use crate::record::{body, fingerprint_of, id_of, settled_of, uuids};
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
    pub(crate) const ORDS: usize = 23;
    pub(crate) const LANES: usize = 24;
}

/// What a row of `hodei.exchanged` is, by its first column.
pub(crate) mod what {
    /// A transition that was made.
    pub(crate) const MOVED: i16 = 1;
    /// A job that was claimed.
    pub(crate) const CLAIMED: i16 = 2;
    /// Where the changes stand of the claims that follow.
    pub(crate) const CLAIMS: i16 = 3;
    /// First runs that nobody told of before their end, and that succeeded.
    pub(crate) const SUCCEEDED: i16 = 4;
}

/// Reads the jobs that were claimed at a time, in the order of the picks and of their lanes, and what their claims changed.
pub(crate) fn claimed(
    picks: &Picks,
    rows: &[PgRow],
    owner: &Lease,
    now: Timestamp,
) -> Result<(Vec<Arc<Job>>, Vec<Segment>)> {
    let mut jobs: Vec<(usize, Arc<Job>)> = Vec::with_capacity(rows.len());
    let mut segments: Vec<Segment> = Vec::new();
    for batch in rows.chunk_by(|_, next| next.try_get(at::WHAT).is_ok_and(|what: i16| what == what::CLAIMED))
    {
        let Some((place, batch)) = batch.split_first() else { continue };
        let mut claims = Vec::with_capacity(batch.len());
        // Not before any of them was ready, though the clock may have been set back since.
        let mut moved_at = now;
        for row in batch {
            moved_at = moved_at.max(Timestamp::from_micros(column(row, at::ELIGIBLE_AT)?));
        }
        for row in batch {
            let (order, lane) = picks
                .rows
                .get(&column(row, at::LANE)?)
                .ok_or_else(|| damaged("a job of a lane that was not picked"))?;
            claims.push((*order, lane.no, Arc::new(claimed_one(lane, row, owner, moved_at)?)));
        }
        let in_line = |claim: &(usize, i32, Arc<Job>)| {
            let (order, _, job) = claim;
            (*order, Reverse(job.spec.priority()), job.eligible_at, job.id)
        };
        claims.sort_unstable_by_key(in_line);
        if let Some(shares) = shares(place)? {
            deal(&mut claims, shares, picks)?;
            claims.sort_by_key(|claim| claim.0);
        }
        let changes = claims.iter().map(|(_, _, job)| Change::of(job, Some(State::Pending))).collect();
        segments.push(Segment { at: (column(place, at::POS)?, column(place, at::NO)?), changes });
        jobs.extend(claims.into_iter().map(|(order, _, job)| (order, job)));
    }
    jobs.sort_by_key(|(order, _)| *order);
    Ok((jobs.into_iter().map(|(_, job)| job).collect(), segments))
}

/// What each pick got, by lane: the number of the pick, and of how many jobs. Nothing where every lane was picked once.
type Shares = HashMap<i32, Vec<(usize, i32)>>;

fn shares(place: &PgRow) -> Result<Option<Shares>> {
    let Some(ords) = column::<Option<Vec<i32>>>(place, at::ORDS)? else { return Ok(None) };
    let lanes: Vec<i32> = column::<Option<_>>(place, at::LANES)?.unwrap_or_default();
    let mut shares = Shares::new();
    for (ord, of) in ords.into_iter().zip(lanes.chunks_exact(2)) {
        shares.entry(of[0]).or_default().push((usize::try_from(ord).unwrap_or_default(), of[1]));
    }
    Ok(Some(shares))
}

/// Gives claims, which are in the order of their lanes, to the picks that made them: each has taken the first of the levels that it
/// asked for which those before it had left.
fn deal(claims: &mut [(usize, i32, Arc<Job>)], mut shares: Shares, picks: &Picks) -> Result<()> {
    for claims in claims.chunk_by_mut(|(_, a, _), (_, b, _)| a == b) {
        let mut shares = claims.first().and_then(|(_, lane, _)| shares.remove(lane)).unwrap_or_default();
        let mut left: Vec<_> = claims.iter_mut().collect();
        for (ord, jobs) in &mut shares {
            left.retain_mut(|(order, _, job)| {
                let takes = *jobs > 0 && picks.covers(*ord, job.spec.priority());
                if takes {
                    (*order, *jobs) = (*ord, *jobs - 1);
                }
                !takes
            });
        }
        // What has come while they were made may have gone to a later one.
        for (order, ..) in left {
            let share = shares.iter_mut().find(|(_, jobs)| *jobs > 0);
            let (ord, jobs) = share.ok_or_else(|| damaged("a claim of nobody"))?;
            (*order, *jobs) = (*ord, *jobs - 1);
        }
    }
    Ok(())
}

fn claimed_one(lane: &LaneRow, row: &PgRow, owner: &Lease, moved_at: Timestamp) -> Result<Job> {
    let state = State::Scheduled;
    let (rank, name) = (column(row, at::RANK)?, column::<&str>(row, at::NAME)?);
    let body = body(lane, rank, name, column::<&[u8]>(row, at::BODY)?)?;
    let pipeline = pipeline_of(row)?;
    let fingerprint = fingerprint_of(column(row, at::FINGERPRINT)?, lane, pipeline, &body);
    let time = |n| Ok::<_, hodei_core::Error>(column::<Option<i64>>(row, n)?.map(Timestamp::from_micros));
    let number = |n| Ok::<_, hodei_core::Error>(column::<Option<i16>>(row, n)?.unwrap_or(0).cast_unsigned());
    let settled = settled_of(state, moved_at, column::<Option<&[u8]>>(row, at::SETTLED)?)?;
    Ok(Job {
        id: id_of(column(row, at::ID)?),
        tenant: lane.lane.tenant.clone(),
        spec: body.spec,
        pipeline,
        parents: body.parents,
        unique: body.unique,
        fingerprint,
        created_at: Timestamp::from_micros(column(row, at::CREATED_AT)?),
        deadline: time(at::DEADLINE)?,
        state,
        cause: Cause::Claimed,
        cancel_requested: false,
        version: column::<Option<i32>>(row, at::VERSION)?.unwrap_or(2).cast_unsigned(),
        attempt: column::<Option<i32>>(row, at::ATTEMPT)?.unwrap_or(0).cast_unsigned(),
        waits_for: 0,
        lost_count: number(at::LOST)?,
        generation: number(at::GENERATION)?,
        epoch: Epoch::from_number(column::<Option<i64>>(row, at::EPOCH)?.unwrap_or(1).cast_unsigned()),
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
    let givers = |job: &Arc<Job>| -> Vec<JobId> {
        job.parents.iter().filter(|parent| parent.requires.hands_on()).map(|parent| parent.id).collect()
    };
    let mut parents: Vec<JobId> = jobs.iter().flat_map(givers).collect();
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
            givers(&job).iter().filter_map(|parent| found.get(parent).cloned()).collect()
        };
        Claimed { job, inputs }
    };
    Ok(jobs.into_iter().map(with_inputs).collect())
}
