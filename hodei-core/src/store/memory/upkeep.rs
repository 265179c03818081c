//! Owners, terms, and what a leader does: reap, fire, prune.

use std::time::Duration;

use super::super::{Beat, Change, Fired, Living, Pruned, Reaped, Retention, Submitted, Term};
use super::state::{OwnerRow, State, TermRow};
use crate::id::{JobId, Name, OwnerId, Tenant};
use crate::job::{Job, Lease, State as JobState, rules};
use crate::time::Timestamp;

/// When what was ended has ended: whatever a clock says.
const ENDED: Timestamp = Timestamp::from_micros(i64::MIN);

impl State {
    pub(super) fn register(&mut self, owner: &OwnerId, ttl: Duration, now: Timestamp) -> Lease {
        self.last_incarnation += 1;
        let incarnation = self.last_incarnation;
        let row = OwnerRow { incarnation, expires_at: now.saturating_add(ttl) };
        self.owners.insert(owner.clone(), row);
        Lease { owner: owner.clone(), incarnation }
    }

    pub(super) fn beat(&mut self, owners: &[Lease], ttl: Duration, now: Timestamp) -> Vec<Beat> {
        owners.iter().map(|lease| self.beat_one(lease, ttl, now)).collect()
    }

    fn beat_one(&mut self, lease: &Lease, ttl: Duration, now: Timestamp) -> Beat {
        if !self.alive(lease, now) {
            return Beat::default();
        }
        if let Some(row) = self.owners.get_mut(&lease.owner) {
            row.expires_at = now.saturating_add(ttl);
        }
        let held = self.leases_of(lease);
        let asked = held.iter().filter_map(|id| self.jobs.get(id)).filter(|job| job.cancel_requested);
        Beat { alive: true, cancel: asked.map(|job| (job.id, job.epoch)).collect() }
    }

    pub(super) fn retire(&mut self, lease: &Lease) {
        if let Some(row) = self.owners.get_mut(&lease.owner)
            && row.incarnation == lease.incarnation
        {
            row.expires_at = ENDED;
        }
        let of = |holder: &Lease| holder.owner == lease.owner && holder.incarnation <= lease.incarnation;
        for row in self.terms.values_mut().filter(|row| of(&row.term.holder)) {
            row.expires_at = ENDED;
        }
    }

    /// Who is alive, and what he leads.
    pub(super) fn owners(&self, now: Timestamp) -> Vec<Living> {
        let living = self.owners.iter().filter(|(_, row)| row.expires_at > now);
        let mut living: Vec<Living> = living
            .map(|(owner, row)| {
                let lease = Lease { owner: owner.clone(), incarnation: row.incarnation };
                let led = self.terms.values().filter(|row| row.expires_at > now && row.term.holder == lease);
                let mut duties: Vec<Name> = led.map(|row| row.term.duty.clone()).collect();
                duties.sort_unstable();
                Living { lease, until: row.expires_at, duties }
            })
            .collect();
        living.sort_unstable_by(|a, b| a.lease.owner.name().cmp(b.lease.owner.name()));
        living
    }

    /// Returns what an owner holds, by id.
    pub(super) fn leases_of(&self, lease: &Lease) -> Vec<JobId> {
        let mut held: Vec<JobId> = self.leases.get(lease).into_iter().flatten().copied().collect();
        held.sort_unstable();
        held
    }

    pub(super) fn take_term(
        &mut self,
        duty: &Name,
        holder: &Lease,
        ttl: Duration,
        now: Timestamp,
    ) -> Option<Term> {
        let last = self.terms.get(duty);
        if last.is_some_and(|row| row.expires_at > now) {
            return None;
        }
        let number = last.map_or(1, |row| row.term.number + 1);
        let term = Term { duty: duty.clone(), number, holder: holder.clone() };
        let row = TermRow { term: term.clone(), expires_at: now.saturating_add(ttl) };
        self.terms.insert(duty.clone(), row);
        Some(term)
    }

    pub(super) fn keep_term(&mut self, term: &Term, ttl: Duration, now: Timestamp) -> bool {
        if !self.leads(term, now) {
            return false;
        }
        if let Some(row) = self.terms.get_mut(&term.duty) {
            row.expires_at = now.saturating_add(ttl);
        }
        true
    }

