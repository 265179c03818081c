//! Jobs say where they run, and beside whom.

use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::News;
use hodei_core::job::{
    Failure, FailureClass, Finish, NewJob, Priority, Resources, RetryPolicy, Runs, Selector, State,
};
use hodei_core::text::TextMap;
use hodei_core::{JobId, Name, Tenant};

use super::world::{Agent, World, command};
use crate::machine::placement::Rule;
use crate::machine::{Input, Policy, SchedulerConfig, Why};

const GIB: u64 = 1 << 30;

fn level(level: u8) -> Priority {
    Priority::new(level).expect("a level")
}

fn labelled(name: &'static str, slots: u32, memory: u64, labels: &[(&str, &str)]) -> Agent {
    let mut agent = Agent::with(name, slots, Resources::none().memory(memory), vec![Runs::Command]);
    let mut offer = (*agent.state.offer).clone();
    offer.labels = TextMap::new(labels.iter().copied()).expect("texts");
    agent.state.offer = Arc::new(offer);
    agent
}

fn in_zone(zone: &str) -> Selector {
    Selector::is("zone", zone)
}

fn why(world: &World, job: JobId) -> Option<Why> {
    world.machine.why(&world.job(job))
}

fn pending(world: &World, jobs: &[JobId]) -> usize {
    jobs.iter().filter(|job| world.job(**job).state == State::Pending).count()
}

#[test]
fn a_job_runs_where_it_says_and_is_claimed_for_nobody_else() {
    let mut world = World::new();
    let mut a = labelled("a", 4, 0, &[("zone", "a"), ("disk", "ssd")]);
    let mut b = labelled("b", 4, 0, &[("zone", "b")]);
    world.settle(&mut a);
    let pinned = world.submit(command().require(in_zone("b")), 2);
    let fast = world.submit(command().prefer(Selector::Has("disk".into())), 1)[0];
    world.settle(&mut a);
    assert_eq!((a.jobs(), pending(&world, &pinned)), (vec![fast], 2));
    assert_eq!(why(&world, pinned[0]), Some(Why::Requires(Name::literal("a"), in_zone("b"))));
    world.settle(&mut b);
    assert_eq!((a.jobs(), b.jobs()), (vec![fast], pinned));
}

#[test]
fn of_those_that_do_not_do_the_one_is_named_that_comes_nearest() {
    let mut world = World::new();
    let rule = Rule::anywhere().require(Selector::Lacks("spot".into()));
    world.tell(Input::Policy(Box::new(Policy::default().rule(Name::literal("default"), rule))));
    let workers: [(_, &[(&str, &str)]); 3] = [
        ("a", &[("zone", "a"), ("spot", "yes")]),
        ("b", &[("zone", "b"), ("disk", "hdd")]),
        ("c", &[("zone", "a"), ("spot", "yes"), ("disk", "ssd")]),
    ];
    for (name, labels) in workers {
        world.settle(&mut labelled(name, 1, 0, labels));
    }
    let spec = || command().require(in_zone("b")).require(Selector::is("disk", "ssd"));
    let job = world.submit(spec(), 1)[0];
    assert_eq!(why(&world, job), Some(Why::Requires(Name::literal("b"), Selector::is("disk", "ssd"))));
    let ruled = world.submit(command().require(in_zone("a")), 1)[0];
    let lacks = Selector::Lacks("spot".into());
    assert_eq!(why(&world, ruled), Some(Why::Rule(Name::literal("a"), lacks)));
}

#[test]
fn jobs_of_a_group_are_kept_apart_and_come_when_there_is_a_worker_without_one() {
    let mut world = World::new();
    let (mut a, mut b) = (labelled("a", 4, 0, &[]), labelled("b", 4, 0, &[]));
    world.settle(&mut a);
    world.settle(&mut b);
    let replicas = world.submit(command().group("db").apart("db"), 3);
    // Another tenant means somebody else by that name.
    let other = Tenant::new("other").expect("a name");
    let spec = command().group("db").apart("db").build().expect("a valid spec");
    world.submit_all(vec![NewJob::of(other, spec)]);
    let plain = world.submit(command(), 2);
    world.settle(&mut a);
    world.settle(&mut b);
    let of = |agent: &Agent| agent.jobs().iter().filter(|job| replicas.contains(job)).count();
    assert_eq!((of(&a), of(&b), a.jobs().len() + b.jobs().len()), (1, 1, 2 + 1 + plain.len()));
    let waits =
        *replicas.iter().find(|job| !a.jobs().contains(job) && !b.jobs().contains(job)).expect("one waits");
    let group = "db".to_owned();
    assert_eq!(why(&world, waits), Some(Why::ApartFrom(Name::literal("a"), group.clone())));
    // Who says nothing himself is kept away all the same, from those who shun him.
    let shunned = world.submit(command().group("db"), 1)[0];
    world.settle(&mut a);
    assert_eq!(why(&world, shunned), Some(Why::ApartFrom(Name::literal("a"), group)));
    b.finish_all();
    world.settle(&mut b);
    assert!(b.jobs().contains(&waits), "it was first");
    assert!(!b.jobs().contains(&shunned));
}

