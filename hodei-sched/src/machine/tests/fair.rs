//! Order and fairness from end to end: submissions, lanes and limits of the store, claims, the queue, workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hodei_core::job::{Job, JobSpec, NewJob, Priority, Resources, Runs};
use hodei_core::store::{Limit, LimitOf, Policies, QueuePolicy};
use hodei_core::{JobId, Name, Tenant};
use proptest::prelude::*;

use super::world::{Agent, World, command, now, success};
use crate::machine::SchedulerConfig;
use crate::queue::Ageing;

/// How long a step takes: as long as the machine may go by what it has seen of the store.
const STEP: Duration = Duration::from_millis(100);
/// How many jobs of the limited kind may be leased at once.
const LIMITED_MAX: u32 = 2;

fn level(n: u8) -> Priority {
    Priority::new(n).expect("a level")
}

fn tenant(n: usize) -> Tenant {
    Tenant::new(format!("t{n}")).expect("a name")
}

fn limit_of(n: usize) -> LimitOf {
    LimitOf::Key(tenant(n), Name::literal("licence"))
}

/// A few workers of different sizes, and what was given to them.
struct Floor {
    world: World,
    agents: Vec<(Agent, u64)>,
    /// How many CPUs each job asks for, in thousandths.
    needs: BTreeMap<JobId, u64>,
}

impl Floor {
    fn new() -> Self {
        let config = SchedulerConfig { ageing: None, ..SchedulerConfig::default() };
        let mut world = World::with(config);
        let mut agents = Vec::new();
        for (name, slots, cpu) in [("small", 3, 2_000), ("large", 6, 4_000)] {
            let capacity = Resources::none().cpu_millis(cpu);
            let mut agent = Agent::with(name, slots, capacity, vec![Runs::Command]);
            world.sync(&mut agent);
            agents.push((agent, cpu));
        }
        Self { world, agents, needs: BTreeMap::new() }
    }

    fn submit(&mut self, n: usize, of: usize, at: u8, cpu: u64) {
        let spec = command().priority(level(at)).resources(Resources::none().cpu_millis(cpu));
        let spec = Arc::new(spec.build().expect("a valid spec"));
        let jobs = (0..n).map(|_| NewJob::of(tenant(of), Arc::clone(&spec))).collect();
        self.needs.extend(self.world.submit_all(jobs).into_iter().map(|job| (job, cpu)));
    }

    fn end(&mut self, n: usize) {
        let running: Vec<(usize, JobId)> = self
            .agents
            .iter()
            .enumerate()
            .flat_map(|(at, (agent, _))| agent.jobs().into_iter().map(move |job| (at, job)))
            .collect();
        if let Some((at, job)) = running.get(n % running.len().max(1)) {
            self.agents[*at].0.report(*job, success());
        }
    }

    /// Lets everybody talk until nothing is new.
    fn settle(&mut self) {
        self.world.pass(STEP);
        for _ in 0..3 {
            for (agent, _) in &mut self.agents {
                while self.world.sync(agent).is_some() {}
            }
        }
    }

    fn running(&self) -> Vec<BTreeSet<JobId>> {
        self.agents.iter().map(|(agent, _)| agent.jobs().into_iter().collect()).collect()
    }

