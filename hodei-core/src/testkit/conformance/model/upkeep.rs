//! The model's owners, terms and maintenance.

use std::time::Duration;

use super::reference::Model;
use crate::id::{JobId, Name, OwnerId, Tenant};
use crate::job::{Lease, State, rules};
use crate::store::{Beat, Fired, Retention, SubmitOptions, Submitted, Term};
use crate::time::Timestamp;

impl Model {
    pub(super) fn alive(&self, lease: &Lease) -> bool {
        let row = self.owners.get(&lease.owner);
        row.is_some_and(|(incarnation, end)| *incarnation == lease.incarnation && *end > self.now)
    }

    pub(super) fn leads(&self, term: &Term) -> bool {
        self.terms.get(&term.duty).is_some_and(|(last, end)| last == term && *end > self.now)
    }

    /// Takes over the lease that the store has given, unless it is not higher than the last.
    pub(super) fn register(&mut self, owner: &OwnerId, ttl: Duration, given: &Lease) -> bool {
        let end = self.now.saturating_add(ttl);
        let last = self.owners.insert(owner.clone(), (given.incarnation, end));
        given.owner == *owner && last.is_none_or(|(incarnation, _)| incarnation < given.incarnation)
    }

    pub(super) fn beat(&mut self, owners: &[Lease], ttl: Duration) -> Vec<Beat> {
        let beat = |lease: &Lease| {
            if !self.alive(lease) {
                return Beat::default();
            }
            self.owners.insert(lease.owner.clone(), (lease.incarnation, self.now.saturating_add(ttl)));
            let held = self.jobs.values().filter(|job| job.lease.as_ref() == Some(lease));
            let asked = held.filter(|job| job.cancel_requested).map(|job| (job.id, job.epoch));
            Beat { alive: true, cancel: asked.collect() }
        };
        owners.iter().map(beat).collect()
    }

    pub(super) fn retire(&mut self, lease: &Lease) {
        let now = self.now;
        if let Some((incarnation, end)) = self.owners.get_mut(&lease.owner)
            && *incarnation == lease.incarnation
        {
            *end = now.min(*end);
        }
        let of = |holder: &Lease| holder.owner == lease.owner && holder.incarnation <= lease.incarnation;
        for (_, end) in self.terms.values_mut().filter(|(term, _)| of(&term.holder)) {
            *end = now.min(*end);
        }
    }

    /// Says whether a duty is free, and takes over the term that the store has given.
    pub(super) fn take_term(
        &mut self,
        duty: &Name,
        holder: &Lease,
        ttl: Duration,
        given: Option<&Term>,
    ) -> bool {
        let last = self.terms.get(duty);
        let free = last.is_none_or(|(_, end)| *end <= self.now);
        let Some(term) = given else { return !free };
        let rises = last.is_none_or(|(last, _)| last.number < term.number);
        self.terms.insert(duty.clone(), (term.clone(), self.now.saturating_add(ttl)));
        free && rises && term.duty == *duty && term.holder == *holder
    }

    pub(super) fn keep_term(&mut self, term: &Term, ttl: Duration) -> bool {
        let leads = self.leads(term);
        if leads {
            self.terms.insert(term.duty.clone(), (term.clone(), self.now.saturating_add(ttl)));
        }
        leads
    }

    /// Ends every life and every term, as the opening of an exclusive store does.
    pub(super) fn end_all(&mut self) {
        let now = self.now;
        self.owners.values_mut().for_each(|(_, end)| *end = now.min(*end));
        self.terms.values_mut().for_each(|(_, end)| *end = now.min(*end));
    }

    /// Reaps jobs in the order in which the store did, and says whether that was right and left none.
    pub(super) fn reap(&mut self, term: &Term, lost_max: u16, reaped: &[JobId]) -> bool {
        if !self.leads(term) {
            return reaped.is_empty();
        }
        let now = self.now;
        for id in reaped {
            if self.is_lost(*id) {
                self.shift(*id, |job| ((), rules::lose(job, lost_max, now)));
            } else if self.is_late(*id) {
                self.shift(*id, |job| ((), rules::expire(job, now)));
            } else {
                return false;
            }
        }
        !self.jobs.keys().any(|id| self.is_lost(*id) || self.is_late(*id))
    }

    fn is_lost(&self, id: JobId) -> bool {
        let lease = self.jobs.get(&id).and_then(|job| job.lease.as_ref());
        lease.is_some_and(|lease| !self.alive(lease))
    }

    fn is_late(&self, id: JobId) -> bool {
        let pending = self.jobs.get(&id).filter(|job| job.state == State::Pending);
        pending.and_then(|job| job.deadline).is_some_and(|deadline| deadline <= self.now)
    }

    pub(super) fn fire(
        &mut self,
        term: &Term,
        tenant: &Tenant,
        name: &Name,
        at: Timestamp,
        given: Fired,
    ) -> Fired {
        let key = (tenant.clone(), name.clone());
        if !self.leads(term) {
            return Fired::TermLost;
        }
        let Some(schedule) = self.schedules.get_mut(&key) else { return Fired::NotFound };
        if schedule.last_fired.is_some_and(|last| last >= at) {
            return Fired::Already;
        }
        schedule.last_fired = Some(at);
        let new = schedule.job(at);
        let new = if let Fired::New(id) = given { new.id(id) } else { new };
        match self.submit(&[new], SubmitOptions::each()).first() {
            Some(Submitted::New(id)) => Fired::New(*id),
            _ => Fired::Already,
        }
    }

    /// Removes what is no longer kept, and says how many jobs that were.
    pub(super) fn prune(&mut self, term: &Term, retention: Retention) -> u64 {
        if !self.leads(term) {
            return 0;
        }
        let keep = retention.jobs.max(Retention::KEYS_MIN);
        let open = |id: &JobId| self.jobs.get(id).is_some_and(|job| !job.state.is_terminal());
        let parent_of_open =
            |id: JobId| self.edges.keys().any(|(parent, child)| *parent == id && open(child));
        let old = self.jobs.values().filter(|job| job.state.is_terminal());
        let old = old.filter(|job| job.moved_at.saturating_add(keep) <= self.now);
        let goes = |id: &JobId| !parent_of_open(*id) && self.had_turn(*id);
        let gone: Vec<JobId> = old.map(|job| job.id).filter(goes).collect();
        for id in &gone {
            self.jobs.remove(id);
            self.last.retain(|_, last| last != id);
            self.edges.retain(|(parent, child), _| parent != id && child != id);
        }
        gone.len() as u64
    }
}
