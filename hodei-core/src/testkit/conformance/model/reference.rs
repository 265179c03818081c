//! The model: what a store must do, written with plain lists.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::id::{JobId, Name, OwnerId, Tenant};
use crate::job::{Fingerprint, Job, JobSummary, Lease, NewJob, Output, Priority, Requires, State, rules};
use crate::store::{
    Applied, CancelReply, Change, Claimed, Counts, Exchange, Exchanged, Input, Lane, LaneHead, LaneRoom,
    Lanes, Limit, LimitOf, LimitUse, Move, Pick, Query, QueuePolicy, Redriven, Refusal, Schedule, Scope,
    Spent, SubmitOptions, Submitted, Term, Transition,
};
use crate::time::Timestamp;

/// Everything that a store should know.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now: Timestamp,
    pub(super) jobs: BTreeMap<JobId, Job>,
    /// Parent and child, and whether the child was told.
    pub(super) edges: BTreeMap<(JobId, JobId), bool>,
    /// The last job of each sequence, as long as it is kept.
    pub(super) last: BTreeMap<(Tenant, String), JobId>,
    /// When each job got into line: numbers that rise with every submission and every redrive.
    pub(super) lined_up: BTreeMap<JobId, u64>,
    pub(super) owners: BTreeMap<OwnerId, (u64, Timestamp)>,
    pub(super) terms: BTreeMap<Name, (Term, Timestamp)>,
    pub(super) queues: BTreeMap<(Tenant, Name), QueuePolicy>,
    pub(super) limits: BTreeMap<LimitOf, (Limit, Spent)>,
    pub(super) schedules: BTreeMap<(Tenant, Name), Schedule>,
    /// What the operation under way has changed.
    pub(super) changes: Vec<Change>,
}

impl Model {
    /// Lets a rule move a job.
    pub(super) fn shift<R>(
        &mut self,
        id: JobId,
        rule: impl FnOnce(&mut Job) -> (R, Option<Change>),
    ) -> Option<R> {
        let (reply, change) = rule(self.jobs.get_mut(&id)?);
        let ended = change.as_ref().is_some_and(|change| change.to.is_terminal());
        self.changes.extend(change);
        if ended {
            self.settle(id);
        }
        Some(reply)
    }

    fn settle(&mut self, ended: JobId) {
        let mut to_tell = VecDeque::from([ended]);
        while let Some(parent) = to_tell.pop_front() {
            let state = self.jobs[&parent].state;
            let untold = self.edges.iter().filter(|((from, _), told)| *from == parent && !**told);
            for child in untold.map(|((_, child), _)| *child).collect::<Vec<_>>() {
                if self.tell(parent, child, state) {
                    to_tell.push_back(child);
                }
            }
        }
    }

    fn tell(&mut self, parent: JobId, child: JobId, state: State) -> bool {
        let requires = self.jobs.get(&child).and_then(|job| rules::requirement(job, parent));
        let in_turn = requires.is_some_and(Requires::is_turn);
        if in_turn && !self.had_turn(parent) {
            return false;
        }
        self.edges.insert((parent, child), true);
        let Some(job) = self.jobs.get_mut(&child) else { return false };
        if in_turn && job.state.is_terminal() {
            return true;
        }
        let requires = requires.expect("an edge is of a parent");
        let change = rules::parent_settled(job, requires, state, self.now);
        let ended = change.is_some() && job.state.is_terminal();
        self.changes.extend(change);
        ended
    }

    /// Whether all who are before a job in its sequence have ended.
    pub(super) fn had_turn(&self, id: JobId) -> bool {
        let Some(key) = self.sequence(id) else { return true };
        let before = |other: &Job| self.lined_up.get(&other.id) < self.lined_up.get(&id);
        let open = self.jobs.values().filter(|job| !job.state.is_terminal());
        !open.filter(|job| self.sequence(job.id).as_ref() == Some(&key)).any(before)
    }

    pub(super) fn sequence(&self, id: JobId) -> Option<(Tenant, String)> {
        let job = self.jobs.get(&id)?;
        Some((job.tenant.clone(), job.spec.sequence()?.to_owned()))
    }

    fn line_up(&mut self, id: JobId) {
        if let Some(key) = self.sequence(id) {
            let number = self.lined_up.values().max().map_or(0, |last| last + 1);
            self.lined_up.insert(id, number);
            self.last.insert(key, id);
        }
    }

