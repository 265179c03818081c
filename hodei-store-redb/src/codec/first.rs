//! The rows of a job as schema 1 had them.

use std::sync::Arc;

use bincode::BorrowDecode;
use hodei_core::job::{Epoch, Fingerprint, Job, Lease, Parent};
use hodei_core::{JobId, OwnerId, PipelineId, Result};

use super::envelope::{decode, decode_part};
use super::job::Head;
use super::row::{Id, SpecRow};
use super::spec::spec;
use super::value::{cause, name, requires_of, state, tenant, time};

#[derive(BorrowDecode)]
struct FirstHead<'a> {
    tenant: &'a str,
    _name: &'a str,
    _queue: &'a str,
    _limit_keys: &'a str,
    _class: u64,
    _priority: u8,
    pipeline: Option<Id>,
    created_at: i64,
    deadline: Option<i64>,
    state: u8,
    cause: u8,
    cancel_requested: bool,
    version: u32,
    attempt: u32,
    waits_for: u32,
    lost_count: u16,
    generation: u16,
    epoch: u64,
    eligible_at: i64,
    moved_at: i64,
    started_at: Option<i64>,
    lease: Option<(&'a str, u64)>,
    has_children: bool,
    has_end: bool,
}

#[derive(BorrowDecode)]
struct FirstFixed<'a> {
    fingerprint: Id,
    unique: Option<&'a str>,
    parents: Vec<(Id, u8)>,
    _spec_fingerprint: Id,
    spec: &'a [u8],
}

/// Reads a job of schema 1 from its two rows, without how it ended.
pub(crate) fn first_job(id: JobId, fixed: &[u8], head: &[u8]) -> Result<Head> {
    let (fixed, row): (FirstFixed<'_>, FirstHead<'_>) = (decode(fixed)?, decode(head)?);
    let spec = Arc::new(spec(decode_part::<SpecRow<'_>>(fixed.spec)?)?);
    let parent = |(id, requires)| Ok(Parent { id: JobId::from_bytes(id), requires: requires_of(requires)? });
    let parents = fixed.parents.into_iter().map(parent).collect::<Result<Arc<[Parent]>>>()?;
    let lease = match row.lease {
        Some((owner, incarnation)) => Some(Lease { owner: OwnerId::from(name(owner)?), incarnation }),
        None => None,
    };
    let job = Job {
        id,
        tenant: tenant(row.tenant)?,
        spec,
        pipeline: row.pipeline.map(PipelineId::from_bytes),
        parents,
        unique: fixed.unique.map(Arc::from),
        fingerprint: Fingerprint::from_bytes(fixed.fingerprint),
        created_at: time(row.created_at),
        deadline: row.deadline.map(time),
        state: state(row.state)?,
        cause: cause(row.cause)?,
        cancel_requested: row.cancel_requested,
        version: row.version,
        attempt: row.attempt,
        waits_for: row.waits_for,
        lost_count: row.lost_count,
        generation: row.generation,
        epoch: Epoch::from_number(row.epoch),
        eligible_at: time(row.eligible_at),
        moved_at: time(row.moved_at),
        started_at: row.started_at.map(time),
        lease,
        settled: None,
    };
    let mut head = Head::of(job, 0);
    (head.has_children, head.has_end) = (row.has_children, row.has_end);
    Ok(head)
}
