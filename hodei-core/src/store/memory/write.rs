//! Submit, exchange, cancel, redrive.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, LazyLock};

use super::super::{
    Applied, CancelReply, Claimed, Exchange, Exchanged, Input, Move, Pick, Redriven, Refusal, Scope,
    SubmitOptions, Submitted, Transition,
};
use super::state::{Place, State, first_of, sequence_of};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, Slot, Tenant};
use crate::job::{Fingerprint, Job, Lease, NewJob, Output, Requires, State as JobState, rules};
use crate::map::JobMap;
use crate::time::Timestamp;

impl State {
    /// Stores jobs, each for itself or all together. What becomes of each is settled before the first is stored.
    pub(super) fn submit(
        &mut self,
        jobs: Vec<NewJob>,
        options: SubmitOptions,
        now: Timestamp,
    ) -> Result<Vec<Submitted>> {
        let mut replies = self.answers(&jobs, self.tenant_max_open);
        let is_new = |reply: &Submitted| matches!(reply, Submitted::New(_));
        if options.atomic && replies.iter().any(|reply| reply.stored().is_none()) {
            let spared = replies.iter_mut().filter(|reply| is_new(reply));
            spared.for_each(|reply| *reply = Submitted::Refused(Refusal::Together));
            return Ok(replies);
        }
        let new = replies.iter().filter(|reply| is_new(reply)).count();
        if new > self.max_jobs.saturating_sub(self.jobs.len()) {
            return Err(Error::new(ErrorKind::Full, "store.submit").with("max_jobs", self.max_jobs));
        }
        self.admit(jobs, &replies, now);
        Ok(replies)
    }

    /// Stores what the engine itself submits: it comes past the door, where the bounds are held.
    pub(super) fn submit_inside(&mut self, jobs: Vec<NewJob>, now: Timestamp) -> Vec<Submitted> {
        let replies = self.answers(&jobs, u64::MAX);
        self.admit(jobs, &replies, now);
        replies
    }

    /// Says what becomes of each job of a batch when those that are new are stored.
    fn answers(&self, jobs: &[NewJob], max_open: u64) -> Vec<Submitted> {
        let mut taken = Taken::default();
        let mut slot: Option<(&Tenant, Slot)> = None;
        let mut replies = Vec::with_capacity(jobs.len());
        for job in jobs {
            let known = slot.filter(|(tenant, _)| *tenant == &job.tenant).map(|(_, slot)| slot);
            let own = known.unwrap_or_else(|| job.tenant.slot());
            slot = Some((&job.tenant, own));
            let reply = self.answer(job, own, &taken, max_open);
            if let Submitted::New(id) = reply {
                taken.ids.insert(id, job);
                if let Some(key) = job.unique.as_deref() {
                    taken.keys.insert((&job.tenant, key), job);
                }
                if max_open < u64::MAX {
                    *taken.open.entry(&job.tenant).or_default() += 1;
                }
            }
            replies.push(reply);
        }
        replies
    }

    fn answer(&self, job: &NewJob, slot: Slot, taken: &Taken<'_>, max_open: u64) -> Submitted {
        if job.check_in(slot).is_err() {
            return Submitted::Refused(Refusal::Invalid);
        }
        if let Some((id, fingerprint)) = self.holder(job, taken) {
            let same = fingerprint == job.fingerprint();
            return if same { Submitted::Existing(id) } else { Submitted::Conflict(id) };
        }
        let known = |id: &JobId| {
            let tenant = taken.ids.get(id).map(|parent| &parent.tenant);
            tenant.or_else(|| self.jobs.get(id).map(|parent| &parent.tenant)) == Some(&job.tenant)
        };
        if let Some(missing) = job.parents.iter().map(|parent| parent.id).find(|id| !known(id)) {
            return Submitted::Refused(Refusal::UnknownParent(missing));
        }
        let open = || self.open_jobs(&job.tenant) + taken.open.get(&job.tenant).copied().unwrap_or(0);
        let full = max_open < u64::MAX && open() >= max_open;
        if full { Submitted::Refused(Refusal::TooMany) } else { Submitted::New(job.id) }
    }

    /// Returns the job that has the id of a submission, or else its unique key.
    fn holder(&self, job: &NewJob, taken: &Taken<'_>) -> Option<(JobId, Fingerprint)> {
        let earlier = |job: &&NewJob| (job.id, job.fingerprint());
        let stored = |id: &JobId| self.jobs.get(id).map(|job| (job.id, job.fingerprint));
        let by_id = taken.ids.get(&job.id).map(earlier).or_else(|| stored(&job.id));
        by_id.or_else(|| {
            let key = job.unique.as_ref()?;
            let stored = || self.unique.get(&(job.tenant.clone(), Arc::clone(key))).and_then(stored);
            taken.keys.get(&(&job.tenant, &**key)).map(earlier).or_else(stored)
        })
    }

