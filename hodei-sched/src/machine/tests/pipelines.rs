//! The pipelines of a queue take turns, with each other and with the jobs that are of none.

use std::collections::BTreeMap;
use std::sync::Arc;

use hodei_core::job::{JobSpec, NewJob, Share};
use hodei_core::pipeline::{Pipeline, PipelineBuilder, PipelineLimits, Step};
use hodei_core::store::{Policies, QueuePolicy};
use hodei_core::{JobId, Name, Tenant};
use proptest::prelude::*;

use super::world::{Agent, World, command, now, success};
use crate::machine::SchedulerConfig;

/// A pipeline of steps that do not wait for each other, in a queue.
fn pipeline_of(queue: &str, steps: usize) -> Pipeline {
    weighing(1, queue, steps)
}

/// As [`pipeline_of`], which weighs so much.
fn weighing(weight: u32, queue: &str, steps: usize) -> Pipeline {
    let step = |n| Step::new(format!("s{n}"), command().queue(queue));
    let builder = Pipeline::builder("p").weight(weight);
    let pipeline = (0..steps).map(step).fold(builder, PipelineBuilder::step);
    pipeline.build_within(&PipelineLimits::default()).expect("a valid pipeline")
}

fn share_of(pipeline: &Pipeline) -> Share {
    pipeline.jobs()[0].spec.request().share()
}

/// A pipeline that stands in one line with no other.
fn pipeline_beside(others: &mut Vec<Share>, weight: u32, queue: &str, steps: usize) -> Vec<NewJob> {
    let pipeline = std::iter::repeat_with(|| weighing(weight, queue, steps))
        .find(|pipeline| !others.contains(&share_of(pipeline)))
        .expect("there are more shares than pipelines here");
    others.push(share_of(&pipeline));
    pipeline.jobs().to_vec()
}

fn plain(queue: &str, n: usize) -> Vec<NewJob> {
    let spec: Arc<JobSpec> = Arc::new(command().queue(queue).build().expect("a valid spec"));
    (0..n).map(|_| NewJob::new(Arc::clone(&spec))).collect()
}

/// One tenant's work, by whom it belongs to.
struct Shop {
    world: World,
    agent: Agent,
    owners: BTreeMap<JobId, usize>,
    /// What each of those who have work should get, of a whole.
    parts: Vec<f64>,
    begun: BTreeMap<JobId, usize>,
    served: Vec<f64>,
    /// By how much anybody was behind the ideal at most, in jobs.
    worst: f64,
}

impl Shop {
    fn open(slots: u32) -> Self {
        let config = SchedulerConfig { ageing: None, ..SchedulerConfig::default() };
        let (world, agent) = (World::with(config), Agent::new("w", slots));
        let (owners, parts, begun, served) = (BTreeMap::new(), Vec::new(), BTreeMap::new(), Vec::new());
        Self { world, agent, owners, parts, begun, served, worst: 0.0 }
    }

    /// Somebody comes with work, who should get this part of all that is served.
    fn come(&mut self, jobs: Vec<NewJob>, part: f64) -> usize {
        let who = self.parts.len();
        self.parts.push(part);
        self.served.push(0.0);
        self.owners.extend(self.world.submit_all(jobs).into_iter().map(|job| (job, who)));
        who
    }

    /// Gives what is free to whoever's turn it is, and holds that to a fluid that serves all of them at once.
    fn serve(&mut self) {
        self.world.settle(&mut self.agent);
        for job in self.agent.jobs() {
            if self.begun.contains_key(&job) {
                continue;
            }
            let of = self.owners[&job];
            self.begun.insert(job, of);
            self.served[of] += 1.0;
            let all = self.begun.len() as f64;
            let behind = self.parts.iter().zip(&self.served).map(|(part, served)| part * all - served);
            self.worst = behind.fold(self.worst, f64::max);
        }
    }

    /// As many runs end together each time, so often.
    fn turns(&mut self, turns: usize, together: usize) {
        for _ in 0..turns {
            self.serve();
            for job in self.agent.jobs().into_iter().take(together) {
                self.agent.report(job, success());
            }
        }
        self.serve();
    }

    fn served(&self, who: usize) -> usize {
        self.begun.values().filter(|of| **of == who).count()
    }
}

/// What a queue weighs, and each of the pipelines in it.
type Queue = (u32, Vec<u32>);

/// By how many jobs anybody is behind the ideal at most: some pipelines in each queue, beside jobs of none.
fn lag(queues: &[Queue], slots: u32, together: usize, turns: usize) -> f64 {
    let mut shop = Shop::open(slots);
    let all: f64 = queues.iter().map(|(weight, _)| f64::from(*weight)).sum();
    for (n, (weight, pipelines)) in queues.iter().enumerate() {
        let name = format!("q{n}");
        let queue = Name::new(&name).expect("a name");
        let policy = QueuePolicy { tenant: Tenant::default(), queue, paused: false, weight: *weight };
        now(shop.world.store.set_queue(policy)).expect("the store keeps it");
        let within = f64::from(pipelines.iter().sum::<u32>() + 1);
        let part = f64::from(*weight) / all / within;
        // Nobody runs out of work.
        let jobs = turns * together + 2 * slots as usize + 2;
        shop.come(plain(&name, jobs), part);
        let mut shares = Vec::new();
        for weight in pipelines {
            shop.come(pipeline_beside(&mut shares, *weight, &name, jobs), part * f64::from(*weight));
        }
    }
    shop.turns(turns, together);
    shop.worst
}

