//! The rows and their indexes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::super::{
    Change, ChangeLog, Counts, Lane, LaneRoom, Limit, LimitOf, LimitUse, Note, QueuePolicy, QueueTally,
    Schedule, StoreStats, Term,
};
use super::limits::{Limits, Set};
use super::relocate::Slots;
use crate::id::{JobId, Name, OwnerId, PipelineId, Tenant};
use crate::job::{Held, Job, JobSpec, Lease, Priority, Request, State as JobState, rules};
use crate::map::{JobMap, JobSet};
use crate::time::Timestamp;

/// The place of a ready job in its lane: level, highest first; then the time; then the id.
pub(super) type Place = (Reverse<Priority>, Timestamp, JobId);

/// The place before all jobs of a level.
pub(super) fn first_of(level: Reverse<Priority>) -> Place {
    (level, Timestamp::from_micros(i64::MIN), JobId::from_bytes([0; 16]))
}

/// A lane with ready work.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) request: Arc<Request>,
    pub(super) jobs: BTreeSet<Place>,
    /// How many are ready at each level.
    pub(super) levels: BTreeMap<Reverse<Priority>, u64>,
}

/// An owner's row.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnerRow {
    pub(super) incarnation: u64,
    pub(super) expires_at: Timestamp,
}

/// A duty's row.
#[derive(Clone, Debug)]
pub(super) struct TermRow {
    pub(super) term: Term,
    pub(super) expires_at: Timestamp,
}

/// The place of a job in a list: created at, id.
pub(super) type Key = (Timestamp, JobId);

/// The jobs of a tenant in each state, by age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lists([BTreeSet<Key>; JobState::ALL.len()]);

impl Lists {
    pub(super) fn of(&self, state: JobState) -> &BTreeSet<Key> {
        &self.0[state as usize]
    }

    pub(super) fn counts(&self) -> Counts {
        Counts::from_numbers(JobState::ALL.map(|state| self.of(state).len() as u64))
    }
}

/// Everything that the store knows.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) change_log: ChangeLog,
    pub(super) max_jobs: usize,
    pub(super) tenant_max_open: u64,
    /// Shared with whoever claimed the job, and copied when it moves while somebody still has it.
    pub(super) jobs: JobMap<Arc<Job>>,

    pub(super) ready: BTreeMap<Lane, Ready>,
    pub(super) due: BTreeSet<(Timestamp, JobId)>,
    /// The jobs of each tenant that has any.
    pub(super) lists: BTreeMap<Tenant, Lists>,
    pub(super) pipelines: BTreeSet<(PipelineId, Timestamp, JobId)>,
    /// What each owner holds that holds anything.
    pub(super) leases: BTreeMap<Lease, JobSet>,
    pub(super) deadlines: BTreeSet<(Timestamp, JobId)>,
    /// Parent and child, and whether the child was told of the parent's end. It is told once, however often the
    /// parent is redriven.
    pub(super) edges: BTreeMap<(JobId, JobId), bool>,
    pub(super) unique: HashMap<(Tenant, Arc<str>), JobId>,
    /// The last job of each sequence, as long as it is kept.
    pub(super) sequences: HashMap<(Tenant, Arc<str>), JobId>,
    pub(super) counts: Counts,
    pub(super) queue_counts: QueueTally,

    pub(super) limits: Limits,
    pub(super) queues: BTreeMap<(Tenant, Name), QueuePolicy>,
    pub(super) schedules: BTreeMap<(Tenant, Name), Schedule>,
    pub(super) owners: HashMap<OwnerId, OwnerRow>,
    /// One counter for all owners, so that the rows of dead ones can go.
    pub(super) last_incarnation: u64,
    pub(super) terms: HashMap<Name, TermRow>,
    /// What the clock said last.
    pub(super) seen: Option<Timestamp>,
    /// The latest that it ever said.
    pub(super) latest: Option<Timestamp>,

    pub(super) notes: HashMap<Name, Note>,
    pub(super) slots: Slots,

    /// The changes that are kept; the first one has the number `first_change`.
    pub(super) changes: VecDeque<Change>,
    pub(super) first_change: u64,
    /// What the verb under way has changed.
    pub(super) committing: Vec<Change>,
    /// Whether the verb under way made work ready.
    pub(super) readied: bool,
    pub(super) stats: StoreStats,
}

