//! Submitting.

use std::collections::HashMap;
use std::sync::Arc;

use hodei_core::job::{Fingerprint, NewJob, Parent, State, rules};
use hodei_core::store::{Change, Committed, Refusal, SubmitOptions, Submitted};
use hodei_core::{Error, ErrorKind, JobId, Result, Tenant};

use super::work::{Was, Work};
use crate::codec::{self, Fixed, Head};
use crate::key;
use crate::rows::Rows;
use crate::sync::lock;
use crate::table::Tab;

/// What a batch has taken so far.
#[derive(Default)]
struct Taken<'j> {
    ids: HashMap<JobId, &'j NewJob>,
    keys: HashMap<(&'j Tenant, &'j str), JobId>,
}

/// Stores jobs.
pub(crate) fn submit(
    work: &mut Work<'_, '_>,
    jobs: &[NewJob],
    options: SubmitOptions,
) -> Result<Committed<Submitted>> {
    let mut taken = Taken::default();
    let mut replies = Vec::with_capacity(jobs.len());
    for job in jobs {
        let reply = answer(work, job, &taken)?;
        if let Submitted::New(id) = reply {
            taken.ids.insert(id, job);
            if let Some(key) = &job.unique {
                taken.keys.insert((&job.tenant, key), id);
            }
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
    hold_to_limit(work, taken.ids.len())?;
    let mut changes = Vec::with_capacity(jobs.len());
    for (job, reply) in jobs.iter().zip(&replies) {
        if let Submitted::New(_) = reply {
            admit(work, job.clone(), &mut changes)?;
        }
    }
    Ok(Committed { replies, changes })
}

fn hold_to_limit(work: &Work<'_, '_>, new: usize) -> Result<()> {
    let max = work.context.max_jobs;
    if max == u64::MAX {
        return Ok(());
    }
    let pending: i64 = work.delta.counts.values().flatten().sum();
    let stored = lock(work.context.index).total().saturating_add_signed(pending);
    if stored.saturating_add(new as u64) > max {
        return Err(Error::new(ErrorKind::Full, "store.submit").with("max_jobs", max));
    }
    Ok(())
}

fn answer(work: &mut Work<'_, '_>, job: &NewJob, taken: &Taken<'_>) -> Result<Submitted> {
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
            None => work.head(parent.id)?.is_some_and(|head| head.job.tenant == job.tenant),
        };
        if !known {
            return Ok(Submitted::Refused(Refusal::UnknownParent(parent.id)));
        }
    }
    Ok(Submitted::New(job.id))
}

fn fingerprint_of(work: &mut Work<'_, '_>, id: JobId, taken: &Taken<'_>) -> Result<Option<Fingerprint>> {
    match taken.ids.get(&id) {
        Some(earlier) => Ok(Some(earlier.fingerprint())),
        None => Ok(work.read(Tab::Specs, id.as_bytes(), codec::fingerprint)?),
    }
}

fn compare(job: &NewJob, id: JobId, stored: Fingerprint) -> Submitted {
    if job.fingerprint() == stored { Submitted::Existing(id) } else { Submitted::Conflict(id) }
}

/// Admits a job that nothing speaks against, told already of those of its parents that have settled.
fn admit(work: &mut Work<'_, '_>, new: NewJob, changes: &mut Vec<Change>) -> Result<()> {
    let (job, change) = rules::admit(new, work.now);
    let fixed = Fixed {
        spec: Arc::clone(&job.spec),
        parents: Arc::clone(&job.parents),
        unique: job.unique.clone(),
        fingerprint: job.fingerprint,
    };
    let id = job.id;
    work.put(Tab::Specs, id.as_bytes(), &codec::fixed_row(&job)?)?;
    if let Some(text) = &job.unique {
        work.put(Tab::Unique, &key::tenant_text(&job.tenant, text), &codec::id_row(id)?)?;
    }
    if let Some(pipeline) = job.pipeline {
        work.put(Tab::Pipelines, &key::pipeline(pipeline, job.created_at, id), &[])?;
    }
    work.note(change, changes);
    let mut head = Head::of(job);
    for parent in fixed.parents.iter() {
        let ended = meet_parent(work, parent, id)?;
        let told =
            ended.and_then(|state| rules::parent_settled(&mut head.job, parent.requires, state, work.now));
        told.into_iter().for_each(|change| work.note(change, changes));
    }
    work.keep(None, head);
    lock(work.context.recent).insert(id, fixed);
    Ok(())
}

/// Writes the edge from a parent to a new job, and returns the parent's state when it has settled.
fn meet_parent(work: &mut Work<'_, '_>, parent: &Parent, child: JobId) -> Result<Option<State>> {
    let mut ended = None;
    if let Some(mut head) = work.head(parent.id)? {
        ended = Some(head.job.state).filter(|state| state.is_terminal());
        if !head.has_children {
            let was = Was::of(&head);
            head.has_children = true;
            work.keep(Some(was), head);
        }
    }
    let row = codec::edge_row(parent.requires, ended.is_some())?;
    work.put(Tab::Children, &key::child(parent.id, child), &row)?;
    Ok(ended)
}