    pub(super) fn submit(&mut self, batch: &[NewJob], options: SubmitOptions) -> Vec<Submitted> {
        let mut taken: Vec<&NewJob> = Vec::new();
        let mut replies = Vec::new();
        for new in batch {
            let reply = self.answer(new, &taken);
            if let Submitted::New(_) = reply {
                taken.push(new);
            }
            replies.push(reply);
        }
        let spoiled =
            replies.iter().any(|reply| matches!(reply, Submitted::Conflict(_) | Submitted::Refused(_)));
        if options.atomic && spoiled {
            for reply in replies.iter_mut().filter(|reply| matches!(reply, Submitted::New(_))) {
                *reply = Submitted::Refused(Refusal::Together);
            }
            return replies;
        }
        let taken: Vec<NewJob> = taken.into_iter().cloned().collect();
        taken.into_iter().for_each(|new| self.admit(new));
        replies
    }

    fn answer(&self, new: &NewJob, taken: &[&NewJob]) -> Submitted {
        if new.check().is_err() {
            return Submitted::Refused(Refusal::Invalid);
        }
        let earlier = taken.iter().map(|job| (job.id, &job.tenant, job.unique.as_deref(), job.fingerprint()));
        let stored = self.jobs.values();
        let stored = stored.map(|job| (job.id, &job.tenant, held(job), job.fingerprint));
        let all: Vec<(JobId, &Tenant, Option<&str>, Fingerprint)> = earlier.chain(stored).collect();
        let by_key = |key: &str| all.iter().find(|job| job.1 == &new.tenant && job.2 == Some(key));
        let by_id = all.iter().find(|job| job.0 == new.id);
        if let Some((id, .., fingerprint)) = by_id.or_else(|| by_key(new.unique.as_deref()?)) {
            let same = *fingerprint == new.fingerprint();
            return if same { Submitted::Existing(*id) } else { Submitted::Conflict(*id) };
        }
        let known = |id| all.iter().any(|job| job.0 == id && job.1 == &new.tenant);
        let missing = new.parents.iter().find(|parent| !known(parent.id));
        missing.map_or(Submitted::New(new.id), |parent| Submitted::Refused(Refusal::UnknownParent(parent.id)))
    }

    fn admit(&mut self, new: NewJob) {
        let sequence = new.spec.sequence().map(|key| (new.tenant.clone(), key.to_owned()));
        let before = sequence.and_then(|key| self.last.get(&key).copied());
        let (job, change) = rules::admit_behind(new, before, self.now);
        let (id, parents) = (job.id, Arc::clone(&job.parents));
        self.jobs.insert(id, job);
        self.line_up(id);
        self.changes.push(change);
        for parent in parents.iter() {
            self.edges.insert((parent.id, id), false);
            let state = self.jobs[&parent.id].state;
            if state.is_terminal() {
                self.tell(parent.id, id, state);
            }
        }
    }

    pub(super) fn exchange(&mut self, exchange: &Exchange) -> Exchanged {
        let applied = exchange.transitions.iter().map(|transition| self.apply(transition)).collect();
        let owner_lost = !self.alive(&exchange.owner);
        let picks = if owner_lost { &[] } else { exchange.picks.as_slice() };
        let claimed = picks.iter().flat_map(|pick| self.claim(pick, &exchange.owner)).collect();
        Exchanged { applied, claimed, owner_lost, next_due: self.next_due(), ..Exchanged::default() }
    }

    fn apply(&mut self, transition: &Transition) -> Applied {
        let now = self.now;
        let applied = self.shift(transition.job, |job| rules::apply(job, transition, now));
        if let (Some(Applied::Done), Move::Finished(finish)) = (applied, &transition.step) {
            let tenant = &self.jobs[&transition.job].tenant;
            let spawn: Vec<NewJob> =
                finish.spawn.iter().filter(|new| new.tenant == *tenant).cloned().collect();
            self.submit(&spawn, SubmitOptions::each());
        }
        applied.unwrap_or(Applied::NotFound)
    }

    fn claim(&mut self, pick: &Pick, owner: &Lease) -> Vec<Claimed> {
        if self.paused(&pick.lane) {
            return Vec::new();
        }
        let in_time = |job: &&Job| job.deadline.is_none_or(|deadline| deadline > self.now);
        let ready = self.ready(&pick.lane).into_iter().filter(in_time);
        let ready: Vec<(JobId, bool)> = ready
            .filter(|job| pick.covers(job.spec.priority()))
            .map(|job| (job.id, job.lost_count > 0))
            .collect();
        let mut claimed: Vec<Claimed> = Vec::new();
        for (id, lost) in ready {
            let full = self.room(&self.jobs[&id]).jobs() == 0 || claimed.len() == pick.n as usize;
            if full || (lost && !claimed.is_empty()) {
                break;
            }
            let now = self.now;
            let lease = owner.clone();
            self.spend(id);
            self.shift(id, |job| ((), rules::claim(job, lease, now)));
            claimed.push(self.with_inputs(&self.jobs[&id]));
            if lost {
                break;
            }
        }
        claimed
    }

