//! Where jobs run, and why they wait.

use std::time::Duration;

use hodei_core::gateway::News;
use hodei_core::job::{Finish, Resources, Runs, State};
use hodei_core::text::TextMap;
use hodei_core::{JobId, Name, Timestamp};

use super::world::{Agent, World, command};
use crate::machine::placement::{Rule, Selector};
use crate::machine::{Input, Policy, SchedulerConfig, Why};
use crate::queue::Ageing;

fn level(level: u8) -> hodei_core::job::Priority {
    hodei_core::job::Priority::new(level).expect("a level")
}

fn cpu(millis: u64) -> Resources {
    Resources::none().cpu_millis(millis)
}

/// An agent of four CPUs.
fn four_cpus(name: &'static str) -> Agent {
    Agent::with(name, 16, cpu(4_000), vec![Runs::Command])
}

fn labelled(name: &'static str, labels: &[(&str, &str)]) -> Agent {
    let mut agent = Agent::new(name, 4);
    let mut offer = (*agent.state.offer).clone();
    offer.labels = TextMap::new(labels.iter().copied()).expect("texts");
    agent.state.offer = std::sync::Arc::new(offer);
    agent
}

fn set(world: &mut World, policy: Policy) {
    world.tell(Input::Policy(Box::new(policy)));
}

fn why(world: &World, job: JobId) -> Option<Why> {
    world.machine.why(&world.job(job))
}

#[test]
fn the_jobs_of_a_queue_run_where_its_rule_says_until_it_says_otherwise() {
    let mut world = World::new();
    let (mut a, mut b) = (labelled("a", &[("zone", "a")]), labelled("b", &[("zone", "b")]));
    world.sync(&mut a);
    world.sync(&mut b);
    let queue = Name::literal("pinned");
    let rule = Rule::anywhere().require(Selector::is("zone", "b"));
    set(&mut world, Policy::default().rule(queue, rule));
    let pinned = world.submit(command().queue("pinned"), 6);
    world.settle(&mut a);
    world.settle(&mut b);
    assert_eq!((a.jobs().len(), b.jobs().len()), (0, 4), "four slots, and nobody else may");
    assert!(pinned.iter().filter(|job| world.job(**job).state == State::Pending).count() >= 1);
    set(&mut world, Policy::default());
    world.settle(&mut a);
    assert_eq!(a.jobs().len(), 2);
}

#[test]
fn a_rule_that_applies_to_nobody_is_named() {
    let mut world = World::new();
    let mut agent = labelled("w", &[("zone", "a")]);
    world.sync(&mut agent);
    let selector = Selector::is("zone", "moon");
    let rule = Rule::anywhere().require(selector.clone());
    set(&mut world, Policy::default().rule(Name::literal("default"), rule));
    let job = world.submit(command(), 1)[0];
    assert_eq!(world.job(job).state, State::Pending, "nobody here could run it");
    assert_eq!(why(&world, job), Some(Why::Rule(Name::literal("w"), selector)));
}

#[test]
fn a_large_job_is_not_starved_by_small_ones_that_keep_coming() {
    let mut world = World::new();
    let mut agent = four_cpus("w");
    world.sync(&mut agent);
    world.submit(command().resources(cpu(1_000)), 4);
    world.settle(&mut agent);
    let large = world.submit(command().resources(cpu(4_000)), 1)[0];
    for _ in 0..20 {
        // Each small one that ends is followed by another.
        world.submit(command().resources(cpu(1_000)), 1);
        if let Some(first) = agent.jobs().first().copied() {
            agent.report(first, super::world::success());
        }
        world.settle(&mut agent);
        if agent.jobs() == [large] {
            return;
        }
    }
    panic!("it waits for ever: {:?}", world.job(large).state);
}

#[test]
fn what_is_kept_for_a_large_job_is_said() {
    let mut world = World::new();
    let mut agent = four_cpus("w");
    world.sync(&mut agent);
    let small = world.submit(command().resources(cpu(1_000)), 2);
    world.settle(&mut agent);
    let large = world.submit(command().priority(level(40)).resources(cpu(4_000)), 1)[0];
    let late = world.submit(command().resources(cpu(1_000)), 1)[0];
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), small, "the late one would delay the large one");
    let lacks =
        Why::Lacks { worker: Name::literal("w"), resource: "cpu_millis".into(), needs: 4_000, free: 2_000 };
    assert_eq!(why(&world, large), Some(lacks));
    assert_eq!(why(&world, late), Some(Why::Kept(Name::literal("w"))));
    assert_eq!(world.machine.snapshot().kept, Some(Name::literal("w")));
    agent.finish_all();
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), [large]);
}

