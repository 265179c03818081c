//! Submitting.

use std::collections::HashMap;
use std::sync::Arc;

use hodei_core::job::{Fingerprint, JobSpec, NewJob, Parent, State, rules};
use hodei_core::map::JobMap;
use hodei_core::store::{Change, Committed, Refusal, SubmitOptions, Submitted};
use hodei_core::{Error, ErrorKind, JobId, Result, Tenant};

use super::work::Work;
use crate::codec::{self, Head};
use crate::key;
use crate::memory::{Index, Standing};
use crate::rows::Rows;
use crate::table::Tab;

/// What a batch has taken so far.
#[derive(Default)]
struct Taken<'j> {
    /// No job that was stored before has a higher id.
    highest: Option<JobId>,
    ids: JobMap<&'j NewJob>,
    keys: HashMap<(&'j Tenant, &'j str), JobId>,
    open: HashMap<&'j Tenant, u64>,
}

/// How many jobs there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Kept in the store.
    pub(crate) jobs: u64,
    /// Unsettled of one tenant.
    pub(crate) tenant_open: u64,
}

impl Room {
    /// For what a run spawns and what a schedule fires: no end of a run is lost for want of room.
    pub(crate) const UNBOUNDED: Self = Self { jobs: u64::MAX, tenant_open: u64::MAX };
}

/// Stores jobs, as far as there is room.
pub(crate) fn submit(
    work: &mut Work<'_, '_>,
    jobs: &[NewJob],
    options: SubmitOptions,
    room: Room,
) -> Result<Committed<Submitted>> {
    // An id of another slot than its tenant's is refused, wherever that slot is.
    let valid = jobs.iter().filter(|job| job.id.slot() == job.tenant.slot());
    work.slots.writable("store.submit", valid.map(|job| job.id.slot()))?;
    if let Some(large) = jobs.iter().find(|job| !codec::fits(job)) {
        // Before anything is written: the others of the group are not held up by it.
        return Err(Error::new(ErrorKind::LimitExceeded, "store.submit").with("job", large.id));
    }
    let mut taken = Taken { highest: work.highest(), ..Taken::default() };
    taken.ids.reserve(jobs.len());
    let mut replies = Vec::with_capacity(jobs.len());
    for job in jobs {
        let reply = answer(work, job, &taken, room)?;
        if let Submitted::New(id) = reply {
            taken.ids.insert(id, job);
            if let Some(key) = &job.unique {
                taken.keys.insert((&job.tenant, key), id);
            }
            *taken.open.entry(&job.tenant).or_default() += 1;
        }
        replies.push(reply);
    }
    let refused = |reply: &Submitted| matches!(reply, Submitted::Conflict(_) | Submitted::Refused(_));
    if options.atomic && replies.iter().any(refused) {
        for reply in replies.iter_mut().filter(|reply| matches!(reply, Submitted::New(_))) {
            *reply = Submitted::Refused(Refusal::Together);
        }
        return Ok(Committed { replies, changes: Vec::new() });
    }
    hold_to_limit(work, taken.ids.len(), room.jobs)?;
    let mut changes = Vec::with_capacity(jobs.len());
    let mut encoded = Encoded::default();
    work.expect(taken.ids.len());
    work.delta.opened.reserve(taken.ids.len());
    for (job, reply) in jobs.iter().zip(&replies) {
        if let Submitted::New(_) = reply {
            admit(work, job.clone(), &mut encoded, &mut changes)?;
        }
    }
    Ok(Committed { replies, changes })
}

fn hold_to_limit(work: &Work<'_, '_>, new: usize, max: u64) -> Result<()> {
    if max == u64::MAX || new == 0 {
        return Ok(());
    }
    let pending: i64 = work.delta.counts.values().flatten().sum();
    let stored = work.look(Index::total).saturating_add_signed(pending);
    if stored.saturating_add(new as u64) > max {
        return Err(Error::new(ErrorKind::Full, "store.submit").with("max_jobs", max));
    }
    Ok(())
}

fn answer(work: &mut Work<'_, '_>, job: &NewJob, taken: &Taken<'_>, room: Room) -> Result<Submitted> {
    if job.check().is_err() {
        return Ok(Submitted::Refused(Refusal::Invalid));
    }
    if let Some(stored) = fingerprint_of(work, job.id, taken)? {
        return Ok(compare(job, job.id, stored));
    }
    if let Some(text) = &job.unique {
        let other = match taken.keys.get(&(&job.tenant, &**text)) {
            Some(id) => Some(*id),
            None => work.read(Tab::Unique, &key::tenant_text(&job.tenant, text), codec::id)?,
        };
        if let Some(id) = other
            && let Some(stored) = fingerprint_of(work, id, taken)?
        {
            return Ok(compare(job, id, stored));
        }
    }
    for parent in job.parents.iter() {
        let known = match taken.ids.get(&parent.id) {
            Some(earlier) => earlier.tenant == job.tenant,
            None => work.current(parent.id)?.is_some_and(|head| head.job.tenant == job.tenant),
        };
        if !known {
            return Ok(Submitted::Refused(Refusal::UnknownParent(parent.id)));
        }
    }
    if room.tenant_open == u64::MAX {
        return Ok(Submitted::New(job.id));
    }
    let open = work.open_jobs(&job.tenant) + taken.open.get(&job.tenant).copied().unwrap_or(0);
    Ok(if open >= room.tenant_open { Submitted::Refused(Refusal::TooMany) } else { Submitted::New(job.id) })
}