    pub(super) fn with_inputs(&self, job: &Job) -> Claimed {
        let input = |parent: &Job| Input {
            job: parent.id,
            name: parent.spec.name().clone(),
            output: parent.output().cloned().unwrap_or_else(Output::none),
        };
        let givers = job.parents.iter().filter(|parent| parent.requires != Requires::Turn);
        let parents = givers.filter_map(|parent| self.jobs.get(&parent.id));
        Claimed { job: Arc::new(job.clone()), inputs: parents.map(input).collect() }
    }

    /// The jobs of a lane that are ready, in their order.
    fn ready(&self, lane: &Lane) -> Vec<&Job> {
        let waits = |job: &&Job| job.state == State::Pending && job.eligible_at <= self.now;
        let mut ready: Vec<&Job> =
            self.jobs.values().filter(waits).filter(|job| Lane::of(job) == *lane).collect();
        ready.sort_by_key(|job| (Reverse(job.spec.priority()), job.eligible_at, job.id));
        ready
    }

    /// How many more jobs that ask for the same the limits let through.
    fn room(&self, job: &Job) -> LaneRoom {
        let mut room = LaneRoom::unlimited(job.spec.resources().token_count(), self.now);
        for (of, (limit, spent)) in self.limits.iter().filter(|(of, _)| of.counts(&job.tenant, &job.spec)) {
            room.hold(u64::from(limit.max).saturating_sub(self.in_use(of)));
            limit.rate.into_iter().for_each(|rate| room.pace(rate, *spent));
        }
        room
    }

    /// Takes the tokens of a job that is claimed.
    fn spend(&mut self, id: JobId) {
        let (now, job) = (self.now, &self.jobs[&id]);
        let each = job.spec.resources().token_count();
        for (of, (limit, spent)) in &mut self.limits {
            if let Some(rate) = limit.rate.filter(|_| of.counts(&job.tenant, &job.spec)) {
                *spent = rate.claim(*spent, 1, each, now);
            }
        }
    }

    pub(super) fn set_limit(&mut self, limit: Limit) {
        let before = self.limits.get(&limit.of).and_then(|(before, spent)| Some((before.rate?, *spent)));
        let spent = match (before, limit.rate) {
            (Some((before, spent)), Some(rate)) => rate.instead_of(&before, spent, self.now),
            _ => Spent::default(),
        };
        self.limits.insert(limit.of.clone(), (limit, spent));
    }

    pub(super) fn limit_uses(&self) -> Vec<LimitUse> {
        let used = |(limit, spent): &(Limit, Spent)| LimitUse {
            limit: limit.clone(),
            in_use: u32::try_from(self.in_use(&limit.of)).expect("few"),
            spent: *spent,
        };
        self.limits.values().map(used).collect()
    }

    pub(super) fn in_use(&self, of: &LimitOf) -> u64 {
        let leased = self.jobs.values().filter(|job| job.state.is_leased());
        leased.filter(|job| of.counts(&job.tenant, &job.spec)).count() as u64
    }

    fn paused(&self, lane: &Lane) -> bool {
        self.queues.get(&(lane.tenant.clone(), lane.queue.clone())).is_some_and(|policy| policy.paused)
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let pending = self.jobs.values().filter(|job| job.state == State::Pending);
        pending.map(|job| job.eligible_at).filter(|at| *at > self.now).min()
    }

    /// What is ready, the heads by lane.
    pub(super) fn lanes(&self) -> Lanes {
        self.shown(1)
    }

    /// What is ready at every level, the heads by lane, the highest level of each first.
    pub(super) fn levels(&self) -> Lanes {
        self.shown(usize::MAX)
    }

    /// What is ready at the highest levels of each lane, so many of them.
    fn shown(&self, most: usize) -> Lanes {
        let lanes: BTreeSet<Lane> = self.jobs.values().map(Lane::of).collect();
        let levels = |lane: Lane| {
            let levels: BTreeSet<_> =
                self.ready(&lane).iter().map(|job| Reverse(job.spec.priority())).collect();
            levels.into_iter().take(most).filter_map(move |level| self.head(lane.clone(), level.0))
        };
        let seen: Vec<(LaneHead, Option<Timestamp>)> = lanes.into_iter().flat_map(levels).collect();
        let opens_at = seen.iter().filter_map(|(_, opens_at)| *opens_at).min();
        let heads = seen.into_iter().map(|(head, _)| head).filter(|head| head.depth > 0).collect();
        Lanes { heads, next_due: self.next_due(), opens_at }
    }

