//! Fairness from end to end: submissions, lanes and limits of the store, claims, the queue, workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::job::{JobSpec, NewJob, Priority};
use hodei_core::store::{Limit, LimitOf, Policies, QueuePolicy};
use hodei_core::{JobId, Name, Tenant};
use proptest::prelude::*;

use super::world::{Agent, World, command, now, success};
use crate::machine::SchedulerConfig;
use crate::queue::Ageing;

/// How long a step takes.
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
            let limit = Limit::new(LimitOf::Tenant(tenant(n)), 10_000);
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
        // What is asked for in one pick: the slots, and two for each that has ended.
        prop_assert!(worst <= f64::from(slots + 2), "{worst} jobs behind, weights {weights:?}, {slots} slots");
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

/// Where a job waits.
#[derive(Clone, Copy, Debug)]
enum Where {
    /// In a lane of its own.
    Apart,
    /// In the lane of its rivals, behind so many of its level.
    Among(usize),
}

/// How long a job of a level waits, while of rivals twice as many come as end.
fn waits(ageing: Ageing, place: Where, from: u8, rivals: u8) -> Duration {
    let config = SchedulerConfig { ageing: Some(ageing), ..SchedulerConfig::default() };
    let (mut world, mut agent) = (World::with(config), Agent::new("w", 1));
    for n in 0..2 {
        let limit = Limit::new(limit_of(n), LIMITED_MAX);
        now(world.store.set_limit(limit)).expect("the store keeps it");
    }
    let spec = |queue: &str, at: u8| {
        let spec = command().queue(queue).priority(level(at)).limited_by("licence");
        Arc::new(spec.build().expect("a valid spec"))
    };
    let theirs = spec("theirs", rivals);
    let (of, own, before) = match place {
        Where::Apart => (tenant(0), spec("own", from), 0),
        Where::Among(before) => (tenant(1), spec("theirs", from), before),
    };
    let rival = || NewJob::of(tenant(1), Arc::clone(&theirs));
    world.submit_all((0..3).map(|_| rival()).collect());
    world.settle(&mut agent);
    let own = (0..=before).map(|_| NewJob::of(of.clone(), Arc::clone(&own))).collect();
    let waits = world.submit_all(own)[before];
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
        let (waited, bound) = (waits(ageing, Where::Apart, from, rivals), ageing.bound(level(from)));
        // The run that is under way when it has risen, and its turn among those who have risen as far.
        prop_assert!(waited <= bound + STEP * 4, "waited {waited:?}, the bound is {bound:?}");
    }

    #[test]
    fn a_job_begins_within_the_bound_of_its_level_also_behind_its_own_lane(
        from in 0_u8..64, rivals in 0_u8..64, every in 2_u32..8, before in 0_usize..12,
    ) {
        let ageing = Ageing { every: STEP * every, ceiling: Priority::MAX };
        let (waited, bound) = (waits(ageing, Where::Among(before), from, rivals), ageing.bound(level(from)));
        // What has risen is looked for so often. Those of its level that came before it begin before it: one, two more, four more,
        // and each time what others have claimed ahead, which is two jobs where runs end one by one.
        let (all, rounds) = (u32::try_from(before).expect("few"), (before + 1).ilog2() + 1);
        let turn = ageing.every / 4 + STEP * (4 + all + 2 * rounds);
        prop_assert!(waited <= bound + turn, "waited {waited:?}, the bound is {bound:?} and {turn:?}");
    }
}
