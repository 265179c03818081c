//! Chooses operations that mean something in the state that the model is in, and now and then some that do not.

use std::sync::Arc;
use std::time::Duration;

use super::super::jobs;
use super::op::{Brief, Op};
use super::random::Random;
use super::reference::Model;
use crate::id::{JobId, Name, OwnerId, PipelineId, Tenant};
use crate::job::{Epoch, Finish, JobSpec, Lease, NewJob, Parent, Requires, Resources, State};
use crate::store::{
    Exchange, Lane, Limit, LimitOf, Move, Pick, Query, QueuePolicy, Rate, Retention, Schedule, Scope,
    SubmitOptions, Term, Transition,
};
use crate::time::Timestamp;

/// How long owners and terms live here.
const LIFE: Duration = Duration::from_secs(60);
const QUEUES: [&str; 2] = ["a", "b"];
const KEYS: [&str; 2] = ["k", "l"];
const UNIQUE: [&str; 10] =
    ["u1", "u2", "u3", "open:u", "open:u", "open:v", "unfailed:u", "unfailed:u", "waiting:u", "waiting:u"];

/// What was seen so far, for repetitions and for what is stale.
#[derive(Debug)]
pub(super) struct Generator {
    pub(super) random: Random,
    minted: u64,
    submitted: Vec<NewJob>,
    pub(super) leases: Vec<Lease>,
    pub(super) terms: Vec<Term>,
    reported: Vec<Transition>,
    pub(super) durable: bool,
}

impl Generator {
    pub(super) fn new(random: Random, seed: u64, durable: bool) -> Self {
        let (submitted, leases, terms, reported) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { random, minted: seed << 20, submitted, leases, terms, reported, durable }
    }

    /// Chooses the next operation.
    pub(super) fn next(&mut self, model: &Model) -> Op {
        // Without a living owner and a leader little can happen.
        let alive = self.leases.iter().any(|lease| model.alive(lease));
        if self.leases.is_empty() || self.random.chance(if alive { 3 } else { 40 }) {
            return Op::Register(self.owner(), LIFE);
        }
        if !self.terms.iter().any(|term| model.leads(term)) && self.random.chance(30) {
            return Op::TakeTerm(Name::literal("d1"), self.lease(), 100 * LIFE);
        }
        match self.random.below(100) {
            0..20 => self.submit(model),
            20..58 => self.exchange(model),
            58..63 => Op::Cancel(self.scope(), self.jobs(model)),
            63..68 => Op::Redrive(self.scope(), self.jobs(model)),
            68..76 => Op::Advance(self.step()),
            76..80 => Op::List(self.scope(), self.query(model)),
            80..94 => self.maintain(model),
            94 if self.durable => Op::Reopen,
            _ => self.policy(),
        }
    }

    fn owner(&mut self) -> OwnerId {
        OwnerId::from(Name::literal(self.random.one_of(&["n1", "n2", "n3"])))
    }

    fn tenant(&mut self) -> Tenant {
        if self.random.chance(75) { Tenant::default() } else { jobs::acme() }
    }

    fn scope(&mut self) -> Scope {
        if self.random.chance(60) { Scope::All } else { Scope::Tenant(self.tenant()) }
    }

    fn step(&mut self) -> Duration {
        let steps = [1, 1_000, 1_000_000, 10_000_000, 40_000_000, 70_000_000, 90_000_000_000];
        Duration::from_micros(self.random.one_of(&steps))
    }

    fn lease(&mut self) -> Lease {
        // The last ones are the likeliest to be alive.
        let recent = self.leases.len().saturating_sub(3);
        if self.random.chance(85) {
            self.random.one_of(&self.leases[recent..])
        } else {
            self.random.one_of(&self.leases)
        }
    }

    fn id(&mut self, model: &Model, wanted: impl Fn(State) -> bool) -> Option<JobId> {
        let all = model.jobs.values().filter(|job| wanted(job.state)).map(|job| job.id);
        let all: Vec<JobId> = all.collect();
        self.random.pick(&all)
    }

    fn jobs(&mut self, model: &Model) -> Vec<JobId> {
        let n = self.random.below(3) + 1;
        let unknown = jobs::nobody();
        (0..n)
            .map(|_| self.id(model, |_| true).filter(|_| self.random.chance(95)).unwrap_or(unknown))
            .collect()
    }

    fn spec(&mut self) -> JobSpec {
        let name = self.random.one_of(&["x", "y"]);
        let priority = jobs::priority(self.random.one_of(&[10, 32, 32, 50]));
        let queue = self.random.one_of(&QUEUES);
        let mut spec = jobs::spec().name(name).queue(queue).priority(priority);
        if self.random.chance(20) {
            spec = spec.resources(Resources::none().cpu_millis(500));
        } else if self.random.chance(10) {
            spec = spec.resources(Resources::none().tokens(self.random.one_of(&[2, 3, 7])));
        }
        if self.random.chance(10) {
            spec = spec.group("g").apart("g");
        }
        for key in KEYS {
            if self.random.chance(20) {
                spec = spec.limited_by(key);
            }
        }
        if self.random.chance(15) {
            spec = spec.sequence(self.random.one_of(&["s", "t"]));
        }
        spec.build().expect("a valid spec")
    }