    /// The head of a lane at a level, be it that nothing of it may be claimed, and when its rates let more through.
    fn head(&self, lane: Lane, level: Priority) -> Option<(LaneHead, Option<Timestamp>)> {
        let mut ready = self.ready(&lane);
        ready.retain(|job| job.spec.priority() == level);
        let first = *ready.first().filter(|_| !self.paused(&lane))?;
        let count = ready.len() as u64;
        let (depth, opens_at) = self.room(first).shown(count);
        let policy = self.queues.get(&(lane.tenant.clone(), lane.queue.clone()));
        let weight = policy.map_or(1, |policy| policy.weight);
        let (request, eligible_at) = (first.spec.request().into(), first.eligible_at);
        Some((LaneHead { lane, request, level, depth, eligible_at, weight }, opens_at))
    }

    pub(super) fn cancel(&mut self, scope: &Scope, ids: &[JobId]) -> Vec<CancelReply> {
        let now = self.now;
        let cancel = |id: &JobId| {
            let seen = self.jobs.get(id).is_some_and(|job| scope.covers(&job.tenant));
            let reply = if seen { self.shift(*id, |job| rules::cancel(job, now)) } else { None };
            reply.unwrap_or(CancelReply::NotFound)
        };
        ids.iter().map(cancel).collect()
    }

    pub(super) fn redrive(&mut self, scope: &Scope, ids: &[JobId]) -> Vec<Redriven> {
        let now = self.now;
        let redrive = |id: &JobId| match self.jobs.get(id).filter(|job| scope.covers(&job.tenant)) {
            None => Redriven::NotFound,
            Some(job) if job.state == State::Succeeded => Redriven::Succeeded,
            Some(job) if !job.state.is_terminal() => Redriven::NotTerminal,
            Some(_) if self.sequence(*id).is_some_and(|key| self.is_used(&key)) => Redriven::OutOfTurn,
            Some(job) => {
                let same = |other: &&Job| {
                    other.id != job.id && other.tenant == job.tenant && held(other) == job.unique.as_deref()
                };
                let takes = job.unique.as_deref().is_some_and(|key| !key.starts_with("waiting:"));
                if let Some(holder) = self.jobs.values().filter(|_| takes).find(same) {
                    return Redriven::KeyTaken(holder.id);
                }
                self.shift(*id, |job| ((), rules::redrive(job, now)));
                self.line_up(*id);
                Redriven::Done
            }
        };
        ids.iter().map(redrive).collect()
    }

    /// Whether any job of a sequence is open.
    fn is_used(&self, key: &(Tenant, String)) -> bool {
        let open = self.jobs.values().filter(|job| !job.state.is_terminal());
        open.into_iter().any(|job| self.sequence(job.id).as_ref() == Some(key))
    }

    pub(super) fn counts(&self, scope: &Scope) -> Counts {
        let mut counts = Counts::default();
        let seen = self.jobs.values().filter(|job| scope.covers(&job.tenant));
        seen.for_each(|job| counts.moved(None, Some(job.state)));
        counts
    }

    /// Every job of a list, in its order.
    pub(super) fn list(&self, scope: &Scope, query: &Query) -> Vec<JobSummary> {
        let seen = self.jobs.values().filter(|job| scope.covers(&job.tenant));
        let mut found: Vec<&Job> = seen.filter(|job| query.matches(&job.summary())).collect();
        found.sort_by_key(|job| (job.created_at, job.id));
        let found = found.into_iter().map(Job::summary);
        match query.order {
            crate::store::Order::OldestFirst => found.collect(),
            crate::store::Order::NewestFirst => found.rev().collect(),
        }
    }
}

/// The key that nobody else can have.
fn held(job: &Job) -> Option<&str> {
    let new = job.epoch.number() == 0 && job.generation == 0;
    job.unique.as_deref().filter(|key| match key.split_once(':') {
        Some(("open", _)) => !job.state.is_terminal(),
        Some(("unfailed", _)) => job.state == State::Succeeded || !job.state.is_terminal(),
        Some(("waiting", _)) => new && matches!(job.state, State::Blocked | State::Pending),
        _ => true,
    })
}
