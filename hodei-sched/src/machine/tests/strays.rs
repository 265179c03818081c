//! What an agent runs without a lease takes room until it has ended.

use hodei_core::gateway::{Desired, Peer, RunningJob};
use hodei_core::job::{Epoch, JobSpecBuilder, Priority, Resources, Runs};
use hodei_core::{JobId, Name, Tenant};
use proptest::prelude::*;

use super::world::{Agent, World, assigned, command, success};
use crate::machine::placement::Rule;
use crate::machine::{Input, Policy, SchedulerConfig, Why};

/// What each worker has.
const SLOTS: u32 = 4;
const CPU: u64 = 1_000;

fn cpu(millis: u64) -> Resources {
    Resources::none().cpu_millis(millis)
}

fn agent() -> Agent {
    Agent::with("w", SLOTS, cpu(CPU), vec![Runs::Command])
}

/// A job that nobody here knows.
fn foreign(n: u64) -> JobId {
    JobId::from_parts(n, Tenant::default().slot(), 7)
}

fn waiting_news(world: &mut World, agent: &mut Agent) -> Vec<JobId> {
    let heard: Option<Desired> = world.hear(agent).map(|heard| *heard.expect("an answer"));
    heard.map(|heard| assigned(&heard)).unwrap_or_default()
}

#[test]
fn an_agent_that_comes_with_runs_of_another_node_is_given_only_what_is_left() {
    let (mut world, mut agent) = (World::new(), agent());
    agent.runs(foreign(1), 3, cpu(800));
    let small = world.submit(command().resources(cpu(200)), 1);
    let large = world.submit(command().resources(cpu(500)), 1);
    let heard = world.news(&mut agent);
    assert_eq!(heard.stop.len(), 1, "it is to end");
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), [foreign(1), small[0]], "it runs on, and takes its room");
    agent.state.running.remove(0);
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), [small[0], large[0]]);
}

#[test]
fn a_slot_is_taken_too() {
    let (mut world, mut agent) = (World::new(), agent());
    (1..=3).for_each(|n| agent.runs(foreign(n), 1, Resources::none()));
    let jobs = world.submit(command(), 3);
    world.settle(&mut agent);
    assert_eq!(agent.jobs()[3..], jobs[..1]);
    agent.state.running.drain(..2);
    world.settle(&mut agent);
    assert_eq!(agent.jobs()[1..], jobs[..]);
}

#[test]
fn what_is_assigned_and_unheard_waits_while_the_agent_has_no_room_for_it() {
    let (mut world, mut agent) = (World::new(), agent());
    let jobs = world.submit(command().resources(cpu(600)), 1);
    let call = agent.state.clone();
    assert_eq!(assigned(&world.news(&mut agent)), jobs);
    // That answer was lost. Meanwhile the agent began what another node had given it.
    (agent.state.running, agent.state.seen) = (call.running, call.seen);
    agent.runs(foreign(1), 1, cpu(600));
    let heard = world.news(&mut agent);
    assert_eq!((assigned(&heard), heard.stop.len()), (vec![], 1));
    assert!(world.sync(&mut agent).is_none(), "it is not answered over and over");
    world.submit(command(), 1);
    assert_eq!(waiting_news(&mut world, &mut agent), [], "nothing more comes there meanwhile");
    agent.state.running.clear();
    world.settle(&mut agent);
    assert_eq!(agent.jobs().len(), 2);
}

#[test]
fn a_run_of_an_older_epoch_takes_room_until_it_has_ended() {
    let (mut world, mut agent) = (World::new(), agent());
    let jobs = world.submit(command().resources(cpu(500)), 1);
    world.settle(&mut agent);
    let older: RunningJob = agent.state.running[0].clone();
    // The store gives it to this node again, under a higher epoch, before the agent has said anything.
    let mut job = world.job(jobs[0]);
    job.epoch = Epoch::from_number(2);
    let claimed = hodei_core::store::Claimed { job: std::sync::Arc::new(job), inputs: [].into() };
    let now = world.clock_now();
    world.machine.claimed(claimed, now);
    world.tell(Input::Tick);
    assert_eq!(waiting_news(&mut world, &mut agent), jobs);
    assert_eq!(agent.state.running.len(), 2);
    let more = world.submit(command().resources(cpu(500)), 1);
    world.settle(&mut agent);
    assert_eq!(agent.state.running.len(), 2, "both take room");
    agent.state.running.retain(|run| *run != older);
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), [jobs[0], more[0]]);
}

