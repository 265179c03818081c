//! A random run: clients, workers and leaders on one store, with retries, crashes and stale reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hodei_core::job::{
    Failure, FailureClass, Finish, JobSpec, Lease, NewJob, Output, Parent, Priority, Requires, RetryPolicy,
};
use hodei_core::store::*;
use hodei_core::testkit::history::{History, Recorder, RecordingStore, Run};
use hodei_core::{Clock, JobId, ManualClock, Name, OwnerId, Result, Tenant, Timestamp};

use crate::mangled::{Bug, Mangled, mixed};

/// How often a lost call is tried.
const TRIES: usize = 6;
const TTL: Duration = Duration::from_millis(200);
const LOST_MAX: u16 = 3;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Whether calls wait, fail and lose their replies.
    pub(crate) chaos: bool,
    pub(crate) bug: Option<Bug>,
    pub(crate) clients: u64,
    pub(crate) workers: u64,
    pub(crate) leaders: u64,
    /// Whether the leaders prune. What is gone cannot be checked, so most runs do not.
    pub(crate) prunes: bool,
    /// How many rounds each of them makes.
    pub(crate) rounds: u64,
}

impl Plan {
    pub(crate) const fn seeded(seed: u64) -> Self {
        Self {
            seed,
            chaos: true,
            bug: None,
            clients: 3,
            workers: 4,
            leaders: 2,
            prunes: seed % 4 == 3,
            rounds: 30,
        }
    }
}

/// What all actors share.
pub(crate) struct World {
    store: RecordingStore<Mangled>,
    clock: Arc<ManualClock>,
    /// The submitted jobs, for whoever cancels, redrives, reads or waits for one.
    jobs: std::sync::Mutex<Vec<NewJob>>,
    /// The clients that have not ended.
    clients: AtomicU64,
}

/// One actor's dice.
struct Dice(AtomicU64);

impl Dice {
    fn below(&self, n: u64) -> u64 {
        mixed(self.0.fetch_add(1, Ordering::Relaxed)) % n
    }

    fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&self, items: &[T]) -> Option<T> {
        let n = self.below(items.len().max(1) as u64);
        items.get(usize::try_from(n).expect("a small number")).cloned()
    }
}

/// Runs a plan to its end, on one thread and always in the same way, and returns what was recorded.
pub(crate) fn run(plan: Plan) -> History {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    let world = Arc::new(World::new(plan));
    runtime.block_on(async {
        let actors: Vec<_> =
            (0..plan.actors()).map(|n| tokio::spawn(act(Arc::clone(&world), plan, n))).collect();
        for actor in actors {
            actor.await.expect("no actor panics");
        }
    });
    runtime.block_on(finish(world))
}

