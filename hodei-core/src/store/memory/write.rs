//! Submit, exchange, cancel, redrive.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::super::{
    Applied, CancelReply, Claimed, Exchange, Exchanged, Input, Move, Pick, Redriven, Refusal, Scope,
    SubmitOptions, Submitted, Transition,
};
use super::state::State;
use crate::id::JobId;
use crate::job::{Job, Lease, NewJob, Output, State as JobState, rules};
use crate::time::Timestamp;

impl State {
    /// Stores jobs, each for itself or all together.
    pub(super) fn submit(
        &mut self,
        jobs: Vec<NewJob>,
        options: SubmitOptions,
        now: Timestamp,
    ) -> Vec<Submitted> {
        if options.atomic {
            let refused = self.rehearse(&jobs);
            if refused.iter().any(|reply| reply.is_some_and(|reply| reply.stored().is_none())) {
                let together = Submitted::Refused(Refusal::Together);
                return refused.into_iter().map(|reply| reply.unwrap_or(together)).collect();
            }
        }
        jobs.into_iter().map(|job| self.submit_one(job, now)).collect()
    }

    /// Says what would become of a batch: nothing for the jobs that would be new.
    fn rehearse(&self, jobs: &[NewJob]) -> Vec<Option<Submitted>> {
        let mut batch: HashMap<JobId, &NewJob> = HashMap::new();
        let mut keys: HashMap<(&crate::id::Tenant, &str), &NewJob> = HashMap::new();
        let mut replies = Vec::with_capacity(jobs.len());
        for (n, job) in jobs.iter().enumerate() {
            let twin = batch.get(&job.id).or_else(|| keys.get(&(&job.tenant, job.unique.as_deref()?)));
            let reply = if let Some(twin) = twin {
                Some(told_apart(twin.id, twin.fingerprint() == job.fingerprint()))
            } else if self.jobs.len() + n >= self.max_jobs {
                Some(Submitted::Refused(Refusal::TooMany))
            } else {
                let known = |parent| batch.get(&parent).is_some_and(|known| known.tenant == job.tenant);
                self.verdict(job, known)
            };
            if reply.is_none() {
                batch.insert(job.id, job);
                if let Some(key) = job.unique.as_deref() {
                    keys.insert((&job.tenant, key), job);
                }
            }
            replies.push(reply);
        }
        replies
    }

    /// Says why a job would not be new, if so. `known` tells of parents earlier in the batch.
    fn verdict(&self, job: &NewJob, known: impl Fn(JobId) -> bool) -> Option<Submitted> {
        if job.check().is_err() {
            return Some(Submitted::Refused(Refusal::Invalid));
        }
        let by_key =
            job.unique.as_ref().and_then(|key| self.unique.get(&(job.tenant.clone(), Arc::clone(key))));
        if let Some(existing) = self.jobs.get(&job.id).or_else(|| self.jobs.get(by_key?)) {
            return Some(told_apart(existing.id, existing.fingerprint == job.fingerprint()));
        }
        let stored = |id| self.jobs.get(&id).is_some_and(|parent| parent.tenant == job.tenant);
        let missing = job.parents.iter().map(|parent| parent.id).find(|id| !stored(*id) && !known(*id));
        missing.map(|id| Submitted::Refused(Refusal::UnknownParent(id)))
    }

    pub(super) fn submit_one(&mut self, new: NewJob, now: Timestamp) -> Submitted {
        if let Some(reply) = self.verdict(&new, |_| false) {
            return reply;
        }
        if self.jobs.len() >= self.max_jobs {
            return Submitted::Refused(Refusal::TooMany);
        }
        let (job, change) = rules::admit(new, now);
        let (id, parents) = (job.id, Arc::clone(&job.parents));
        self.create(job, Some(change), now);
        for parent in parents.iter() {
            let settled = self.jobs.get(&parent.id).map(|job| job.state).filter(|state| state.is_terminal());
            if let Some(state) = settled {
                self.tell_child(id, parent.id, state, now);
            }
        }
        Submitted::New(id)
    }

    /// Tells the children of a job that has ended, and theirs; a list instead of recursion, however deep it goes.
    pub(super) fn cascade(&mut self, ended: JobId, now: Timestamp) {
        let mut ended = VecDeque::from([ended]);
        while let Some(parent) = ended.pop_front() {
            let Some(state) = self.jobs.get(&parent).map(|job| job.state).filter(|state| state.is_terminal())
            else {
                continue;
            };
            for child in self.children.get(&parent).cloned().unwrap_or_default() {
                if self.tell_child(child, parent, state, now) {
                    ended.push_back(child);
                }
            }
        }
    }

    /// Tells a child of one parent; says whether the child has ended by it.
    fn tell_child(&mut self, child: JobId, parent: JobId, state: JobState, now: Timestamp) -> bool {
        let ended = self.update(child, now, |job| {
            let change = rules::requirement(job, parent)
                .and_then(|requires| rules::parent_settled(job, requires, state, now));
            (change.is_some() && job.state.is_terminal(), change)
        });
        ended == Some(true)
    }

