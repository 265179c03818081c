//! What is claimed is what can start soon, and nothing else.

use std::time::Duration;

use hodei_core::Name;
use hodei_core::job::{JobKind, JobSpec, Resources, Runs, State};
use hodei_core::store::{Counts, JobStore, Scope};

use super::world::{Agent, World, assigned, command, now};
use crate::machine::SchedulerConfig;

#[derive(serde::Serialize, serde::Deserialize)]
struct Resize {}

impl JobKind for Resize {
    const KIND: &'static str = "resize";
}

fn counts(world: &World) -> Counts {
    now(world.store.counts(&Scope::All)).expect("the store counts")
}

#[test]
fn of_a_flood_only_what_can_start_is_claimed() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 4));
    world.submit(command(), 1_000);
    world.sync(&mut agent);
    assert_eq!((agent.jobs().len(), counts(&world).of(State::Scheduled)), (4, 4));
}

#[test]
fn the_window_follows_how_fast_jobs_end_and_stays_bounded() {
    let config = SchedulerConfig { prefetch_max: 16, ..SchedulerConfig::default() };
    let (mut world, mut agent) = (World::with(config), Agent::new("w", 8));
    world.submit(command(), 1_000);
    for _ in 0..20 {
        world.sync(&mut agent);
        let leased = counts(&world).of(State::Scheduled);
        assert!(leased <= 8 + 16, "{leased} are claimed");
        agent.finish_all();
    }
    assert!(counts(&world).of(State::Succeeded) >= 100);
}

#[test]
fn capacity_is_never_over_assigned() {
    let capacity = Resources::none().cpu_millis(4_000).memory(1 << 30);
    let mut agent = Agent::with("w", 100, capacity, vec![Runs::Command]);
    let mut world = World::new();
    world.submit(command().resources(Resources::none().cpu_millis(1_500)), 10);
    world.submit(command().resources(Resources::none().cpu_millis(500).memory(512 << 20)), 10);
    for _ in 0..10 {
        world.sync(&mut agent);
        let specs: Vec<_> = agent.jobs().iter().map(|job| world.job(*job).spec).collect();
        let cpu: u64 = specs.iter().map(|spec| spec.resources().cpu_millis).sum();
        let memory: u64 = specs.iter().map(|spec| spec.resources().memory).sum();
        assert!(cpu <= 4_000 && memory <= 1 << 30, "{cpu} thousandths, {memory} bytes");
        agent.finish_all();
    }
    world.sync(&mut agent);
    assert_eq!(counts(&world).of(State::Succeeded), 20);
}

#[test]
fn a_job_that_no_worker_can_run_stays_in_the_store_and_out_of_the_way() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let big = world.submit(command().resources(Resources::none().gpus(1)), 1_000);
    let other = world.submit(JobSpec::of(&Resize {}).expect("valid arguments"), 1_000);
    let small = world.submit(command(), 2);
    assert_eq!(assigned(&world.news(&mut agent)), small);
    assert!([big[0], other[0]].iter().all(|job| world.job(*job).state == State::Pending));
    assert_eq!(counts(&world).of(State::Scheduled), 2);
}

#[test]
fn a_worker_that_comes_later_gets_what_waited_for_it() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    world.sync(&mut agent);
    let jobs = world.submit(JobSpec::of(&Resize {}).expect("valid arguments"), 1);
    let runs = vec![Runs::Handler(Name::literal("resize"))];
    let mut able = Agent::with("able", 1, Resources::none(), runs);
    assert_eq!(assigned(&world.news(&mut able)), jobs);
}

#[test]
fn work_goes_to_the_worker_with_the_most_free_slots() {
    let mut world = World::new();
    let (mut small, mut large) = (Agent::new("a", 2), Agent::new("b", 6));
    world.sync(&mut small);
    world.sync(&mut large);
    world.submit(command(), 4);
    world.hear(&mut small);
    world.hear(&mut large).expect("news").expect("an answer");
    assert_eq!((small.jobs().len(), large.jobs().len()), (0, 4));
}

#[test]
fn what_was_claimed_ahead_for_a_worker_that_went_does_not_block_the_others() {
    let runs = vec![Runs::Handler(Name::literal("resize"))];
    let mut able = Agent::with("able", 20, Resources::none(), runs);
    let (mut world, mut other) = (World::new(), Agent::new("other", 1));
    world.sync(&mut other);
    world.submit(JobSpec::of(&Resize {}).expect("valid arguments"), 200);
    world.news(&mut able);
    able.finish_all();
    world.sync(&mut able);
    let ahead = counts(&world).of(State::Scheduled) - able.jobs().len() as u64;
    assert!(ahead > 2, "{ahead} are claimed ahead");
    world.sync(&mut other);
    // Only the other one is heard of from now on.
    for _ in 0..8 {
        world.pass(Duration::from_secs(2));
        world.hear(&mut other);
        world.sync(&mut other);
    }
    assert_eq!(counts(&world).of(State::Scheduled), 0, "nobody here could run them");
    let jobs = world.submit(command(), 1);
    world.hear(&mut other);
    assert_eq!(other.jobs(), jobs);
}