/// What a run of a job takes and says of its place.
fn said(spec: JobSpecBuilder) -> Resources {
    spec.build().expect("a valid spec").resources().clone()
}

/// A run of another node, or one that was given up, was no company for anybody: what is kept apart from it came beside it.
#[test]
fn who_is_kept_apart_from_a_run_stays_away_until_it_has_ended() {
    for (theirs, ours) in [
        (command().group("loud"), command().apart("loud")),
        (command().apart("loud"), command().group("loud")),
    ] {
        let (mut world, mut agent) = (World::new(), agent());
        agent.runs(foreign(1), 3, said(theirs.clone()));
        let jobs = [world.submit(ours.clone(), 1), world.submit(command(), 1)].concat();
        world.settle(&mut agent);
        assert_eq!(agent.jobs(), [foreign(1), jobs[1]], "the other one may come");
        agent.state.running.remove(0);
        world.settle(&mut agent);
        assert_eq!(agent.jobs(), [jobs[1], jobs[0]]);
        // Another tenant's groups are others.
        let (mut world, mut agent) = (World::new(), self::agent());
        agent.runs(foreign(1), 3, said(theirs));
        agent.state.running[0].tenant = Tenant::new("other").expect("a name");
        world.submit(ours, 1);
        world.settle(&mut agent);
        assert_eq!(agent.jobs().len(), 2);
    }
}

#[test]
fn the_rule_of_its_queue_keeps_others_away_from_a_run() {
    let (mut world, mut agent) = (World::new(), agent());
    let rule = Rule::anywhere().apart();
    let policy = ["mail", "bulk"]
        .into_iter()
        .fold(Policy::default(), |policy, queue| policy.rule(Name::literal(queue), rule.clone()));
    world.tell(Input::Policy(Box::new(policy)));
    agent.runs(foreign(1), 1, Resources::none());
    agent.state.running[0].queue = Name::literal("mail");
    let waits = world.submit(command().queue("mail"), 1);
    let begins = world.submit(command().queue("bulk"), 1);
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), [foreign(1), begins[0]]);
    agent.state.running.remove(0);
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), [begins[0], waits[0]]);
}

#[test]
fn what_is_about_to_end_is_no_company() {
    let (mut world, mut agent) = (World::new(), agent());
    agent.runs(foreign(1), 1, said(command().group("pack")));
    world.submit(command().beside("pack"), 1);
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), [foreign(1)]);
    // The first of those that seek each other begins where it likes.
    let first = world.submit(command().group("pack").beside("pack"), 1);
    world.settle(&mut agent);
    assert!(
        agent.jobs().len() == 3 && agent.jobs().contains(&first[0]),
        "and the one that sought it follows"
    );
}

fn gang(workers: u32) -> JobSpecBuilder {
    command().resources(Resources::none().workers(workers))
}

fn settle(world: &mut World, agents: &mut [&mut Agent]) {
    for _ in 0..3 {
        agents.iter_mut().for_each(|agent| world.settle(agent));
    }
}

#[test]
fn a_gang_of_an_older_epoch_keeps_room_on_all_of_its_workers_until_it_has_ended() {
    let mut world = World::new();
    let (mut host, mut other) = (Agent::new("a", 3), Agent::new("b", 2));
    settle(&mut world, &mut [&mut host, &mut other]);
    let jobs = world.submit(gang(2), 1);
    settle(&mut world, &mut [&mut host, &mut other]);
    assert_eq!((host.jobs(), other.jobs()), (jobs.clone(), vec![]), "the freest one runs it");
    let older = host.state.running[0].clone();
    let mut job = world.job(jobs[0]);
    job.epoch = Epoch::from_number(2);
    let claimed = hodei_core::store::Claimed { job: std::sync::Arc::new(job), inputs: [].into() };
    let now = world.clock_now();
    world.machine.claimed(claimed, now);
    world.tell(Input::Tick);
    settle(&mut world, &mut [&mut host, &mut other]);
    assert_eq!(host.state.running.len(), 2);
    world.submit(command(), 4);
    settle(&mut world, &mut [&mut host, &mut other]);
    assert_eq!((host.jobs().len(), other.jobs().len()), (3, 0), "the older run has a slot of both");
    host.state.running.retain(|run| *run != older);
    settle(&mut world, &mut [&mut host, &mut other]);
    assert_eq!((host.jobs().len(), other.jobs().len()), (3, 1), "they are free when it has ended");
    host.finish_all();
    settle(&mut world, &mut [&mut host, &mut other]);
    other.finish_all();
    settle(&mut world, &mut [&mut host, &mut other]);
    host.finish_all();
    settle(&mut world, &mut [&mut host, &mut other]);
    assert_eq!(world.machine.room(), 5);
}