    /// Settles, then claims.
    pub(super) fn exchange(&mut self, exchange: &Exchange, now: Timestamp) -> Exchanged {
        let applied = exchange.transitions.iter().map(|transition| self.apply(transition, now)).collect();
        self.promote(now);
        let owner_lost = !self.alive(&exchange.owner, now);
        let mut claimed = Vec::new();
        if !owner_lost {
            for pick in &exchange.picks {
                self.claim(pick, &exchange.owner, now, &mut claimed);
            }
        }
        Exchanged {
            applied,
            claimed,
            owner_lost,
            next_due: self.due.first().map(|(at, _)| *at),
            changes: std::mem::take(&mut self.committing),
        }
    }

    fn apply(&mut self, transition: &Transition, now: Timestamp) -> Applied {
        let applied = self.update(transition.job, now, |job| {
            let (applied, change) = rules::apply(job, transition, now);
            ((applied, change.is_some() && job.state.is_terminal()), change)
        });
        let Some((applied, ended)) = applied else { return Applied::NotFound };
        if let (Applied::Done, Move::Finished(finish)) = (applied, &transition.step) {
            let tenant = self.jobs.get(&transition.job).map(|job| job.tenant.clone());
            for new in finish.spawn.iter().filter(|new| Some(&new.tenant) == tenant.as_ref()) {
                self.submit_one(new.clone(), now);
            }
        }
        if ended {
            self.cascade(transition.job, now);
        }
        applied
    }

    fn claim(&mut self, pick: &Pick, owner: &Lease, now: Timestamp, claimed: &mut Vec<Claimed>) {
        if self.paused(&pick.lane) {
            return;
        }
        let Some(lane) = self.ready.get(&pick.lane) else { return };
        let room = self.room(&pick.lane.tenant, &lane.request).min(u64::from(pick.n));
        let mut ids = Vec::new();
        for (level, _, id) in &lane.jobs {
            if level.0 < pick.floor || ids.len() as u64 >= room {
                break;
            }
            let Some(job) = self.jobs.get(id) else { continue };
            if job.deadline.is_some_and(|deadline| deadline <= now) {
                continue;
            }
            // A job that lost an owner is alone in its claim.
            if job.lost_count > 0 && !ids.is_empty() {
                break;
            }
            ids.push(*id);
            if job.lost_count > 0 {
                break;
            }
        }
        for id in ids {
            let job = self.update(id, now, |job| {
                let change = rules::claim(job, owner.clone(), now);
                (change.is_some().then(|| job.clone()), change)
            });
            if let Some(Some(job)) = job {
                claimed.push(self.with_inputs(job));
            }
        }
    }

    /// Adds what the direct parents gave back.
    pub(super) fn with_inputs(&self, job: Job) -> Claimed {
        let inputs = job.parents.iter().filter_map(|parent| {
            let parent = self.jobs.get(&parent.id)?;
            let output = parent.output().cloned().unwrap_or_else(Output::none);
            Some(Input { job: parent.id, name: parent.spec.name().clone(), output })
        });
        let inputs = inputs.collect();
        Claimed { job, inputs }
    }

    pub(super) fn cancel(&mut self, scope: &Scope, jobs: &[JobId], now: Timestamp) -> Vec<CancelReply> {
        jobs.iter().map(|id| self.cancel_one(scope, *id, now)).collect()
    }

    fn cancel_one(&mut self, scope: &Scope, id: JobId, now: Timestamp) -> CancelReply {
        if !self.jobs.get(&id).is_some_and(|job| scope.covers(&job.tenant)) {
            return CancelReply::NotFound;
        }
        let reply = self.update(id, now, |job| rules::cancel(job, now)).unwrap_or(CancelReply::NotFound);
        match reply {
            CancelReply::Cancelled => self.cascade(id, now),
            // The owner has to look at what it must stop.
            CancelReply::Requested => self.readied = true,
            CancelReply::AlreadyTerminal | CancelReply::NotFound => {}
        }
        reply
    }

    pub(super) fn redrive(&mut self, scope: &Scope, jobs: &[JobId], now: Timestamp) -> Vec<Redriven> {
        jobs.iter().map(|id| self.redrive_one(scope, *id, now)).collect()
    }

    fn redrive_one(&mut self, scope: &Scope, id: JobId, now: Timestamp) -> Redriven {
        if !self.jobs.get(&id).is_some_and(|job| scope.covers(&job.tenant)) {
            return Redriven::NotFound;
        }
        let reply = self.update(id, now, |job| match rules::redrive(job, now) {
            Some(change) => (Redriven::Done, Some(change)),
            None if job.state == JobState::Succeeded => (Redriven::Succeeded, None),
            None => (Redriven::NotTerminal, None),
        });
        reply.unwrap_or(Redriven::NotFound)
    }
}

/// The reply to a submission whose id or key is taken.
const fn told_apart(id: JobId, same: bool) -> Submitted {
    if same { Submitted::Existing(id) } else { Submitted::Conflict(id) }
}