#[test]
fn work_that_runs_makes_room_for_work_far_above_it_and_comes_back() {
    let config = SchedulerConfig { preempt: Some(10), ..SchedulerConfig::default() };
    let (mut world, mut agent) = (World::with(config), four_cpus("w"));
    let low = world.submit(command().priority(level(10)).resources(cpu(1_000)), 2);
    let middle = world.submit(command().priority(level(45)).resources(cpu(2_000)), 1)[0];
    world.settle(&mut agent);
    assert_eq!(agent.jobs().len(), 3);
    agent.report(low[0], News::Started);
    agent.report(low[1], News::Started);
    world.settle(&mut agent);
    let urgent = world.submit(command().priority(level(50)).resources(cpu(1_000)), 1)[0];
    let told = world.hear(&mut agent).expect("news").expect("an answer");
    let stopped: Vec<JobId> = told.stop.iter().map(|stop| stop.job).collect();
    assert_eq!(stopped, [low[1]], "one is enough: the least urgent that came last");
    agent.report(low[1], News::Ended(Box::new(Finish::cancelled())));
    world.settle(&mut agent);
    assert!(agent.jobs().contains(&urgent) && agent.jobs().contains(&middle));
    let back = world.job(low[1]);
    assert!(!agent.jobs().contains(&back.id) && !back.state.is_terminal());
    assert_eq!(back.attempt, 0, "it costs no attempt");
}

/// The jobs that an agent was told to stop since it was asked last.
fn stopped(world: &mut World, agent: &mut Agent) -> Vec<JobId> {
    let told = world.hear(agent).map(|told| told.expect("an answer").stop).unwrap_or_default();
    told.into_iter().map(|stop| stop.job).collect()
}