fn fingerprint_of(work: &mut Work<'_, '_>, id: JobId, taken: &Taken<'_>) -> Result<Option<Fingerprint>> {
    match taken.ids.get(&id) {
        Some(earlier) => Ok(Some(earlier.fingerprint())),
        // Ids ascend: most are higher than all before.
        None if taken.highest < Some(id) => Ok(None),
        None => Ok(work.read(Tab::Born, id.as_bytes(), codec::fingerprint)?),
    }
}

fn compare(job: &NewJob, id: JobId, stored: Fingerprint) -> Submitted {
    if job.fingerprint() == stored { Submitted::Existing(id) } else { Submitted::Conflict(id) }
}

/// The bytes of the last spec: neighbours often share theirs.
#[derive(Default)]
struct Encoded {
    of: Option<Arc<JobSpec>>,
    bytes: Vec<u8>,
}

impl Encoded {
    fn of(&mut self, spec: &Arc<JobSpec>) -> Result<&[u8]> {
        if self.of.as_ref().is_none_or(|last| !Arc::ptr_eq(last, spec)) {
            self.of = None;
            self.bytes.clear();
            codec::work_part(spec, &mut self.bytes)?;
            self.of = Some(Arc::clone(spec));
        }
        Ok(&self.bytes)
    }
}

/// Admits a job that nothing speaks against, told already of those of its parents that have settled.
fn admit(
    work: &mut Work<'_, '_>,
    new: NewJob,
    encoded: &mut Encoded,
    changes: &mut Vec<Change>,
) -> Result<()> {
    let before = match sequence_key(&new.tenant, &new.spec) {
        Some(key) => {
            let before = work.read(Tab::Sequences, &key, codec::id)?;
            work.put(Tab::Sequences, &key, &codec::id_row(new.id)?)?;
            before
        }
        None => None,
    };
    let (job, change) = rules::admit_behind(new, before, work.now);
    let (id, parents) = (job.id, Arc::clone(&job.parents));
    let batch = work.open(id);
    let spec = encoded.of(&job.spec)?;
    work.append(Tab::Born, id.as_bytes(), |into| codec::born_row(&job, spec, batch, into))?;
    work.rise(id);
    if let Some(text) = &job.unique {
        work.put(Tab::Unique, &key::tenant_text(&job.tenant, text), &codec::id_row(id)?)?;
    }
    if let Some(pipeline) = job.pipeline {
        work.put(Tab::Pipelines, &key::pipeline(pipeline, job.created_at, id), &[])?;
    }
    let mut head = Head::of(job, batch);
    work.note(change, &head.queue, changes);
    for parent in parents.iter() {
        let ended = meet_parent(work, parent, id)?;
        let told =
            ended.and_then(|state| rules::parent_settled(&mut head.job, parent.requires, state, work.now));
        told.into_iter().for_each(|change| work.note(change, &head.queue, changes));
    }
    work.free_key(&head)?;
    work.keep(None, head);
    Ok(())
}

/// Where the last job of a sequence is, for a job that is in one.
pub(super) fn sequence_key(tenant: &Tenant, spec: &JobSpec) -> Option<Vec<u8>> {
    spec.sequence().map(|key| key::tenant_text(tenant, key))
}

/// Whether everybody who comes before a job in its sequence has ended and told it so.
pub(crate) fn had_turn(rows: &mut impl Rows, job: JobId) -> Result<bool> {
    let parents = rows.fixed(job)?.parents;
    for before in rules::before_in_turn(&parents) {
        // An edge that is gone was told before its parent went.
        if rows.read(Tab::Children, &key::child(before, job), codec::edge)?.is_some_and(|(_, told)| !told) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the edge from a parent to a new job, and returns the parent's state when it has settled.
fn meet_parent(work: &mut Work<'_, '_>, parent: &Parent, child: JobId) -> Result<Option<State>> {
    let mut ended = None;
    if let Some(mut head) = work.current(parent.id)? {
        ended = Some(head.job.state).filter(|state| state.is_terminal());
        if ended.is_some() && parent.requires.is_turn() && !had_turn(work, parent.id)? {
            ended = None;
        }
        if !head.has_children {
            let was = Standing::of(&head);
            head.has_children = true;
            work.keep(Some(was), head);
        }
    }
    let row = codec::edge_row(parent.requires, ended.is_some())?;
    work.put(Tab::Children, &key::child(parent.id, child), &row)?;
    Ok(ended)
}