    fn admit(&mut self, jobs: Vec<NewJob>, replies: &[Submitted], now: Timestamp) {
        self.committing.reserve(jobs.len());
        for (new, reply) in jobs.into_iter().zip(replies) {
            if !matches!(reply, Submitted::New(_)) {
                continue;
            }
            let sequence = sequence_of(&new.tenant, &new.spec);
            let before = sequence.and_then(|key| self.sequences.insert(key, new.id));
            let (job, change) = rules::admit_behind(new, before, now);
            let (id, parents) = (job.id, Arc::clone(&job.parents));
            self.create(job, Some(change), now);
            for parent in parents.iter() {
                if let Some(state) = self.settled_state(parent.id) {
                    self.tell(parent.id, id, state, now);
                }
            }
        }
    }

    fn settled_state(&self, id: JobId) -> Option<JobState> {
        self.jobs.get(&id).map(|job| job.state).filter(|state| state.is_terminal())
    }

    /// Tells the children of a job that has ended, and theirs; a list instead of recursion, however deep it goes.
    pub(super) fn cascade(&mut self, ended: JobId, now: Timestamp) {
        if self.edges.is_empty() {
            return;
        }
        let mut ended = VecDeque::from([ended]);
        while let Some(parent) = ended.pop_front() {
            let Some(state) = self.settled_state(parent) else { continue };
            for child in self.children(parent) {
                if self.tell(parent, child, state, now) {
                    ended.push_back(child);
                }
            }
        }
    }

    /// Tells a child of a parent's end, unless it was told before; says whether the child has ended, by it or before its
    /// turn. Whoever comes behind the parent is told when the parent has had its turn.
    fn tell(&mut self, parent: JobId, child: JobId, state: JobState, now: Timestamp) -> bool {
        let requires = self.jobs.get(&child).and_then(|job| rules::requirement(job, parent));
        let in_turn = requires.is_some_and(Requires::is_turn);
        if in_turn && self.jobs.get(&parent).is_some_and(|parent| !self.had_turn(parent)) {
            return false;
        }
        match self.edges.get_mut(&(parent, child)) {
            Some(told) if !*told => *told = true,
            _ => return false,
        }
        if in_turn && self.settled_state(child).is_some() {
            return true;
        }
        let ended = self.update(child, now, |job| {
            let change = requires.and_then(|requires| rules::parent_settled(job, requires, state, now));
            (change.is_some() && job.state.is_terminal(), change)
        });
        ended == Some(true)
    }