/// Runs a plan with a thread for each actor.
pub(crate) fn run_threads(plan: Plan) -> History {
    let world = Arc::new(World::new(plan));
    std::thread::scope(|scope| {
        for n in 0..plan.actors() {
            let world = Arc::clone(&world);
            scope.spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
                runtime.block_on(act(world, plan, n));
            });
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    runtime.block_on(finish(world))
}

/// Surveys the store, opens it again, surveys it again.
async fn finish(world: Arc<World>) -> History {
    let World { store, .. } = Arc::into_inner(world).expect("every actor is gone");
    let recorder = store.recorder().clone();
    let mut store = store.into_inner();
    store.calm();
    let store = RecordingStore::new(store, recorder.clone());
    store.survey().await.expect("a calm store answers");
    recorder.restarted();
    store.inner().restart();
    store.survey().await.expect("a calm store answers");
    recorder.history()
}

impl Plan {
    const fn actors(self) -> u64 {
        self.clients + self.workers + self.leaders
    }
}

async fn act(world: Arc<World>, plan: Plan, n: u64) {
    let dice = Dice(AtomicU64::new(mixed(plan.seed ^ (n << 32))));
    if n < plan.clients {
        world.client(&dice, plan.rounds).await;
        world.clients.fetch_sub(1, Ordering::Release);
    } else if n < plan.clients + plan.workers {
        world.worker(&dice, n, plan.rounds).await;
    } else {
        world.leader(&dice, n, plan).await;
    }
}

impl World {
    fn new(plan: Plan) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_900_000_000_000_000)));
        let memory = MemoryStore::with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let mangled = Mangled::new(memory, plan.seed, plan.chaos, plan.bug);
        let store = RecordingStore::new(mangled, Recorder::new());
        Self { store, clock, jobs: std::sync::Mutex::default(), clients: AtomicU64::new(plan.clients) }
    }

    fn known(&self) -> Vec<NewJob> {
        self.jobs.lock().expect("no actor panics").clone()
    }

    async fn client(&self, dice: &Dice, rounds: u64) {
        for _ in 0..rounds {
            match dice.below(10) {
                0 => {
                    let Some(job) = dice.pick(&self.known()) else { continue };
                    let scope = scope_of(dice, &job);
                    let _ = self.store.request_cancel(&scope, vec![job.id]).await;
                }
                1 => {
                    let Some(job) = dice.pick(&self.known()) else { continue };
                    let scope = scope_of(dice, &job);
                    let _ = self.store.redrive(&scope, vec![job.id]).await;
                }
                2 => self.read(dice).await,
                3 => self.limit(dice).await,
                _ => self.submit(dice).await,
            }
            tokio::task::yield_now().await;
        }
    }

    async fn limit(&self, dice: &Dice) {
        let max = 1 + u32::try_from(dice.below(3)).expect("a small number");
        let limit = Limit::key(tenant(dice.below(2)), Name::literal("disk"), max);
        let _ = self.store.set_limit(limit).await;
    }

    async fn read(&self, dice: &Dice) {
        let known = self.known();
        let jobs: Vec<JobId> = (0..3).filter_map(|_| dice.pick(&known)).map(|job| job.id).collect();
        let scope = Scope::Tenant(tenant(dice.below(2)));
        let _ = self.store.get_many(&scope, jobs, Consistency::Latest).await;
        let _ = self.store.query(&scope, Query::new().limit(5)).await;
        let _ = self.store.counts(&scope).await;
        let _ = self.store.queue_counts(&scope, QueueQuery::new()).await;
    }

    /// Submits a batch until it is acknowledged, and now and then once more.
    async fn submit(&self, dice: &Dice) {
        let tenant = tenant(dice.below(2));
        let mut batch: Vec<NewJob> = Vec::new();
        for _ in 0..=dice.below(3) {
            let mut family = self.known();
            family.extend(batch.iter().cloned());
            family.retain(|job| job.tenant == tenant);
            batch.push(self.job(dice, &tenant, &family));
        }
        let options = if dice.one_in(4) { SubmitOptions::atomic() } else { SubmitOptions::each() };
        for _ in 0..TRIES {
            let done = self.store.submit(batch.clone(), options).await;
            self.jobs.lock().expect("no actor panics").extend(batch.iter().cloned());
            if done.is_ok() && !dice.one_in(5) {
                return;
            }
            // A caller that comes back with something else under its id.
            if done.is_ok() && dice.one_in(3) {
                batch[0].deadline = Some(Timestamp::from_micros(1));
            }
        }
    }

    fn job(&self, dice: &Dice, tenant: &Tenant, family: &[NewJob]) -> NewJob {
        let now = self.clock.now();
        let level = [31, 32, 40][usize::try_from(dice.below(3)).expect("a small number")];
        let attempts = 1 + u32::try_from(dice.below(3)).expect("a small number");
        let spec = JobSpec::command(["true"])
            .queue(if dice.one_in(3) { "slow" } else { "fast" })
            .priority(Priority::new(level).expect("a level"))
            .retry(RetryPolicy::attempts(attempts));
        let spec = if dice.one_in(3) { spec.limited_by("disk") } else { spec };
        let mut job = NewJob::of(tenant.clone(), spec.build().expect("a valid spec"));
        let ticket = (u64::try_from(now.as_micros()).expect("after 1970") / 1_000) << 12;
        job.id = JobId::from_parts(ticket | dice.below(4096), tenant.slot(), dice.below(1 << 50));
        if dice.one_in(6) {
            let number = dice.below(8);
            let begins =
                ["", "open:", "unfailed:", "waiting:"][usize::try_from(number / 2).expect("below 4")];
            job = job.unique(format!("{begins}key-{number}"));
        }
        if dice.one_in(8) {
            job = job.run_at(now.saturating_add(Duration::from_millis(dice.below(300))));
        }
        if dice.one_in(8) {
            job = job.deadline(now.saturating_add(Duration::from_millis(20 + dice.below(300))));
        }
        if dice.one_in(3) {
            let mut parents: Vec<JobId> =
                (0..2).filter_map(|_| dice.pick(family)).map(|job| job.id).collect();
            parents.sort_unstable();
            parents.dedup();
            let requires = if dice.one_in(2) { Requires::Ended } else { Requires::Success };
            job = job.after(parents.into_iter().map(|id| Parent { id, requires }));
        }
        job
    }

    /// Claims, runs and reports; forgets everything now and then, or goes on as if it had not been declared dead.
    async fn worker(&self, dice: &Dice, n: u64, rounds: u64) {
        let id = OwnerId::new(format!("worker-{n}")).expect("a name");
        let Some(mut lease) = self.register(&id).await else { return };
        let mut held: Vec<(Claimed, Option<Run>)> = Vec::new();
        let mut unsent: Vec<Transition> = Vec::new();
        for _ in 0..rounds {
            if dice.one_in(12) {
                let Some(next) = self.register(&id).await else { return };
                lease = next;
                // One that does not stop what it runs reports it later, under an epoch that is over.
                if dice.one_in(2) {
                    held.clear();
                    unsent.clear();
                }
            }
            let _ = self.store.beat(vec![lease.clone()], TTL).await;
            let mut transitions = std::mem::take(&mut unsent);
            if let Some(step) = self.step(dice, &lease, &mut held) {
                transitions.push(step);
            }
            let picks = self.picks(dice).await;
            let exchange = Exchange { owner: lease.clone(), transitions: transitions.clone(), picks };
            match self.store.exchange(exchange).await {
                Ok(done) => held.extend(done.claimed.into_iter().map(|claimed| (claimed, None))),
                Err(_) => {
                    unsent = transitions;
                    let leases = self.store.leases_of(&lease).await.unwrap_or_default();
                    let fresh = leases.into_iter().filter(|claimed| {
                        held.iter().all(|(mine, _)| mine.job.id != claimed.job.id)
                            && claimed.job.state == hodei_core::job::State::Scheduled
                            && unsent.iter().all(|step| step.job != claimed.job.id)
                    });
                    let fresh: Vec<Claimed> = fresh.collect();
                    held.extend(fresh.into_iter().map(|claimed| (claimed, None)));
                }
            }
            tokio::task::yield_now().await;
        }
        if dice.one_in(2) {
            let _ = self.store.retire(&lease).await;
        }
    }

    async fn register(&self, id: &OwnerId) -> Option<Lease> {
        for _ in 0..TRIES {
            if let Ok(lease) = self.store.register(id, TTL).await {
                return Some(lease);
            }
        }
        None
    }

    async fn picks(&self, dice: &Dice) -> Vec<Pick> {
        let heads = self.store.lanes(&Served::default()).await.map(|lanes| lanes.heads).unwrap_or_default();
        let n = 1 + u32::try_from(dice.below(2)).expect("a small number");
        let picks = heads.into_iter().filter(|_| dice.one_in(2));
        picks.map(|head| Pick { lane: head.lane, floor: head.level, ceiling: Priority::MAX, n }).collect()
    }

    /// Moves one of the held jobs: begins to run it, or ends its run.
    fn step(&self, dice: &Dice, lease: &Lease, held: &mut Vec<(Claimed, Option<Run>)>) -> Option<Transition> {
        let place = usize::try_from(dice.below(held.len().max(1) as u64)).expect("a small number");
        let (claimed, run) = held.get_mut(place)?;
        let (job, epoch) = (claimed.job.id, claimed.job.epoch);
        let step = match run {
            None if dice.one_in(6) => Move::Returned,
            None => {
                *run = Some(self.store.recorder().executed(job, epoch, lease));
                return Some(Transition { job, epoch, step: Move::Started { lease: None } });
            }
            Some(_) => self.end(dice, claimed),
        };
        held.swap_remove(place);
        Some(Transition { job, epoch, step })
    }

    fn end(&self, dice: &Dice, claimed: &Claimed) -> Move {
        let job = &claimed.job;
        let failure = Failure::new(FailureClass::Error, "it failed");
        let wait = Duration::from_millis(dice.below(50));
        match dice.below(9) {
            8 => Move::Lost { lost_max: LOST_MAX },
            0 | 1 if job.attempt + 1 < job.spec.retry().max_attempts => {
                Move::Retried { failure, wait, manifest: None }
            }
            0 => Move::Finished(Box::new(Finish::failed(failure))),
            2 => Move::Snoozed { wait },
            3 => Move::Preempted,
            4 => {
                let spawn = vec![self.job(dice, &job.tenant, &[])];
                Move::Finished(Box::new(Finish { spawn, ..Finish::succeeded(Output::none()) }))
            }
            _ => Move::Finished(Box::new(Finish::succeeded(Output::none()))),
        }
    }

    /// Leads when it can: reaps, fires, prunes; and moves the clock.
    async fn leader(&self, dice: &Dice, n: u64, plan: Plan) {
        let Plan { rounds, prunes, .. } = plan;
        let id = OwnerId::new(format!("node-{n}")).expect("a name");
        let Some(lease) = self.register(&id).await else { return };
        let (duty, name) = (Name::literal("maintenance"), Name::literal("nightly"));
        let spec = Arc::new(JobSpec::command(["true"]).build().expect("a valid spec"));
        let schedule =
            Schedule { tenant: tenant(0), name: name.clone(), rule: "daily".into(), spec, last_fired: None };
        let _ = self.store.set_schedule(schedule).await;
        let mut term: Option<Term> = None;
        for round in 0..rounds {
            self.clock.advance(Duration::from_millis(dice.below(40)));
            if let Ok(Some(taken)) = self.store.take_term(&duty, &lease, TTL).await {
                term = Some(taken);
            }
            let Some(term) = &term else { continue };
            let done: Result<Reaped> = self.store.reap(term, LOST_MAX, 1_000).await;
            if done.is_ok_and(|reaped| !reaped.term_lost) {
                let _ = self.store.keep_term(term, TTL).await;
            }
            let at = Timestamp::from_micros(i64::try_from(round / 4).expect("a small number"));
            let _ = self.store.fire(term, &tenant(0), &name, at).await;
            tokio::task::yield_now().await;
        }
        if let Some(term) = term.filter(|_| prunes) {
            self.prune(&term).await;
        }
    }

    /// Prunes when the clients are gone: whoever submits again what was pruned submits it anew.
    async fn prune(&self, term: &Term) {
        while self.clients.load(Ordering::Acquire) > 0 {
            tokio::task::yield_now().await;
        }
        self.clock.advance(Retention::KEYS_MIN);
        let retention = Retention { jobs: Retention::KEYS_MIN, ..Retention::default() };
        let duty = (term.duty.clone(), term.holder.clone());
        for _ in 0..TRIES {
            if let Ok(Some(term)) = self.store.take_term(&duty.0, &duty.1, TTL).await {
                let _ = self.store.prune(&term, retention, 5).await;
                let _ = self.store.prune(&term, retention, 5).await;
            }
            self.clock.advance(TTL);
        }
    }
}

fn tenant(n: u64) -> Tenant {
    Tenant::new(["acme", "umbrella"][usize::try_from(n).expect("one of two")]).expect("a name")
}

/// Mostly the scope of a job, now and then another.
fn scope_of(dice: &Dice, job: &NewJob) -> Scope {
    match dice.below(4) {
        0 => Scope::Tenant(tenant(dice.below(2))),
        1 => Scope::All,
        _ => Scope::Tenant(job.tenant.clone()),
    }
}