    fn job(&mut self, model: &Model, earlier: &[NewJob]) -> NewJob {
        if self.random.chance(7)
            && let Some(again) = self.random.pick(&self.submitted)
        {
            return again;
        }
        let tenant = self.tenant();
        self.minted += 1;
        let id = JobId::from_parts(self.minted, tenant.slot(), self.random.next());
        let mut new = NewJob::of(tenant.clone(), self.spec()).id(id);
        if self.random.chance(15) {
            new = new.run_at(model.now.saturating_add(self.step()));
        }
        if self.random.chance(15) {
            new = new.deadline(model.now.saturating_add(self.step()));
        }
        if self.random.chance(15) {
            let key = if self.random.chance(10) { "" } else { self.random.one_of(&UNIQUE) };
            new = new.unique(key);
        }
        if self.random.chance(20) {
            let ticket = self.random.one_of(&[1, 2]);
            new = new.in_pipeline(PipelineId::from_parts(ticket, tenant.slot(), 0));
        }
        if self.random.chance(3)
            && let Some(other) = self.random.pick(&self.submitted)
        {
            new.id = other.id;
        }
        let parents = self.parents(model, earlier);
        self.submitted.push(new.clone());
        new.after(parents)
    }

    fn parents(&mut self, model: &Model, earlier: &[NewJob]) -> Vec<Parent> {
        let n = self.random.one_of(&[0, 0, 0, 1, 1, 2, 3]);
        let mut parents: Vec<Parent> = Vec::new();
        for _ in 0..n {
            let beside = self.random.pick(earlier).map(|job| job.id).filter(|_| self.random.chance(60));
            let open = self.random.chance(70);
            let id = beside.or_else(|| self.id(model, |state| !open || !state.is_terminal()));
            let requires = self.random.one_of(&[
                Requires::Success,
                Requires::Success,
                Requires::Ended,
                Requires::Failure,
            ]);
            let id = id.unwrap_or_else(jobs::nobody);
            if parents.iter().all(|parent| parent.id != id) || self.random.chance(2) {
                parents.push(Parent { id, requires });
            }
        }
        parents
    }

    fn batch(&mut self, model: &Model) -> Vec<NewJob> {
        let mut batch: Vec<NewJob> = Vec::new();
        for _ in 0..self.random.below(5) + 1 {
            let job = self.job(model, &batch);
            batch.push(job);
        }
        batch
    }

    fn submit(&mut self, model: &Model) -> Op {
        let batch = self.batch(model).into_iter().map(Brief).collect();
        let atomic = self.random.chance(35);
        Op::Submit(batch, if atomic { SubmitOptions::atomic() } else { SubmitOptions::each() })
    }

    fn exchange(&mut self, model: &Model) -> Op {
        let owner = self.lease();
        let reports = self.random.below(4);
        let transitions: Vec<Transition> = (0..reports).filter_map(|_| self.transition(model)).collect();
        self.reported.extend_from_slice(&transitions);
        let picks = (0..self.random.below(4)).filter_map(|_| self.pick(model)).collect();
        Op::Exchange(Exchange { owner, transitions, picks })
    }

    fn pick(&mut self, model: &Model) -> Option<Pick> {
        let id = self.id(model, |state| state == State::Pending)?;
        let lane = Lane::of(&model.jobs[&id]);
        let floor = jobs::priority(self.random.one_of(&[0, 0, 0, 20, 40]));
        let ceiling = jobs::priority(self.random.one_of(&[63, 63, 63, 40, 20, 0]));
        Some(Pick { lane, floor, ceiling, n: self.random.one_of(&[0, 1, 1, 2, 3, 9]) })
    }

    fn transition(&mut self, model: &Model) -> Option<Transition> {
        if self.random.chance(10) {
            return self.random.pick(&self.reported);
        }
        let leased = !self.random.chance(10);
        let id = self.id(model, |state| !leased || state.is_leased())?;
        let current = model.jobs[&id].epoch.number();
        let stale = self.random.chance(8);
        let epoch = if stale { current.saturating_sub(1) } else { current };
        let step = self.step_of_a_run(model);
        Some(Transition { job: id, epoch: Epoch::from_number(epoch), step })
    }