#[test]
fn a_job_comes_beside_another_one_and_is_claimed_when_that_is_there() {
    let mut world = World::new();
    let (mut a, mut b) = (labelled("a", 3, 0, &[]), labelled("b", 8, 0, &[("zone", "b")]));
    world.settle(&mut a);
    world.settle(&mut b);
    let guests = world.submit(command().beside("cache"), 3);
    world.settle(&mut a);
    assert_eq!(pending(&world, &guests), 3, "nobody is there to be beside");
    let nobody = Why::NotBeside(Name::literal("a"), "cache".into());
    assert_eq!(why(&world, guests[0]), Some(nobody));
    let host = world.submit(command().group("cache").require(Selector::Lacks("zone".into())), 1)[0];
    world.settle(&mut a);
    world.settle(&mut b);
    assert_eq!(
        (a.jobs(), b.jobs()),
        (vec![guests[0], guests[1], host], vec![]),
        "there is no slot for the third"
    );
    let full = Why::Lacks { worker: Name::literal("a"), resource: "slots".into(), needs: 1, free: 0 };
    assert_eq!(why(&world, guests[2]), Some(full));
    // A run goes on when its company has gone, and nobody comes any more.
    a.report(host, super::world::success());
    world.settle(&mut a);
    world.pass(Duration::from_secs(10));
    world.settle(&mut a);
    assert_eq!(a.jobs(), guests[..2]);
    assert_eq!(world.job(guests[2]).state, State::Pending, "it has gone back");
}

#[test]
fn those_who_seek_each_other_begin_with_one_and_gather_there() {
    let mut world = World::new();
    let (mut a, mut b) = (labelled("a", 3, 0, &[]), labelled("b", 8, 0, &[]));
    world.settle(&mut a);
    world.settle(&mut b);
    let pack = world.submit(command().group("pack").beside("pack"), 8);
    for _ in 0..3 {
        world.settle(&mut a);
        world.settle(&mut b);
    }
    assert_eq!((a.jobs().len(), b.jobs().len()), (0, 8), "where most is free");
    assert!(pack.iter().all(|job| b.jobs().contains(job)));
}

#[test]
fn room_is_made_by_whoever_is_in_the_way_and_by_nobody_who_is_sought() {
    let config = SchedulerConfig { preempt: Some(10), ..SchedulerConfig::default() };
    let (mut world, mut agent) = (World::with(config.clone()), labelled("w", 4, 0, &[]));
    let plain = world.submit(command().priority(level(10)), 2);
    let loud = world.submit(command().priority(level(20)).group("loud"), 1)[0];
    world.settle(&mut agent);
    world.submit(command().priority(level(50)).apart("loud"), 1);
    let told = world.hear(&mut agent).expect("news").expect("an answer");
    let stopped: Vec<JobId> = told.stop.iter().map(|stop| stop.job).collect();
    assert_eq!(stopped, [loud], "the others would be stopped in vain: {plain:?}");

    let (mut world, mut agent) = (World::with(config), labelled("w", 2, 0, &[]));
    let host = world.submit(command().priority(level(5)).group("host"), 1)[0];
    let plain = world.submit(command().priority(level(20)), 1)[0];
    world.settle(&mut agent);
    assert_eq!(agent.jobs().len(), 2);
    world.submit(command().priority(level(50)).beside("host"), 1);
    let told = world.hear(&mut agent).expect("news").expect("an answer");
    let stopped: Vec<JobId> = told.stop.iter().map(|stop| stop.job).collect();
    assert_eq!(stopped, [plain], "without {host} there is nobody to be beside");
}

#[test]
fn a_job_that_is_given_more_memory_stays_where_it_says() {
    let mut world = World::new();
    let mut large = labelled("large", 4, 64 * GIB, &[("zone", "a")]);
    let mut small = labelled("small", 4, 3 * GIB, &[("zone", "b")]);
    world.settle(&mut large);
    world.settle(&mut small);
    let spec = command().resources(Resources::none().memory(2 * GIB)).retry(RetryPolicy::attempts(3));
    let job = world.submit(spec.require(in_zone("b")), 1)[0];
    world.settle(&mut small);
    let failure = Failure::new(FailureClass::OutOfMemory, "no");
    small.report(job, News::Ended(Box::new(Finish::failed(failure))));
    world.settle(&mut small);
    world.pass(Duration::from_secs(60));
    world.settle(&mut large);
    world.settle(&mut small);
    assert_eq!((large.jobs(), small.jobs()), (vec![], vec![job]));
    let given = world.machine.sessions.get(&Name::literal("small")).unwrap().assigned[&job].memory;
    assert_eq!(given, 3 * GIB, "as much as a worker has that it may be on");
}

#[test]
fn each_worker_of_a_gang_is_as_the_job_says() {
    let mut world = World::new();
    let mut agents = [("a", "a"), ("b", "b"), ("c", "b"), ("d", "b")]
        .map(|(name, zone)| labelled(name, 2, 0, &[("zone", zone)]));
    agents.iter_mut().for_each(|agent| world.settle(agent));
    let lonely = world.submit(command().group("lonely").require(in_zone("b")), 1)[0];
    agents.iter_mut().for_each(|agent| world.settle(agent));
    let gang = || command().resources(Resources::none().workers(2)).require(in_zone("b")).apart("lonely");
    let gangs = world.submit(gang(), 3);
    agents.iter_mut().for_each(|agent| world.settle(agent));
    let at = agents.iter().position(|agent| agent.jobs().contains(&lonely)).expect("it runs");
    let run: Vec<JobId> = agents.iter().flat_map(Agent::jobs).filter(|job| gangs.contains(job)).collect();
    assert_eq!((run.len(), agents[at].jobs().len()), (2, 1), "two workers have two slots each");
    let wide = world.submit(gang().resources(Resources::none().workers(4)), 1)[0];
    agents.iter_mut().for_each(|agent| world.settle(agent));
    let apart = Why::ApartFrom(agents[at].state.worker.clone(), "lonely".into());
    assert_eq!(why(&world, wide), Some(apart));
    agents[at].finish_all();
    world.settle(&mut agents[at]);
    assert_eq!(why(&world, wide), Some(Why::TooFew { needs: 4, there: 3 }));
}