impl State {
    /// Writes a new record.
    pub(super) fn create(&mut self, job: Job, change: Option<Change>, now: Timestamp) {
        self.stats.rows_written += 1;
        self.born(&job);
        self.place(&job, &Placed::of(&job), now);
        self.count(&job, None, Some(job.state));
        self.jobs.insert(job.id, Arc::new(job));
        if let Some(change) = change {
            self.note(change);
        }
    }

    /// Lets a rule move a record, and moves its indexes and writes the change that the rule returns. Every index
    /// changes here, in `create` and in `remove`, and nowhere else.
    pub(super) fn update<R>(
        &mut self,
        id: JobId,
        now: Timestamp,
        rule: impl FnOnce(&mut Job) -> (R, Option<Change>),
    ) -> Option<R> {
        // Out of the way while one of them moves, so that the indexes can be changed beside it.
        let mut jobs = std::mem::take(&mut self.jobs);
        let reply = jobs.get_mut(&id).map(|job| self.move_job(job, now, rule));
        self.jobs = jobs;
        reply
    }

    fn move_job<R>(
        &mut self,
        job: &mut Arc<Job>,
        now: Timestamp,
        rule: impl FnOnce(&mut Job) -> (R, Option<Change>),
    ) -> R {
        let (before, held) = (Placed::of(job), job.held_key().is_some());
        let (reply, change) = rule(Arc::make_mut(job));
        let after = Placed::of(job);
        if before != after {
            self.stats.rows_written += 1;
            self.unplace(job, &before);
            self.place(job, &after, now);
            self.count(job, Some(before.state), Some(after.state));
            if held != job.held_key().is_some() {
                self.turn_key(job);
            }
        }
        if let Some(change) = change {
            self.note(change);
        }
        reply
    }

    fn note(&mut self, change: Change) {
        if self.change_log.records(&change) {
            self.changes.push_back(change.clone());
        }
        self.committing.push(change);
    }

    /// Removes a terminal record and all that points to it, and returns whose it was.
    pub(super) fn remove(&mut self, id: JobId) -> Option<Tenant> {
        let job = self.jobs.remove(&id)?;
        let placed = Placed::of(&job);
        self.unplace(&job, &placed);
        self.count(&job, Some(placed.state), None);
        if let Some(pipeline) = job.pipeline {
            self.pipelines.remove(&(pipeline, job.created_at, id));
        }
        if let Some(key) = job.held_key() {
            self.unique.remove(&(job.tenant.clone(), Arc::clone(key)));
        }
        if let Some(key) =
            sequence_of(&job.tenant, &job.spec).filter(|key| self.sequences.get(key) == Some(&id))
        {
            self.sequences.remove(&key);
        }
        for parent in job.parents.iter() {
            self.edges.remove(&(parent.id, id));
        }
        for child in self.children(id) {
            self.edges.remove(&(id, child));
        }
        if self.lists.get(&job.tenant).is_some_and(|lists| *lists == Lists::default()) {
            self.lists.remove(&job.tenant);
        }
        Some(job.tenant.clone())
    }

    /// Returns the children of a job, by id.
    pub(super) fn children(&self, parent: JobId) -> Vec<JobId> {
        if self.edges.is_empty() {
            return Vec::new();
        }
        let all = (parent, JobId::from_bytes([0; 16]))..=(parent, JobId::from_bytes([0xff; 16]));
        self.edges.range(all).map(|((_, child), _)| *child).collect()
    }

    /// Whether everybody who comes before a job in its sequence has ended and told it so.
    pub(super) fn had_turn(&self, job: &Job) -> bool {
        // An edge that is gone was told before its parent went.
        rules::before_in_turn(&job.parents).all(|before| self.edges.get(&(before, job.id)) != Some(&false))
    }

    /// Makes the jobs ready whose time has come.
    pub(super) fn promote(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.due.first().copied() {
            if at > now {
                return;
            }
            self.due.pop_first();
            if let Some(job) = self.jobs.get(&id).cloned() {
                self.make_ready(&job);
            }
        }
    }

    /// Enters what does not change as long as the job is open.
    fn born(&mut self, job: &Job) {
        if let Some(pipeline) = job.pipeline {
            self.pipelines.insert((pipeline, job.created_at, job.id));
        }
        if let Some(key) = job.held_key() {
            self.unique.insert((job.tenant.clone(), Arc::clone(key)), job.id);
        }
        for parent in job.parents.iter() {
            self.edges.insert((parent.id, job.id), false);
        }
    }