#[test]
fn a_gang_of_another_node_keeps_room_on_those_of_its_workers_that_are_here() {
    for ends in [true, false] {
        let mut world = World::new();
        let (mut host, mut early, mut late) = (Agent::new("a", 1), Agent::new("b", 2), Agent::new("c", 2));
        settle(&mut world, &mut [&mut early]);
        host.runs(foreign(1), 1, said(gang(3)));
        let peer = |name| Peer { worker: Name::literal(name), labels: Default::default() };
        host.state.running[0].beside = Some([peer("b"), peer("c"), peer("elsewhere"), peer("b")].into());
        settle(&mut world, &mut [&mut host, &mut early]);
        assert_eq!(world.machine.room(), 1, "one slot of two");
        settle(&mut world, &mut [&mut late, &mut host]);
        settle(&mut world, &mut [&mut host, &mut late]);
        assert_eq!(world.machine.room(), 2, "whoever comes keeps it, too");
        if ends {
            host.state.running.clear();
            settle(&mut world, &mut [&mut host]);
            assert_eq!(world.machine.room(), 5);
        } else {
            settle(&mut world, &mut [&mut host.reborn()]);
            assert_eq!(world.machine.room(), 5, "its agent died, and it with it");
        }
    }
}

/// It came again under the number that it had, and was taken for one that has room set aside.
#[test]
fn a_gang_of_another_node_keeps_room_on_a_worker_of_it_that_comes_again() {
    let mut world = World::new();
    let (mut host, mut other) = (Agent::new("a", 1), Agent::new("b", 2));
    settle(&mut world, &mut [&mut other]);
    host.runs(foreign(1), 1, said(gang(2)));
    let peer = Peer { worker: Name::literal("b"), labels: Default::default() };
    host.state.running[0].beside = Some([peer].into());
    settle(&mut world, &mut [&mut host, &mut other]);
    assert_eq!(world.machine.room(), 1);
    let mut again = other.reborn();
    settle(&mut world, &mut [&mut again, &mut host]);
    assert_eq!(world.machine.room(), 1, "one slot of two");
    host.state.running.clear();
    settle(&mut world, &mut [&mut host]);
    assert_eq!(world.machine.room(), 3);
}

fn level(level: u8) -> Priority {
    Priority::new(level).expect("a level")
}

/// One that runs was stopped for what found room when the stray had ended.
#[test]
fn nobody_is_stopped_where_what_is_about_to_end_makes_room() {
    let rule = Rule::anywhere().apart();
    for (theirs, urgent) in [
        (command().resources(cpu(400)), command().resources(cpu(300))),
        (command().group("loud"), command().apart("loud")),
        (command().apart("loud"), command().group("loud")),
        (command().queue("mail"), command().queue("mail")),
    ] {
        let mut world = World::with(SchedulerConfig { preempt: Some(10), ..SchedulerConfig::default() });
        let policy = Policy::default().rule(Name::literal("mail"), rule.clone());
        world.tell(Input::Policy(Box::new(policy)));
        let mut agents = [agent(), Agent::with("v", 1, cpu(CPU), vec![Runs::Command])];
        let mut low = Vec::new();
        for (agent, millis) in agents.iter_mut().zip([500, 600]) {
            low.extend(world.submit(command().priority(level(10)).resources(cpu(millis)), 1));
            world.settle(agent);
            assert_eq!(agent.jobs(), low[low.len() - 1..]);
        }
        let theirs = theirs.build().expect("a valid spec");
        agents[0].runs(foreign(1), 1, theirs.resources().clone());
        agents[0].state.running[1].queue = theirs.queue().clone();
        world.settle(&mut agents[0]);
        let urgent = world.submit(urgent.priority(level(50)), 1);
        for agent in &mut agents {
            let heard = world.hear(agent).map(|heard| heard.expect("an answer").stop).unwrap_or_default();
            assert!(heard.is_empty(), "{heard:?} for {urgent:?}");
            world.settle(agent);
        }
        agents[0].state.running.remove(1);
        world.settle(&mut agents[0]);
        assert_eq!(agents[0].jobs(), [low[0], urgent[0]]);
    }
}