    fn step_of_a_run(&mut self, model: &Model) -> Move {
        match self.random.below(21) {
            0..6 => jobs::started(),
            6 => Move::Started { lease: Some(self.lease()) },
            7..10 => self.finished(model),
            10..13 => jobs::failed(),
            13 => jobs::cancelled(),
            14 => jobs::retried(self.step()),
            15 => jobs::snoozed(self.step()),
            16..18 => jobs::retried(Duration::ZERO),
            18 => Move::Returned,
            19 => Move::Preempted,
            _ => Move::Lost { lost_max: 2 },
        }
    }

    fn finished(&mut self, model: &Model) -> Move {
        let mut finish = Finish::succeeded(jobs::output(self.random.one_of(&["", "1", "22"])));
        if self.random.chance(40) {
            finish.spawn = self.batch(model);
        }
        Move::Finished(Box::new(finish))
    }

    fn query(&mut self, model: &Model) -> Query {
        let mut query = Query::new().limit(self.random.one_of(&[1, 2, 7, 1_000]));
        if self.random.chance(50) {
            query = query.oldest_first();
        }
        if self.random.chance(40) {
            query = query.state(self.random.one_of(&State::ALL));
        }
        if self.random.chance(30) {
            query.pipeline = self.id(model, |_| true).and_then(|id| model.jobs[&id].pipeline);
        }
        if self.random.chance(30) {
            query = query.queue(Name::literal(self.random.one_of(&QUEUES)));
        }
        if self.random.chance(30) {
            query = query.name(Name::literal(self.random.one_of(&["x", "y", "z"])));
        }
        query
    }

    fn maintain(&mut self, model: &Model) -> Op {
        let duty = Name::literal(self.random.one_of(&["d1", "d1", "d1", "d2"]));
        let recent = self.terms.len().saturating_sub(2);
        let last = if self.random.chance(80) { &self.terms[recent..] } else { &self.terms };
        let Some(term) = self.random.pick(last) else { return Op::TakeTerm(duty, self.lease(), LIFE) };
        let limit = self.random.one_of(&[1, 3, 1_000]);
        match self.random.below(14) {
            0..3 => Op::TakeTerm(duty, self.lease(), self.random.one_of(&[LIFE, 100 * LIFE])),
            3 => Op::KeepTerm(term, LIFE),
            4..6 => Op::Beat((0..3).map(|_| self.lease()).collect(), LIFE),
            6 => Op::Retire(self.lease()),
            7..10 => Op::Reap(term, limit),
            10..12 => Op::Fire(term, self.tenant(), self.schedule_name(), self.fire_time(model)),
            _ => {
                let jobs = self.random.one_of(&[Duration::ZERO, 30 * jobs::HOUR]);
                let changes = self.random.one_of(&[0, 20, 1_000]);
                Op::Prune(term, Retention { jobs, changes, ..Retention::default() }, limit)
            }
        }
    }

    fn schedule_name(&mut self) -> Name {
        Name::literal(self.random.one_of(&["s1", "s2"]))
    }

    fn fire_time(&mut self, model: &Model) -> Timestamp {
        // A minute's grid, so that the same time comes twice.
        Timestamp::from_micros(model.now.as_micros() / 60_000_000 * 60_000_000)
    }

    fn limit_of(&mut self, tenant: Tenant) -> LimitOf {
        match self.random.below(10) {
            0 => LimitOf::All,
            1 => LimitOf::Tenant(tenant),
            2..4 => LimitOf::Queue(tenant, Name::literal(self.random.one_of(&QUEUES))),
            _ => LimitOf::Key(tenant, Name::literal(self.random.one_of(&KEYS))),
        }
    }

    fn rate(&mut self) -> Rate {
        let per = Duration::from_micros(self.random.one_of(&[1, 1_000, 1_000_001, 40_000_000]));
        Rate::new(self.random.one_of(&[1, 3, 7]), per).burst(self.random.one_of(&[1, 2, 5]))
    }

    fn policy(&mut self) -> Op {
        let tenant = self.tenant();
        match self.random.below(8) {
            0..2 => {
                let (queue, paused) = (Name::literal(self.random.one_of(&QUEUES)), self.random.chance(30));
                Op::SetQueue(QueuePolicy { tenant, queue, paused, weight: self.random.one_of(&[1, 5]) })
            }
            2..5 => {
                let of = self.limit_of(tenant);
                if self.random.chance(20) {
                    return Op::RemoveLimit(of);
                }
                let limit = Limit::new(of, self.random.one_of(&[0, 1, 2, 5, 5]));
                Op::SetLimit(if self.random.chance(40) { limit.rate(self.rate()) } else { limit })
            }
            5..7 => {
                let (name, spec) = (self.schedule_name(), Arc::new(self.spec()));
                Op::SetSchedule(Schedule { tenant, name, rule: "@daily".into(), spec, last_fired: None })
            }
            _ => Op::RemoveSchedule(tenant, self.schedule_name()),
        }
    }
}