    /// Frees the key of a job that has left it; gives it back to one that goes round again.
    fn turn_key(&mut self, job: &Job) {
        if let Some(key) = &job.unique {
            let key = (job.tenant.clone(), Arc::clone(key));
            match job.held_key() {
                Some(_) => drop(self.unique.insert(key, job.id)),
                None => drop(self.unique.remove(&key)),
            }
        }
    }

    /// Returns the other job that holds the key that a job would take again.
    pub(super) fn key_taken(&self, id: JobId) -> Option<JobId> {
        let job = self.jobs.get(&id)?;
        let key = job.unique.as_ref().filter(|key| Held::of(key).is_taken_again())?;
        self.unique.get(&(job.tenant.clone(), Arc::clone(key))).copied().filter(|holder| *holder != id)
    }

    fn place(&mut self, job: &Job, at: &Placed, now: Timestamp) {
        self.list(job, at.state, BTreeSet::insert);
        if let Some(lease) = &at.lease {
            match self.leases.get_mut(lease) {
                Some(held) => held.insert(job.id),
                None => self.leases.entry(lease.clone()).or_default().insert(job.id),
            };
            self.limits.begin(job);
        }
        if at.state != JobState::Pending {
            return;
        }
        if let Some(deadline) = at.deadline {
            self.deadlines.insert((deadline, job.id));
        }
        if at.eligible_at > now {
            self.due.insert((at.eligible_at, job.id));
        } else {
            self.make_ready(job);
        }
        // Whoever waits must look again, be it only to learn when the next job is due.
        self.readied = true;
    }

    fn unplace(&mut self, job: &Job, at: &Placed) {
        self.list(job, at.state, |list, key| list.remove(&key));
        if let Some(lease) = &at.lease {
            if let Some(held) = self.leases.get_mut(lease)
                && held.remove(&job.id)
                && held.is_empty()
            {
                self.leases.remove(lease);
            }
            // A full limit that has room again lets a lane through.
            self.readied |= self.limits.end(job);
        }
        if at.state != JobState::Pending {
            return;
        }
        if let Some(deadline) = at.deadline {
            self.deadlines.remove(&(deadline, job.id));
        }
        if !self.due.remove(&(at.eligible_at, job.id)) {
            self.unready(job, at.eligible_at);
        }
    }

    fn make_ready(&mut self, job: &Job) {
        let level = Reverse(job.spec.priority());
        let lane = self.ready.entry(Lane::of(job)).or_insert_with(|| Ready {
            request: Arc::new(job.spec.request()),
            jobs: BTreeSet::new(),
            levels: BTreeMap::new(),
        });
        if lane.jobs.insert((level, job.eligible_at, job.id)) {
            *lane.levels.entry(level).or_default() += 1;
        }
        self.readied = true;
    }

    fn unready(&mut self, job: &Job, eligible_at: Timestamp) {
        let key = Lane::of(job);
        let Some(lane) = self.ready.get_mut(&key) else { return };
        let level = Reverse(job.spec.priority());
        if lane.jobs.remove(&(level, eligible_at, job.id))
            && let Some(n) = lane.levels.get_mut(&level)
        {
            *n -= 1;
            if *n == 0 {
                lane.levels.remove(&level);
            }
        }
        if lane.jobs.is_empty() {
            self.ready.remove(&key);
        }
    }

    /// Changes a list of a job's tenant.
    fn list(&mut self, job: &Job, state: JobState, change: impl Fn(&mut BTreeSet<Key>, Key) -> bool) {
        let key = (job.created_at, job.id);
        match self.lists.get_mut(&job.tenant) {
            Some(lists) => change(&mut lists.0[state as usize], key),
            None => change(&mut self.lists.entry(job.tenant.clone()).or_default().0[state as usize], key),
        };
    }

    /// Counts a job that moved.
    fn count(&mut self, job: &Job, from: Option<JobState>, to: Option<JobState>) {
        self.counts.moved(from, to);
        self.queue_counts.moved(&job.tenant, job.spec.queue(), from, to);
    }

    /// How many jobs of a tenant are in each state.
    pub(super) fn counts_of(&self, tenant: &Tenant) -> Counts {
        self.lists.get(tenant).map(Lists::counts).unwrap_or_default()
    }

    /// How many jobs of a tenant have not settled.
    pub(super) fn open_jobs(&self, tenant: &Tenant) -> u64 {
        self.counts_of(tenant).open()
    }