    pub(super) fn reap(&mut self, term: &Term, lost_max: u16, limit: usize, now: Timestamp) -> Reaped {
        if !self.leads(term, now) {
            return Reaped { term_lost: true, ..Reaped::default() };
        }
        let dead = self.dead_holders(now).into_iter();
        let stays = |id: &JobId| self.slots.closed(|| id.slot());
        let lost = dead.flat_map(|lease| self.leases_of(&lease)).filter(|id| !stays(id));
        let mut lost: Vec<JobId> = lost.collect();
        let mut more = lost.len() > limit;
        lost.truncate(limit);
        let left = limit - lost.len();
        self.move_each(lost, now, |job| rules::lose(job, lost_max, now));
        // After the losses, so that a job which comes back too late does not wait for another reap.
        let late = self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id);
        let late = late.filter(|id| !self.slots.closed(|| id.slot()));
        let mut late: Vec<JobId> = late.take(left.saturating_add(1)).collect();
        more |= late.len() > left;
        late.truncate(left);
        self.move_each(late, now, |job| rules::expire(job, now));
        Reaped { more, ..Reaped::default() }
    }

    fn move_each(&mut self, ids: Vec<JobId>, now: Timestamp, rule: impl Fn(&mut Job) -> Option<Change>) {
        for id in ids {
            let moved = self.update(id, now, |job| {
                let change = rule(job);
                (change.is_some(), change)
            });
            if moved == Some(true) {
                self.cascade(id, now);
            }
        }
    }

    pub(super) fn fire(
        &mut self,
        term: &Term,
        tenant: &Tenant,
        name: &Name,
        at: Timestamp,
        now: Timestamp,
    ) -> Fired {
        if !self.leads(term, now) {
            return Fired::TermLost;
        }
        let Some(schedule) = self.schedules.get_mut(&(tenant.clone(), name.clone())) else {
            return Fired::NotFound;
        };
        if schedule.last_fired.is_some_and(|last| last >= at) {
            return Fired::Already;
        }
        schedule.last_fired = Some(at);
        let new = schedule.job(at);
        match self.submit_inside(vec![new], now).first() {
            Some(Submitted::New(id)) => Fired::New(*id),
            _ => Fired::Already,
        }
    }

    pub(super) fn prune(
        &mut self,
        term: &Term,
        retention: Retention,
        limit: usize,
        now: Timestamp,
    ) -> Pruned {
        if !self.leads(term, now) {
            return Pruned { term_lost: true, ..Pruned::default() };
        }
        let mut gone = self.outlived(retention, limit.saturating_add(1), now);
        let mut more = gone.len() > limit;
        gone.truncate(limit);
        let gone: Vec<(Tenant, JobId)> =
            gone.into_iter().filter_map(|id| Some((self.remove(id)?, id))).collect();
        let kept = usize::try_from(retention.changes).unwrap_or(usize::MAX);
        let spare = self.changes.len().saturating_sub(kept);
        more |= spare > limit;
        let removed = spare.min(limit);
        self.changes.drain(..removed);
        self.first_change += removed as u64;
        self.forget_owners(now);
        Pruned { jobs: gone.len() as u64, gone, changes: removed as u64, more, ..Pruned::default() }
    }

    /// Returns the first terminal jobs that retention does not keep, at most so many.
    fn outlived(&self, retention: Retention, most: usize, now: Timestamp) -> Vec<JobId> {
        let goes = |id: JobId, age: Duration| {
            self.jobs.get(&id).is_some_and(|job| job.moved_at.saturating_add(age) <= now)
                && self.jobs.get(&id).is_some_and(|job| self.had_turn(job))
                && self.childless(id)
                && !self.slots.closed(|| id.slot())
        };
        let mut gone = Vec::new();
        for lists in self.lists.values() {
            for state in JobState::ALL.into_iter().filter(|state| state.is_terminal()) {
                let list = lists.of(state);
                let mut surplus = (list.len() as u64).saturating_sub(retention.most);
                for (_, id) in list {
                    if gone.len() == most {
                        return gone;
                    }
                    if goes(*id, if surplus > 0 { Retention::KEYS_MIN } else { retention.age(state) }) {
                        gone.push(*id);
                        surplus = surplus.saturating_sub(1);
                    }
                }
            }
        }
        gone
    }

    /// Removes the rows of dead owners that hold nothing; incarnations come from one counter, so none comes twice.
    fn forget_owners(&mut self, now: Timestamp) {
        let leases = &self.leases;
        self.owners
            .retain(|owner, row| row.expires_at > now || leases.keys().any(|lease| lease.owner == *owner));
    }

    /// Whether every child of a job has ended.
    fn childless(&self, id: JobId) -> bool {
        let ended = |child: &JobId| self.jobs.get(child).is_none_or(|job| job.state.is_terminal());
        self.children(id).iter().all(ended)
    }
}