    /// Settles, then claims; what changed stays in `committing`.
    pub(super) fn exchange(&mut self, exchange: &Exchange, now: Timestamp) -> Exchanged {
        self.committing.reserve(exchange.transitions.len());
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
            reclaimed: Vec::new(),
            owner_lost,
            next_due: self.due.first().map(|(at, _)| *at),
            changes: Vec::new(),
            partial: false,
        }
    }

    fn apply(&mut self, transition: &Transition, now: Timestamp) -> Applied {
        if self.slots.closed(|| transition.job.slot()) {
            return Applied::Unavailable;
        }
        let applied = self.update(transition.job, now, |job| {
            let (applied, change) = rules::apply(job, transition, now);
            ((applied, change.is_some() && job.state.is_terminal()), change)
        });
        let Some((applied, ended)) = applied else { return Applied::NotFound };
        // First the children that wait, then what is spawned: a spawned child of this job is told as it is admitted,
        // and must not be told a second time.
        if ended {
            self.cascade(transition.job, now);
        }
        if let (Applied::Done, Move::Finished(finish)) = (applied, &transition.step)
            && !finish.spawn.is_empty()
            && let Some(tenant) = self.jobs.get(&transition.job).map(|job| job.tenant.clone())
        {
            let own = finish.spawn.iter().filter(|new| new.tenant == tenant);
            self.submit_inside(own.cloned().collect(), now);
        }
        applied
    }

    fn claim(&mut self, pick: &Pick, owner: &Lease, now: Timestamp, claimed: &mut Vec<Claimed>) {
        if self.paused(&pick.lane) || self.slots.closed(|| pick.lane.tenant.slot()) {
            return;
        }
        let Some(lane) = self.ready.get(&pick.lane) else { return };
        let room = self.room(&pick.lane, &lane.request, now).jobs().min(u64::from(pick.n));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let paced = self.limits.are_paced().then(|| Arc::clone(&lane.request));
        let before = claimed.len();
        self.claim_up_to(room, pick, owner, now, claimed);
        if let Some(request) = paced {
            self.spend(&pick.lane, &request, (claimed.len() - before) as u64, now);
        }
    }

    /// Claims as many as there is room for.
    fn claim_up_to(
        &mut self,
        room: usize,
        pick: &Pick,
        owner: &Lease,
        now: Timestamp,
        claimed: &mut Vec<Claimed>,
    ) {
        let (before, mut after) = (claimed.len(), Bound::Included(first_of(Reverse(pick.ceiling))));
        // Once, unless some are passed over: then others come in their place.
        while claimed.len() - before < room {
            let Some(lane) = self.ready.get(&pick.lane) else { return };
            let next =
                lane.jobs.range((after, Bound::Unbounded)).take_while(|(level, ..)| level.0 >= pick.floor);
            let places: Vec<Place> = next.take(room - (claimed.len() - before)).copied().collect();
            let Some(last) = places.last() else { return };
            after = Bound::Excluded(*last);
            self.committing.reserve(places.len());
            claimed.reserve(places.len());
            for (_, _, id) in places {
                let first = claimed.len() == before;
                let more = self.claim_one(id, owner, first, now, claimed);
                if !more {
                    return;
                }
            }
        }
    }

    /// Claims a job unless its deadline has passed; says whether others may be claimed with it.
    fn claim_one(
        &mut self,
        id: JobId,
        owner: &Lease,
        first: bool,
        now: Timestamp,
        claimed: &mut Vec<Claimed>,
    ) -> bool {
        let moved = self.update(id, now, |job| {
            // A job that lost an owner is alone in its claim.
            let alone = job.lost_count > 0;
            let late = job.deadline.is_some_and(|deadline| deadline <= now);
            if late || (alone && !first) {
                return ((false, late), None);
            }
            // It was ready before the clock was set back.
            let now = now.max(job.eligible_at);
            let change = rules::claim(job, owner.clone(), now);
            ((change.is_some(), !alone), change)
        });
        let (moved, more) = moved.unwrap_or((false, true));
        if moved && let Some(job) = self.jobs.get(&id) {
            claimed.push(self.with_inputs(Arc::clone(job)));
        }
        more
    }

    /// Adds what the direct parents gave back.
    pub(super) fn with_inputs(&self, job: Arc<Job>) -> Claimed {
        if job.parents.is_empty() {
            return Claimed { job, inputs: no_inputs() };
        }
        let givers = job.parents.iter().filter(|parent| parent.requires.hands_on());
        let inputs = givers.filter_map(|parent| {
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
        let sequence = self.jobs.get(&id).and_then(|job| sequence_of(&job.tenant, &job.spec));
        let free = sequence.as_ref().is_none_or(|key| self.is_free(key, id));
        let taken = self.key_taken(id);
        let reply = self.update(id, now, |job| match (job.state, taken) {
            (JobState::Failed | JobState::Cancelled, _) if !free => (Redriven::OutOfTurn, None),
            (JobState::Failed | JobState::Cancelled, Some(holder)) => (Redriven::KeyTaken(holder), None),
            _ => match rules::redrive(job, now) {
                Some(change) => (Redriven::Done, Some(change)),
                None if job.state == JobState::Succeeded => (Redriven::Succeeded, None),
                None => (Redriven::NotTerminal, None),
            },
        });
        if let (Some(key), Some(Redriven::Done)) = (sequence, reply) {
            // Whoever comes next has its turn behind it.
            self.sequences.insert(key, id);
        }
        reply.unwrap_or(Redriven::NotFound)
    }

    /// Whether all of a sequence have ended and had their turn, as they have when the last one has; of a job that is to
    /// go round again.
    fn is_free(&self, sequence: &(Tenant, Arc<str>), job: JobId) -> bool {
        let last = self.sequences.get(sequence).copied().unwrap_or(job);
        self.jobs.get(&last).is_none_or(|last| last.state.is_terminal() && self.had_turn(last))
    }
}

/// The list of most jobs, shared by all of them.
fn no_inputs() -> Arc<[Input]> {
    static NONE: LazyLock<Arc<[Input]>> = LazyLock::new(|| Arc::from([]));
    Arc::clone(&NONE)
}

/// What a batch takes before it is stored.
#[derive(Default)]
struct Taken<'j> {
    ids: JobMap<&'j NewJob>,
    keys: HashMap<(&'j Tenant, &'j str), &'j NewJob>,
    open: HashMap<&'j Tenant, u64>,
}