    /// How many leased jobs count against a limit that somebody set.
    pub(super) fn in_use(&self, of: &LimitOf) -> u64 {
        let leased = |counts: Counts| counts.of(JobState::Scheduled) + counts.of(JobState::Running);
        match of {
            LimitOf::All => leased(self.counts),
            LimitOf::Tenant(tenant) => leased(self.counts_of(tenant)),
            LimitOf::Queue(..) | LimitOf::Key(..) => self.limits.in_use(of),
        }
    }

    /// A limit that somebody set, with its use.
    pub(super) fn limit_use(&self, of: &LimitOf, set: &Set) -> LimitUse {
        let in_use = u32::try_from(self.in_use(of)).unwrap_or(u32::MAX);
        LimitUse { limit: set.limit(of), in_use, spent: set.spent }
    }

    /// How many more jobs of a lane the limits let through.
    pub(super) fn room(&self, lane: &Lane, request: &Request, now: Timestamp) -> LaneRoom {
        let mut room = LaneRoom::unlimited(request.resources.token_count(), now);
        if self.limits.is_empty() {
            return room;
        }
        for of in LimitOf::of_jobs(&lane.tenant, &lane.queue, &request.limit_keys) {
            if let Some(set) = self.limits.get(&of) {
                room.hold(u64::from(set.max).saturating_sub(self.in_use(&of)));
                set.rate.into_iter().for_each(|rate| room.pace(rate, set.spent));
            }
        }
        room
    }

    /// Takes the tokens of jobs that were claimed from a lane.
    pub(super) fn spend(&mut self, lane: &Lane, request: &Request, jobs: u64, now: Timestamp) {
        for of in LimitOf::of_jobs(&lane.tenant, &lane.queue, &request.limit_keys) {
            self.limits.spend(&of, jobs, request.resources.token_count(), now);
        }
    }

    /// Sets a limit; what is spent of its rate stays spent.
    pub(super) fn set_limit(&mut self, limit: Limit, now: Timestamp) {
        let Limit { of, max, rate } = limit;
        let spent = self.limits.repaced(&of, rate, now);
        self.put_limit(of, Some(Set { max, rate, spent }));
    }

    /// Puts a limit in the place of what there was, or removes it; says whether there was one.
    pub(super) fn put_limit(&mut self, of: LimitOf, set: Option<Set>) -> bool {
        self.readied = true;
        let Self { limits, leases, jobs, .. } = self;
        let held = leases.values().flatten().filter_map(|id| jobs.get(id));
        limits.set(of, set, held)
    }

    pub(super) fn paused(&self, lane: &Lane) -> bool {
        let policy = self.queues.get(&(lane.tenant.clone(), lane.queue.clone()));
        policy.is_some_and(|policy| policy.paused)
    }

    pub(super) fn weight(&self, lane: &Lane) -> u32 {
        let policy = self.queues.get(&(lane.tenant.clone(), lane.queue.clone()));
        policy.map_or(1, |policy| policy.weight)
    }

    pub(super) fn alive(&self, lease: &Lease, now: Timestamp) -> bool {
        self.owners
            .get(&lease.owner)
            .is_some_and(|row| row.incarnation == lease.incarnation && row.expires_at > now)
    }

    pub(super) fn leads(&self, term: &Term, now: Timestamp) -> bool {
        self.terms.get(&term.duty).is_some_and(|row| row.term == *term && row.expires_at > now)
    }

    /// The owners that hold something and are dead, in their order: one step for each, however much it holds.
    pub(super) fn dead_holders(&self, now: Timestamp) -> Vec<Lease> {
        self.leases.keys().filter(|lease| !self.alive(lease, now)).cloned().collect()
    }
}

/// The sequence of a job, if it is in one.
pub(super) fn sequence_of(tenant: &Tenant, spec: &JobSpec) -> Option<(Tenant, Arc<str>)> {
    spec.sequence().map(|key| (tenant.clone(), Arc::from(key)))
}

/// The parts of a record that decide where the indexes have it.
#[derive(Debug, PartialEq)]
pub(super) struct Placed {
    pub(super) state: JobState,
    eligible_at: Timestamp,
    deadline: Option<Timestamp>,
    lease: Option<Lease>,
}

impl Placed {
    fn of(job: &Job) -> Self {
        Self {
            state: job.state,
            eligible_at: job.eligible_at,
            deadline: job.deadline,
            lease: job.lease.clone(),
        }
    }
}