fn queues() -> impl Strategy<Value = Vec<Queue>> {
    let weights = prop::collection::vec(1_u32..12, 0..5);
    prop::collection::vec((1_u32..6, weights), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_pipeline_is_far_behind_the_ideal_when_slots_come_free_one_by_one(
        queues in queues(),
        slots in 1_u32..12,
    ) {
        let worst = lag(&queues, slots, 1, 80);
        // What is asked for in one pick: the slots, and two for each that has ended.
        prop_assert!(worst <= f64::from(slots + 2), "{worst} jobs behind, queues {queues:?}, {slots} slots");
    }

    #[test]
    fn what_is_claimed_ahead_of_pipelines_adds_no_more_than_itself(
        queues in queues(),
        together in 2_usize..8,
    ) {
        let most = 2.0 + 4.0 * together as f64;
        let worst = lag(&queues, 8, together, 30);
        prop_assert!(worst <= most, "{worst} jobs behind, queues {queues:?}, {together} together");
    }
}

#[test]
fn a_pipeline_does_not_wait_for_the_thousands_of_steps_of_another() {
    for steps in [5, 40] {
        let (mut shop, mut shares) = (Shop::open(8), Vec::new());
        shop.come(pipeline_beside(&mut shares, 1, "default", 100_000), 0.5);
        shop.turns(50, 1);
        let late = shop.come(pipeline_beside(&mut shares, 1, "default", steps), 0.5);
        shop.turns(2 * steps + 16, 1);
        assert_eq!(shop.served(late), steps, "every other one, behind what was claimed before");
    }
}

#[test]
fn pipelines_and_jobs_of_none_do_not_wait_for_the_backlog_of_each_other() {
    for steps in [5, 40] {
        let mut shop = Shop::open(8);
        shop.come(plain("default", 10_000), 0.5);
        shop.turns(50, 1);
        let late = shop.come(pipeline_of("default", steps).jobs().to_vec(), 0.5);
        shop.turns(2 * steps + 16, 1);
        assert_eq!(shop.served(late), steps);
    }
    let mut shop = Shop::open(8);
    shop.come(pipeline_of("default", 10_000).jobs().to_vec(), 0.5);
    shop.turns(50, 1);
    let late = shop.come(plain("default", 20), 0.5);
    shop.turns(56, 1);
    assert_eq!(shop.served(late), 20);
}

#[test]
fn a_heavy_pipeline_has_as_many_turns_as_it_weighs() {
    for small in [true, false] {
        let mut shop = Shop::open(8);
        let steps = if small { 16 } else { 4_000 };
        // Small ones of one weight have their turns together.
        let many = |weight| -> Vec<NewJob> {
            let one = || weighing(weight, "default", steps).jobs().to_vec();
            std::iter::repeat_with(one).take(4_000 / steps).flatten().collect()
        };
        let who = [shop.come(plain("default", 4_000), 0.1), shop.come(many(9), 0.9)];
        shop.turns(992, 1);
        let [plain, heavy] = who.map(|who| shop.served(who));
        assert_eq!(plain + heavy, 1_000);
        assert!((95..=105).contains(&plain), "{plain} of 1,000");
    }
}

#[test]
fn pipelines_that_come_into_one_share_stand_in_one_line() {
    let mut shop = Shop::open(1);
    let first = pipeline_of("default", 30);
    let second = std::iter::repeat_with(|| pipeline_of("default", 30))
        .find(|pipeline| share_of(pipeline) == share_of(&first))
        .expect("one of some more comes into it too");
    let first = shop.come(first.jobs().to_vec(), 0.5);
    shop.world.pass(std::time::Duration::from_millis(1));
    let second = shop.come(second.jobs().to_vec(), 0.5);
    shop.turns(29, 1);
    assert_eq!([shop.served(first), shop.served(second)], [30, 0]);
}

#[test]
fn steps_that_ask_the_same_are_the_same_for_workers() {
    let (mut shop, mut shares) = (Shop::open(1), Vec::new());
    for _ in 0..10 {
        shop.come(pipeline_beside(&mut shares, 1, "default", 30), 0.1);
    }
    shop.come(plain("default", 30), 0.1);
    shop.serve();
    let classes: Vec<_> = shop.world.machine.heads.iter().map(|head| head.class).collect();
    assert_eq!(classes.len(), 11, "a lane each");
    assert!(classes.windows(2).all(|pair| pair[0] == pair[1]), "{classes:?}");
}
