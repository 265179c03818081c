//! The machine with a store in memory, on a clock that stands still: nothing waits, nothing runs by itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use hodei_core::gateway::{Desired, News, Offer, Report, RunningJob, SessionState};
use hodei_core::job::{
    Epoch, Finish, Job, JobSpec, JobSpecBuilder, Lease, NewJob, Output, Priority, Resources, Runs,
};
use hodei_core::store::{
    Consistency, Coordination, Exchange, JobStore, MemoryStore, Scope, Served, SubmitOptions, Wakeups,
};
use hodei_core::{Clock, Error, ErrorKind, JobId, ManualClock, Name, OwnerId, Tenant, Timestamp};

use crate::machine::{Effect, Input, Scheduler, SchedulerConfig, Ticket};

/// What an agent hears.
pub(super) type Answer = Result<Box<Desired>, ErrorKind>;

/// The machine, its store and its clock.
pub(super) struct World {
    pub(super) machine: Scheduler,
    pub(super) store: MemoryStore,
    pub(super) clock: Arc<ManualClock>,
    pub(super) owner: Lease,
    /// The exchanges that were carried out, in order.
    pub(super) exchanges: Vec<Exchange>,
    /// Whether calls of the store wait for [`World::perform`].
    pub(super) hold: bool,
    /// The calls that wait.
    pub(super) held: VecDeque<Effect>,
    wakeups: Wakeups,
    answers: HashMap<Ticket, Answer>,
    tickets: Ticket,
}

/// Waits for what is ready: the store in memory never waits.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the store in memory answers at once")
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(SchedulerConfig::default())
    }

    pub(super) fn with(config: SchedulerConfig) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_000_000_000)));
        let store = MemoryStore::with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        Self::on(store, clock, config, "node")
    }

    /// A node and its agent of eight slots, all taken, with many jobs of a level of which some are claimed ahead.
    pub(super) fn ahead(level: Priority) -> (Self, Agent) {
        let (mut world, mut agent) = (Self::new(), Agent::new("w", 8));
        world.submit(command().priority(level), 400);
        world.settle(&mut agent);
        while world.machine.surplus() < 8 {
            agent.finish_all();
            world.settle(&mut agent);
        }
        (world, agent)
    }

    /// Another node on the same store.
    pub(super) fn beside(other: &Self, name: &str) -> Self {
        Self::on(other.store.clone(), Arc::clone(&other.clock), SchedulerConfig::default(), name)
    }

    fn on(store: MemoryStore, clock: Arc<ManualClock>, config: SchedulerConfig, name: &str) -> Self {
        let owner = now(store.register(&OwnerId::new(name).expect("a name"), Duration::from_secs(3_600)));
        let owner = owner.expect("the store registers");
        let wakeups = store.wakeups();
        Self {
            machine: Scheduler::new(config, owner.clone(), clock.now()),
            store,
            clock,
            owner,
            exchanges: Vec::new(),
            hold: false,
            held: VecDeque::new(),
            wakeups,
            answers: HashMap::new(),
            tickets: 0,
        }
    }

    /// Tells the machine, and carries out what it wants.
    pub(super) fn tell(&mut self, input: Input) {
        self.machine.handle(input, self.clock.now());
        self.run();
    }

    fn run(&mut self) {
        self.carry_out();
        // As a driver: what its own writes made ready wakes it too.
        while self.wakeups.next().now_or_never().is_some() {
            self.machine.handle(Input::Woken, self.clock.now());
            self.carry_out();
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.machine.poll_effect(self.clock.now()) {
            match effect {
                Effect::Reply(ticket, answer) => {
                    self.answers.insert(ticket, answer);
                }
                call if self.hold => self.held.push_back(call),
                call => {
                    let input = self.perform(call);
                    self.machine.handle(input, self.clock.now());
                }
            }
        }
        self.machine.sessions.check(&self.machine.fleet);
    }

    /// Carries a call of the store out, and returns its answer.
    pub(super) fn perform(&mut self, call: Effect) -> Input {
        match call {
            Effect::AskLanes { every_level } => {
                Input::Lanes(now(self.store.lanes(&Served { every_level, ..Served::default() })))
            }
            Effect::Exchange(exchange) => {
                self.exchanges.push((*exchange).clone());
                Input::Exchanged(now(self.store.exchange(*exchange)))
            }
            Effect::AskLeases => Input::Leases(now(self.store.leases_of(&self.owner))),
            Effect::Register => {
                let owner = now(self.store.register(&self.owner.owner, Duration::from_secs(3_600)));
                self.owner = owner.expect("the store registers");
                Input::Registered(
                    self.owner.clone(),
                    self.clock.now().saturating_add(Duration::from_secs(3_600)),
                )
            }
            Effect::Reply(..) => panic!("a reply is no call of the store"),
        }
    }

    /// Takes the call that waits.
    pub(super) fn take_call(&mut self) -> Effect {
        self.held.pop_front().expect("a call waits")
    }

    /// Lets calls through up to the first one that is wanted, and takes that.
    pub(super) fn call_that(&mut self, wanted: impl Fn(&Effect) -> bool) -> Effect {
        loop {
            let call = self.take_call();
            if wanted(&call) {
                return call;
            }
            let answer = self.perform(call);
            self.tell(answer);
        }
    }

    /// As [`World::call_that`], for a call that claims.
    pub(super) fn claim_call(&mut self) -> Effect {
        self.call_that(|call| matches!(call, Effect::Exchange(exchange) if !exchange.picks.is_empty()))
    }

    /// Lets calls through again, those that wait first.
    pub(super) fn let_go(&mut self) {
        self.hold = false;
        while let Some(call) = self.held.pop_front() {
            let answer = self.perform(call);
            self.tell(answer);
        }
    }

    pub(super) fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        self.clock.advance(time);
        self.tell(Input::Tick);
    }

    pub(super) fn submit(&mut self, spec: JobSpecBuilder, n: usize) -> Vec<JobId> {
        let spec = Arc::new(spec.build().expect("a valid spec"));
        self.submit_all((0..n).map(|_| NewJob::new(Arc::clone(&spec))).collect())
    }

    pub(super) fn submit_all(&mut self, jobs: Vec<NewJob>) -> Vec<JobId> {
        let committed = now(self.store.submit(jobs, SubmitOptions::each())).expect("the store takes them");
        self.tell(Input::Woken);
        committed.replies.iter().map(|reply| reply.stored().expect("it is stored")).collect()
    }

    pub(super) fn job(&self, id: JobId) -> Job {
        let found = now(self.store.get_many(&Scope::All, vec![id], Consistency::Latest)).expect("it reads");
        found.into_iter().next().flatten().expect("the job is there")
    }

    /// Cancels in the store only; the machine is not told.
    pub(super) fn cancel_in_store(&self, job: JobId) {
        now(self.store.request_cancel(&Scope::All, vec![job])).expect("the store cancels");
    }

    /// Calls for an agent, and returns what it hears at once; nothing while it waits for news.
    pub(super) fn sync(&mut self, agent: &mut Agent) -> Option<Answer> {
        self.tickets += 1;
        agent.state.seq += 1;
        agent.ticket = self.tickets;
        self.tell(Input::Synced(Box::new(agent.state.clone()), agent.ticket));
        self.hear(agent)
    }

    /// Returns what an agent that waits has heard meanwhile.
    pub(super) fn hear(&mut self, agent: &mut Agent) -> Option<Answer> {
        let answer = self.answers.remove(&agent.ticket)?;
        if let Ok(desired) = &answer {
            agent.take(desired);
        }
        Some(answer)
    }

    /// Calls for an agent until there is no more news, and it waits.
    pub(super) fn settle(&mut self, agent: &mut Agent) {
        while let Some(answer) = self.sync(agent) {
            answer.expect("the call is answered");
        }
    }

    /// As [`World::sync`], for a call that there is news for.
    pub(super) fn news(&mut self, agent: &mut Agent) -> Desired {
        *self.sync(agent).expect("there is news").expect("the call is answered")
    }
}