/// A worker that has more to run than there is room for was kept for a large job, and said to have room.
#[test]
fn a_worker_without_room_for_what_it_runs_is_kept_for_nobody_who_could_go_elsewhere() {
    for comes_first in [true, false] {
        let mut world = World::new();
        let mut agents = ["w", "v"].map(|name| Agent::with(name, SLOTS, cpu(CPU), vec![Runs::Command]));
        for (agent, millis) in agents.iter_mut().zip([600, 700]) {
            world.submit(command().resources(cpu(millis)), 1);
            world.settle(agent);
            assert_eq!(agent.jobs().len(), 1);
        }
        let mut large = None;
        for step in [comes_first, !comes_first] {
            if step {
                agents[0].runs(foreign(1), 1, cpu(500));
                world.settle(&mut agents[0]);
            } else {
                large = world.submit(command().resources(cpu(800)), 1).pop();
            }
        }
        world.tell(Input::Tick);
        assert_eq!(world.machine.snapshot().kept, Some(Name::literal("v")), "{comes_first}");
        agents[1].finish_all();
        world.settle(&mut agents[1]);
        assert_eq!(agents[1].jobs(), Vec::from_iter(large));
    }
}

#[test]
fn a_worker_without_room_for_what_it_runs_has_no_slot_for_anybody() {
    let (mut world, mut agent) = (World::new(), agent());
    let jobs = world.submit(command().resources(cpu(600)), 1);
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), jobs);
    agent.runs(foreign(1), 1, cpu(600));
    world.settle(&mut agent);
    let small = world.submit(command().resources(cpu(100)), 1)[0];
    let why = Why::Lacks { worker: Name::literal("w"), resource: "slots".to_owned(), needs: 1, free: 0 };
    assert_eq!(world.machine.why(&world.job(small)), Some(why));
}

/// The one that runs a gang was told to begin although what another one of its workers ran left no room there.
#[test]
fn a_gang_begins_when_none_of_its_workers_runs_more_than_it_has_room_for() {
    let mut world = World::new();
    let (mut host, mut other) = (Agent::new("a", 2), Agent::new("b", 1));
    assert!(world.sync(&mut host).is_none() && world.sync(&mut other).is_none());
    world.pass(std::time::Duration::from_secs(2));
    assert!(world.hear(&mut host).is_some() && world.hear(&mut other).is_some(), "nobody waits now");
    let jobs = world.submit(gang(2), 1);
    other.runs(foreign(1), 1, Resources::none());
    assert_eq!(world.news(&mut other).stop.len(), 1);
    assert!(world.sync(&mut other).is_none());
    assert!(world.sync(&mut host).is_none(), "it has room on one of two workers");
    let alone = world.submit(command(), 1);
    assert_eq!(waiting_news(&mut world, &mut host), alone, "it holds up nobody else");
    assert!(world.sync(&mut host).is_none());
    other.state.running.clear();
    assert!(world.sync(&mut other).is_none());
    assert_eq!(waiting_news(&mut world, &mut host), jobs);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_an_agent_comes_with_it_never_runs_more_than_it_has_room_for(
        steps in prop::collection::vec((0_u8..6, 0_usize..8, 100_u64..700), 1..40),
    ) {
        let (mut world, mut agent) = (World::new(), agent());
        let theirs: Vec<JobId> = (0..40).map(foreign).collect();
        let fits = |agent: &Agent| {
            let runs = &agent.state.running;
            runs.len() <= SLOTS as usize && runs.iter().map(|run| run.resources.cpu_millis).sum::<u64>() <= CPU
        };
        for (n, (step, which, millis)) in (0..).zip(steps) {
            match step {
                0 | 1 => drop(world.submit(command().resources(cpu(millis)), 1)),
                2 => agent.runs(foreign(n), 1, cpu(millis)),
                3 if which < agent.state.running.len() => {
                    // Of what is not known here nothing is reported.
                    let job = agent.jobs()[which];
                    if theirs.contains(&job) {
                        agent.state.running.swap_remove(which);
                    } else {
                        agent.report(job, success());
                    }
                }
                4 => drop(world.sync(&mut agent)),
                _ => world.settle(&mut agent),
            }
            if !fits(&agent) && step == 2 {
                // More than it can have come to run: no agent begins that.
                agent.state.running.pop();
            }
            prop_assert!(fits(&agent), "{:?}", agent.state.running);
        }
        world.settle(&mut agent);
        while !agent.state.running.is_empty() {
            agent.state.running.retain(|run| !theirs.contains(&run.job));
            agent.finish_all();
            world.settle(&mut agent);
        }
        prop_assert_eq!(world.machine.room(), SLOTS as usize, "nothing is kept for ever");
    }
}