#[test]
fn room_is_made_wherever_it_costs_the_least() {
    let config = SchedulerConfig { preempt: Some(10), ..SchedulerConfig::default() };
    let mut world = World::with(config);
    let names: [&'static str; 5] = ["a", "b", "c", "d", "e"];
    let levels = [45, 30, 10, 20, 10];
    let mut agents = names.map(|name| Agent::new(name, 1));
    let mut jobs = Vec::new();
    for (agent, born) in agents.iter_mut().zip(levels) {
        // One comes after the other, so each gets what was submitted last.
        jobs.extend(world.submit(command().priority(level(born)), 1));
        world.settle(agent);
        assert_eq!(agent.jobs(), jobs[jobs.len() - 1..]);
        agent.report(jobs[jobs.len() - 1], News::Started);
        world.settle(agent);
    }
    let urgent = world.submit(command().priority(level(50)), 1)[0];
    for _ in 0..20 {
        world.pass(Duration::from_secs(1));
        for (agent, at) in agents.iter_mut().zip(0..) {
            let expected = if at == 2 && agent.jobs().contains(&jobs[2]) { &jobs[2..3] } else { &[] };
            let told = stopped(&mut world, agent);
            assert!(told.is_empty() || told == expected, "{told:?} of worker {at}");
            world.settle(agent);
        }
    }
    assert_eq!(world.machine.snapshot().kept, Some(Name::literal("c")), "others leave it what is freed");
    agents[2].report(jobs[2], News::Ended(Box::new(Finish::cancelled())));
    world.settle(&mut agents[2]);
    assert_eq!(agents[2].jobs(), [urgent]);
    for job in [jobs[4], jobs[2]] {
        // The second one comes back and gets the room of the first.
        agents[4].report(job, super::world::success());
        world.settle(&mut agents[4]);
    }
    assert!(world.machine.could_preempt(level(30)), "one of level 20 runs");
    assert!(!world.machine.could_preempt(level(29)), "those of level 10 have ended");
}

#[test]
fn it_stops_one_that_is_a_little_more_urgent_rather_than_two_of_which_one_is_more_so() {
    let config = SchedulerConfig { preempt: Some(10), ..SchedulerConfig::default() };
    let (mut world, mut agents) = (World::with(config), ["a", "b"].map(four_cpus));
    let mut last = None;
    for (at, born, millis) in [(0, 5, 1_000), (0, 30, 3_000), (1, 10, 4_000)] {
        let job = world.submit(command().priority(level(born)).resources(cpu(millis)), 1)[0];
        world.settle(&mut agents[at]);
        assert_eq!(agents[at].jobs().last(), Some(&job));
        agents[at].report(job, News::Started);
        world.settle(&mut agents[at]);
        last = Some(job);
    }
    world.submit(command().priority(level(50)).resources(cpu(4_000)), 1);
    world.pass(Duration::from_millis(10));
    let told = agents.each_mut().map(|agent| stopped(&mut world, agent));
    assert_eq!(told, [Vec::new(), Vec::from_iter(last)]);
}

/// More workers than are looked at together run work of the lowest level, and not enough of it.
#[test]
fn room_is_looked_for_on_all_workers_in_turn() {
    let config = SchedulerConfig { preempt: Some(10), ..SchedulerConfig::default() };
    let mut world = World::with(config);
    let mut agents: Vec<Agent> = (0..70)
        .map(|n| {
            let name: &'static str = format!("w{n:02}").leak();
            four_cpus(name)
        })
        .collect();
    let last = agents.len() - 1;
    let mut victim = None;
    for (n, agent) in agents.iter_mut().enumerate() {
        let jobs = if n == last { vec![(40, 4_000)] } else { vec![(50, 3_000), (5, 1_000)] };
        for (born, millis) in jobs {
            let job = world.submit(command().priority(level(born)).resources(cpu(millis)), 1)[0];
            world.settle(agent);
            assert_eq!(agent.jobs().last(), Some(&job));
            agent.report(job, News::Started);
            world.settle(agent);
            victim = Some(job);
        }
    }
    world.submit(command().priority(level(50)).resources(cpu(2_000)), 1);
    for _ in 0..5 {
        world.pass(Duration::from_millis(10));
    }
    for (n, agent) in agents.iter_mut().enumerate() {
        let told = stopped(&mut world, agent);
        assert_eq!(told, if n == last { Vec::from_iter(victim) } else { Vec::new() }, "worker {n}");
    }
}

#[test]
fn nothing_is_stopped_in_vain_nor_for_work_that_is_not_far_above() {
    let config = SchedulerConfig { preempt: Some(10), ..SchedulerConfig::default() };
    let (mut world, mut agent) = (World::with(config), four_cpus("w"));
    world.submit(command().priority(level(10)).resources(cpu(1_000)), 2);
    world.submit(command().priority(level(45)).resources(cpu(2_000)), 1);
    world.settle(&mut agent);
    world.submit(command().priority(level(19)).resources(cpu(1_000)), 1);
    world.submit(command().priority(level(50)).resources(cpu(3_000)), 1);
    assert!(world.hear(&mut agent).is_none_or(|told| told.expect("an answer").stop.is_empty()));
}

#[test]
fn jobs_of_one_level_do_not_stop_each_other_however_long_they_wait() {
    let config = SchedulerConfig { preempt: Some(5), ..SchedulerConfig::default() };
    let (mut world, mut agent) = (World::with(config), Agent::new("w", 1));
    let jobs = world.submit(command(), 2);
    world.settle(&mut agent);
    for _ in 0..600 {
        world.pass(Duration::from_secs(2));
        if let Some(heard) = world.hear(&mut agent) {
            assert_eq!(heard.expect("an answer").stop, []);
        }
        world.settle(&mut agent);
    }
    assert_eq!(agent.jobs(), jobs[..1]);
}

#[test]
fn waiting_raises_a_lane_above_one_that_is_always_full() {
    let ageing = Some(Ageing { every: Duration::from_secs(10), ceiling: level(63) });
    let mut world = World::with(SchedulerConfig { ageing, ..SchedulerConfig::default() });
    let mut agent = Agent::new("w", 1);
    let poor = world.submit(command().queue("poor").priority(level(30)), 1)[0];
    // Others come faster than they are served.
    for second in 0..100 {
        world.submit(command().priority(level(32)), 2);
        world.settle(&mut agent);
        if agent.jobs() == [poor] {
            assert!(second >= 20, "two levels are 20 s");
            return;
        }
        agent.finish_all();
        world.pass(Duration::from_secs(1));
    }
    panic!("it waits for ever");
}

#[test]
fn a_snapshot_tells_of_workers_and_of_what_waits() {
    let mut world = World::new();
    let mut agent = Agent::new("w", 3);
    world.submit(command(), 2);
    world.settle(&mut agent);
    let snapshot = world.machine.snapshot();
    let loads: Vec<_> =
        snapshot.workers.iter().map(|load| (load.worker.as_str(), load.slots, load.jobs)).collect();
    assert_eq!((loads, snapshot.waiting, snapshot.draining), (vec![("w", 3, 2)], 0, false));
    assert!(Timestamp::EPOCH < world.clock_now());
}