/// An agent played by hand: it says what its fields say.
pub(super) struct Agent {
    pub(super) state: SessionState,
    pub(super) ticket: Ticket,
    reports: u64,
}

impl Agent {
    /// An agent that runs commands.
    pub(super) fn new(name: &'static str, slots: u32) -> Self {
        Self::with(name, slots, Resources::none(), vec![Runs::Command])
    }

    pub(super) fn with(name: &'static str, slots: u32, capacity: Resources, runs: Vec<Runs>) -> Self {
        let offer = Offer { runs, capacity, slots, labels: Default::default() };
        let state = SessionState {
            worker: Name::literal(name),
            incarnation: 1,
            seq: 0,
            seen: 0,
            offer: Arc::new(offer),
            running: Vec::new(),
            reports: Vec::new(),
            draining: false,
        };
        Self { state, ticket: 0, reports: 0 }
    }

    /// The same worker in its next life: nothing of the last one is left.
    pub(super) fn reborn(&self) -> Self {
        let mut next =
            Self { state: SessionState { seq: 0, seen: 0, ..self.state.clone() }, ticket: 0, reports: 0 };
        next.state.incarnation += 1;
        next.state.running.clear();
        next.state.reports.clear();
        next
    }

    /// Takes in a reply as an agent does: what is numbered below what it has seen is old.
    fn take(&mut self, desired: &Desired) {
        if desired.number <= self.state.seen {
            return;
        }
        self.state.seen = desired.number;
        self.state.reports.retain(|report| report.number > desired.received);
        self.state.running.extend(desired.assign.iter().map(RunningJob::of));
    }

    /// It runs something that its node knows nothing of.
    pub(super) fn runs(&mut self, job: JobId, epoch: u64, resources: Resources) {
        self.state.running.push(RunningJob {
            job,
            epoch: Epoch::from_number(epoch),
            progress: None,
            tenant: Tenant::default(),
            queue: Name::literal("default"),
            resources,
            beside: None,
        });
    }

    /// Reports on a job that runs; an end takes it out.
    pub(super) fn report(&mut self, job: JobId, news: News) {
        let held = self.state.running.iter().find(|running| running.job == job);
        let epoch = held.expect("it runs here").epoch;
        if news != News::Started {
            self.state.running.retain(|running| running.job != job);
        }
        self.reports += 1;
        self.state.reports.push(Report { number: self.reports, job, epoch, news });
    }

    /// Ends everything that runs well.
    pub(super) fn finish_all(&mut self) {
        for job in self.jobs() {
            self.report(job, success());
        }
    }

    pub(super) fn jobs(&self) -> Vec<JobId> {
        self.state.running.iter().map(|running| running.job).collect()
    }
}

pub(super) fn success() -> News {
    News::Ended(Box::new(Finish::succeeded(Output::none())))
}

pub(super) fn command() -> JobSpecBuilder {
    JobSpec::command(["true"])
}

pub(super) fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "store.test")
}

/// Jobs to be cancelled under whichever epoch they run.
pub(super) fn whichever(jobs: &[JobId]) -> Vec<(JobId, Epoch)> {
    jobs.iter().map(|job| (*job, Epoch::from_number(u64::MAX))).collect()
}

/// The jobs that a reply assigns.
pub(super) fn assigned(desired: &Desired) -> Vec<JobId> {
    desired.assign.iter().map(|assignment| assignment.job.id).collect()
}