    /// Does something, and checks that nothing began where something more urgent could have.
    fn step(&mut self, act: impl FnOnce(&mut Self)) -> Result<(), TestCaseError> {
        let before = self.running();
        act(self);
        self.settle();
        let after = self.running();
        let jobs: BTreeMap<JobId, Job> = self.needs.keys().map(|id| (*id, self.world.job(*id))).collect();
        let runs = |id: &JobId| after.iter().any(|running| running.contains(id));
        let held = self.world.machine.fleet.held();
        let waiting = jobs.values().filter(|job| !job.state.is_terminal() && !runs(&job.id));
        for waits in waiting {
            for (at, (agent, cpu)) in self.agents.iter().enumerate() {
                let worker = self.world.machine.sessions[&agent.state.worker].worker;
                // What is kept for something at least as urgent is not to be had.
                let kept = held.is_some_and(|(class, kept)| {
                    kept == worker && self.world.machine.buffer.class_of(waits.id) != Some(class)
                });
                let passed: Vec<&Job> = after[at]
                    .difference(&before[at])
                    .map(|id| &jobs[id])
                    .filter(|job| job.spec.priority() < waits.spec.priority())
                    .collect();
                let stays = after[at].len() - passed.len();
                let used: u64 = after[at].iter().map(|id| self.needs[id]).sum();
                let given: u64 = passed.iter().map(|job| self.needs[&job.id]).sum();
                let fits =
                    stays < agent.state.offer.slots as usize && used - given + self.needs[&waits.id] <= *cpu;
                prop_assert!(
                    kept || passed.is_empty() || !fits,
                    "{} of level {:?} waits, and {:?} began",
                    waits.id,
                    waits.spec.priority(),
                    passed.iter().map(|job| job.spec.priority()).collect::<Vec<_>>()
                );
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// For jobs that ask for as much: what asks for more may have a worker kept, which smaller ones then do not get.
    #[test]
    fn nothing_begins_while_something_more_urgent_waits(
        cpu in prop_oneof![Just(500_u64), Just(1_000), Just(2_000)],
        acts in prop::collection::vec((0_u8..8, 1_usize..5, 0_u8..4, 0_usize..2), 10..60),
    ) {
        let mut floor = Floor::new();
        for (act, n, at, of) in acts {
            match act {
                0..=3 => floor.step(|floor| floor.submit(n, of, at * 20, cpu))?,
                _ => floor.step(|floor| (0..n).for_each(|each| floor.end(each * 7 + usize::from(at))))?,
            }
        }
    }
}

/// Tenants whose work never runs out, workers that never run dry.
struct Shop {
    world: World,
    agent: Agent,
    weights: Vec<u32>,
    /// The tenant of each job that has begun.
    begun: BTreeMap<JobId, usize>,
    owners: BTreeMap<JobId, usize>,
    ideal: Vec<f64>,
    served: Vec<f64>,
    /// By how much anybody was behind the ideal at most, in jobs.
    worst: f64,
}

impl Shop {
    fn open(weights: &[u32], slots: u32) -> Self {
        let config = SchedulerConfig { ageing: None, ..SchedulerConfig::default() };
        let world = World::with(config);
        for (n, weight) in weights.iter().enumerate() {
            let queue = Name::literal("default");
            let policy = QueuePolicy { tenant: tenant(n), queue, paused: false, weight: *weight };
            now(world.store.set_queue(policy)).expect("the store keeps it");
            // A limit that is never reached is looked at all the same.
            let limit = Limit { of: LimitOf::Tenant(tenant(n)), max: 10_000 };
            now(world.store.set_limit(limit)).expect("the store keeps it");
        }
        let agent = Agent::new("w", slots);
        let (ideal, served) = (vec![0.0; weights.len()], vec![0.0; weights.len()]);
        let weights = weights.to_vec();
        let (begun, owners) = (BTreeMap::new(), BTreeMap::new());
        Self { world, agent, weights, begun, owners, ideal, served, worst: 0.0 }
    }

    fn submit(&mut self, each: usize) {
        let spec: Arc<JobSpec> = Arc::new(command().build().expect("a valid spec"));
        for n in 0..self.weights.len() {
            let jobs = (0..each).map(|_| NewJob::of(tenant(n), Arc::clone(&spec))).collect();
            self.owners.extend(self.world.submit_all(jobs).into_iter().map(|job| (job, n)));
        }
    }

    /// Gives what is free to whoever's turn it is, and holds that to a fluid that serves all by their weights.
    fn serve(&mut self) {
        self.world.settle(&mut self.agent);
        let total: f64 = self.weights.iter().copied().map(f64::from).sum();
        for job in self.agent.jobs() {
            if self.begun.contains_key(&job) {
                continue;
            }
            let of = self.owners[&job];
            self.begun.insert(job, of);
            for (ideal, weight) in self.ideal.iter_mut().zip(&self.weights) {
                *ideal += f64::from(*weight) / total;
            }
            self.served[of] += 1.0;
            let behind = self.ideal.iter().zip(&self.served).map(|(ideal, served)| ideal - served);
            self.worst = behind.fold(self.worst, f64::max);
        }
    }

    fn end(&mut self, n: usize) {
        for job in self.agent.jobs().into_iter().take(n) {
            self.agent.report(job, success());
        }
    }
}

/// By how many jobs anybody is behind the ideal at most, when so many runs end together each time.
fn lag(weights: &[u32], slots: u32, together: usize, turns: usize) -> f64 {
    let mut shop = Shop::open(weights, slots);
    shop.submit(60);
    for _ in 0..turns {
        shop.submit(together);
        shop.serve();
        shop.end(together);
    }
    shop.worst
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn nobody_is_far_behind_the_ideal_when_slots_come_free_one_by_one(
        weights in prop::collection::vec(1_u32..12, 1..7),
        slots in 1_u32..12,
    ) {
        let worst = lag(&weights, slots, 1, 100);
        prop_assert!(worst <= 2.0, "{worst} jobs behind, weights {weights:?}, {slots} slots");
    }

    #[test]
    fn what_is_claimed_ahead_adds_no_more_than_itself(
        weights in prop::collection::vec(1_u32..12, 1..7),
        together in 2_usize..8,
    ) {
        // Twice what ended lately is claimed ahead, and that is at most twice what ends together.
        let most = 2.0 + 4.0 * together as f64;
        let worst = lag(&weights, 8, together, 60);
        prop_assert!(worst <= most, "{worst} jobs behind, weights {weights:?}, {together} together");
    }
}

/// How long a job of a level waits in a queue of its own, while of rivals twice as many come as end.
fn waits(ageing: Ageing, from: u8, rivals: u8) -> Duration {
    let config = SchedulerConfig { ageing: Some(ageing), ..SchedulerConfig::default() };
    let (mut world, mut agent) = (World::with(config), Agent::new("w", 1));
    for n in 0..2 {
        let limit = Limit { of: limit_of(n), max: LIMITED_MAX };
        now(world.store.set_limit(limit)).expect("the store keeps it");
    }
    let spec = |queue: &str, at: u8| {
        let spec = command().queue(queue).priority(level(at)).limited_by("licence");
        Arc::new(spec.build().expect("a valid spec"))
    };
    let (own, theirs) = (spec("own", from), spec("theirs", rivals));
    let rival = || NewJob::of(tenant(1), Arc::clone(&theirs));
    world.submit_all((0..3).map(|_| rival()).collect());
    world.settle(&mut agent);
    let waits = world.submit_all(vec![NewJob::of(tenant(0), own)])[0];
    let since = world.clock_now();
    while !agent.jobs().contains(&waits) {
        world.submit_all(vec![rival(), rival()]);
        world.pass(STEP);
        agent.finish_all();
        world.settle(&mut agent);
    }
    world.clock_now().saturating_since(since)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_job_begins_within_the_bound_of_its_level(from in 0_u8..64, rivals in 0_u8..64, every in 2_u32..8) {
        let ageing = Ageing { every: STEP * every, ceiling: Priority::MAX };
        let (waited, bound) = (waits(ageing, from, rivals), ageing.bound(level(from)));
        // The run that is under way when it has risen, and its turn among those who have risen as far.
        prop_assert!(waited <= bound + STEP * 4, "waited {waited:?}, the bound is {bound:?}");
    }
}
