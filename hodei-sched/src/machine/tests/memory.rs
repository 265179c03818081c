//! Runs that run out of memory.

use std::collections::HashMap;
use std::time::Duration;

use hodei_core::gateway::News;
use hodei_core::job::{
    Backoff, Failure, FailureClass, Finish, JobSpecBuilder, Outcome, Resources, RetryPolicy, Runs, State,
};
use hodei_core::{JobId, Name};
use proptest::prelude::*;

use super::world::{Agent, World, command, success};
use crate::machine::{Input, SchedulerConfig, Why};

const GIB: u64 = 1 << 30;
const WAIT: Duration = Duration::from_secs(1);

fn memory(gib: u64) -> Resources {
    Resources::none().memory(gib * GIB)
}

/// A job of a kind that asks for memory and may fail.
fn hungry(kind: &str, gib: u64, attempts: u32) -> JobSpecBuilder {
    let policy = RetryPolicy::attempts(attempts).backoff(Backoff::Fixed(WAIT)).exact();
    command().name(kind).resources(memory(gib)).retry(policy)
}

fn worker(name: &'static str, slots: u32, gib: u64) -> Agent {
    Agent::with(name, slots, memory(gib), vec![Runs::Command])
}

fn failed(class: FailureClass) -> News {
    News::Ended(Box::new(Finish::failed(Failure::new(class, "killed"))))
}

fn out_of_memory() -> News {
    failed(FailureClass::OutOfMemory)
}

/// The memory that was set aside for a job that runs, in GiB.
fn given(world: &World, job: JobId) -> Option<u64> {
    let mut sessions = world.machine.sessions.values();
    let assigned = sessions.find_map(|session| session.assigned.get(&job))?;
    assert_eq!(assigned.memory, world.machine.fleet.memory(assigned.class));
    Some(assigned.memory / GIB)
}

/// Has the runs of a job run out of memory until it has ended, and tells what each had.
fn had(world: &mut World, agent: &mut Agent, job: JobId) -> Vec<u64> {
    let mut had = Vec::new();
    while world.job(job).state != State::Failed {
        world.settle(agent);
        had.extend(given(world, job));
        agent.report(job, out_of_memory());
        world.settle(agent);
        world.pass(WAIT);
    }
    had
}

#[test]
fn each_run_that_ran_out_is_followed_by_one_with_twice_as_much_up_to_a_bound() {
    let cases = [
        (16, 64, vec![1, 2, 4, 8, 16, 16]),
        (4, 64, vec![1, 2, 4, 4, 4, 4]),
        (1, 64, vec![1, 1, 1, 1, 1, 1]),
        // No more than the largest worker has.
        (16, 6, vec![1, 2, 4, 6, 6, 6]),
        (16, 1, vec![1, 1, 1, 1, 1, 1]),
    ];
    for (memory_growth, gib, expected) in cases {
        let mut world = World::with(SchedulerConfig { memory_growth, ..SchedulerConfig::default() });
        let mut agent = worker("w", 4, gib);
        let job = world.submit(hungry("a", 1, 6), 1)[0];
        assert_eq!(had(&mut world, &mut agent, job), expected, "{memory_growth} times of {gib}");
        let ended = world.job(job);
        let last = expected[5];
        let Some(Outcome::Failed(failure)) = ended.outcome() else { panic!("it failed") };
        assert_eq!((ended.attempt, failure.memory()), (6, Some(last * GIB)), "each cost an attempt");
        assert_eq!(&*failure.message, format!("with {} bytes of memory: killed", last * GIB));
    }
}

#[test]
fn the_agent_is_told_what_it_has() {
    let (mut world, mut agent) = (World::new(), worker("w", 1, 8));
    let job = world.submit(hungry("a", 1, 2), 1)[0];
    assert_eq!(world.news(&mut agent).assign[0].memory, GIB);
    agent.report(job, out_of_memory());
    world.settle(&mut agent);
    world.pass(WAIT);
    let heard = *world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!((heard.assign[0].job.id, heard.assign[0].memory), (job, 2 * GIB));
}

#[test]
fn what_ends_otherwise_asks_for_no_more() {
    for class in [FailureClass::Signal, FailureClass::Exit, FailureClass::Error, FailureClass::Timeout] {
        let (mut world, mut agent) = (World::new(), worker("w", 1, 8));
        let job = world.submit(hungry("a", 1, 3), 1)[0];
        world.settle(&mut agent);
        agent.report(job, failed(class));
        world.settle(&mut agent);
        world.pass(WAIT);
        world.settle(&mut agent);
        assert_eq!(given(&world, job), Some(1), "{class:?}");
    }
}

#[test]
fn the_next_jobs_of_the_kind_begin_with_what_was_needed() {
    let (mut world, mut agent) = (World::new(), worker("w", 8, 64));
    let first = world.submit(hungry("a", 1, 3), 1)[0];
    world.settle(&mut agent);
    agent.report(first, out_of_memory());
    world.settle(&mut agent);
    let next = world.submit(hungry("a", 1, 1), 1)[0];
    let larger = world.submit(hungry("a", 3, 1), 1)[0];
    let other = world.submit(hungry("b", 1, 1), 1)[0];
    let none = world.submit(command().name("a"), 1)[0];
    world.settle(&mut agent);
    let all = [next, larger, other, none].map(|job| given(&world, job));
    assert_eq!(all, [Some(2), Some(3), Some(1), Some(0)]);
    // What was measured brings it down again, once nothing else is remembered.
    agent.finish_all();
    world.settle(&mut agent);
    for _ in 0..64 {
        let job = world.submit(hungry("a", 1, 1), 1)[0];
        world.settle(&mut agent);
        assert_eq!(given(&world, job), Some(2));
        let finish = Finish { memory: Some(GIB / 2), ..Finish::succeeded(hodei_core::job::Output::none()) };
        agent.report(job, News::Ended(Box::new(finish)));
        world.settle(&mut agent);
    }
    let job = world.submit(hungry("a", 1, 1), 1)[0];
    world.settle(&mut agent);
    assert_eq!(given(&world, job), Some(1));
}

#[test]
fn another_node_knows_from_the_store_what_was_not_enough() {
    let (mut world, mut agent) = (World::new(), worker("w", 1, 64));
    let job = world.submit(hungry("a", 1, 4), 1)[0];
    for _ in 0..2 {
        world.settle(&mut agent);
        agent.report(job, out_of_memory());
        world.settle(&mut agent);
        world.pass(WAIT);
    }
    world.settle(&mut agent);
    assert_eq!(given(&world, job), Some(4));
    agent.report(job, out_of_memory());
    world.settle(&mut agent);
    world.tell(Input::Drain);
    world.pass(WAIT);
    let (mut other, mut agent) = (World::beside(&world, "other"), worker("v", 1, 64));
    other.settle(&mut agent);
    assert_eq!(given(&other, job), Some(8));
}

#[test]
fn why_it_asks_for_more_and_gets_less_is_said() {
    let (mut world, mut agent) = (World::new(), worker("w", 4, 3));
    let job = world.submit(hungry("a", 1, 9), 1)[0];
    for _ in 0..2 {
        world.settle(&mut agent);
        agent.report(job, out_of_memory());
        world.settle(&mut agent);
        if world.job(job).attempt == 1 {
            world.pass(WAIT);
        }
    }
    // Somebody else comes first.
    world.submit(hungry("b", 1, 1), 1);
    world.settle(&mut agent);
    world.pass(WAIT);
    world.settle(&mut agent);
    let lacks =
        Why::Lacks { worker: Name::literal("w"), resource: "memory".into(), needs: 3 * GIB, free: 2 * GIB };
    let expected = Why::Grown { asked: GIB, wants: 4 * GIB, asks: 3 * GIB, why: Box::new(lacks) };
    assert_eq!(world.machine.why(&world.job(job)), Some(expected));
    // As soon as there is a worker that has it, it is what it asks for.
    let mut larger = worker("x", 1, 4);
    world.settle(&mut larger);
    agent.finish_all();
    world.settle(&mut agent);
    assert_eq!(given(&world, job), Some(3), "it was claimed when there was none");
}

#[test]
fn jobs_that_need_more_than_they_ask_for_leave_room_to_others() {
    let (mut world, mut agent) = (World::new(), worker("w", 16, 16));
    let first = world.submit(hungry("large", 1, 9), 1)[0];
    for _ in 0..3 {
        world.settle(&mut agent);
        agent.report(first, out_of_memory());
        world.settle(&mut agent);
        world.pass(WAIT);
    }
    world.settle(&mut agent);
    agent.report(first, success());
    world.settle(&mut agent);
    // Each of them takes half of the worker; by what they say it would take sixteen, and another one eight more.
    let mut other = worker("v", 8, 7);
    world.settle(&mut other);
    let large = world.submit(hungry("large", 1, 9), 100);
    world.settle(&mut agent);
    let small = world.submit(hungry("small", 1, 1).queue("small"), 7);
    world.settle(&mut agent);
    world.settle(&mut other);
    let (runs, others) = (agent.jobs(), other.jobs());
    assert_eq!((runs.len(), others.len()), (2, 7));
    assert!(runs.iter().all(|job| large.contains(job)) && others.iter().all(|job| small.contains(job)));
    let claimed = large.iter().filter(|job| world.job(**job).state != State::Pending).count();
    assert!(claimed <= 4, "{claimed} are claimed, two of them run");
}

#[test]
fn what_a_job_needed_is_known_after_an_end_of_another_kind() {
    let (mut world, mut agent) = (World::new(), worker("w", 1, 8));
    let job = world.submit(hungry("a", 1, 4), 1)[0];
    for news in [out_of_memory(), out_of_memory(), failed(FailureClass::Exit)] {
        world.pass(WAIT);
        world.settle(&mut agent);
        agent.report(job, news);
        world.settle(&mut agent);
    }
    world.tell(Input::Drain);
    world.pass(WAIT);
    let (mut other, mut agent) = (World::beside(&world, "other"), worker("v", 1, 8));
    other.settle(&mut agent);
    assert_eq!(given(&other, job), Some(4), "not what it asks for, and no more than it had");
}

#[test]
fn a_node_that_begins_anew_holds_no_more_large_jobs_than_it_has_room_for() {
    let (mut world, mut agent) = (World::new(), worker("w", 16, 128));
    let large = world.submit(hungry("large", 1, 9), 16);
    for _ in 0..3 {
        world.pass(WAIT);
        world.settle(&mut agent);
        agent.jobs().into_iter().for_each(|job| agent.report(job, out_of_memory()));
        world.settle(&mut agent);
    }
    world.tell(Input::Drain);
    world.pass(WAIT);
    // By what they ask for all of them have room here; two have.
    let (mut other, mut agent) = (World::beside(&world, "other"), worker("v", 16, 16));
    other.settle(&mut agent);
    let held = large.iter().filter(|job| other.job(**job).state != State::Pending).count();
    assert_eq!((agent.jobs().len(), held), (2, 3), "a worker is kept for one more");
    let small = other.submit(command().queue("small"), 13);
    other.settle(&mut agent);
    assert!(
        small.iter().all(|job| agent.jobs().contains(job)),
        "there are slots for them, beside the one that is kept"
    );
}

/// What a kind of jobs really needs, how many there are, and how often each may fail.
fn loads() -> impl Strategy<Value = Vec<(u64, u64, usize, u32)>> {
    prop::collection::vec((1_u64..6, 1_u64..60, 1_usize..5, 1_u32..6), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever runs need: no worker has more set aside than it has, no job is held by nothing, and each ends, after as many
    /// attempts as its policy allows at most.
    #[test]
    fn no_worker_is_promised_more_than_it_has_and_every_job_ends(
        loads in loads(),
        workers in prop::collection::vec((1_u32..6, 5_u64..40), 1..4),
        ends in prop::collection::vec(0_u8..10, 1..50),
    ) {
        let mut world = World::new();
        let names = ["u", "v", "w"];
        let mut agents: Vec<Agent> =
            workers.iter().zip(names).map(|((slots, gib), name)| worker(name, *slots, *gib)).collect();
        let mut needs: HashMap<JobId, (u64, u32)> = HashMap::new();
        for (n, (asked, needed, jobs, attempts)) in loads.iter().enumerate() {
            let submitted = world.submit(hungry(&format!("kind-{n}"), *asked, *attempts), *jobs);
            needs.extend(submitted.into_iter().map(|job| (job, (needed.max(asked) * GIB, *attempts))));
        }
        let mut ends = ends.into_iter().cycle();
        for round in 0.. {
            prop_assert!(round < 200, "it goes on for ever");
            for agent in &mut agents {
                world.settle(agent);
            }
            for (agent, (slots, gib)) in agents.iter().zip(&workers) {
                let session = world.machine.sessions.get(&agent.state.worker).unwrap();
                let promised: u64 = session.assigned.values().map(|assigned| assigned.memory).sum();
                prop_assert!(promised <= gib * GIB && session.assigned.len() <= *slots as usize);
            }
            let open: Vec<JobId> =
                needs.keys().copied().filter(|job| !world.job(*job).state.is_terminal()).collect();
            if open.is_empty() {
                break;
            }
            let mut running = 0;
            for agent in &mut agents {
                for job in agent.jobs() {
                    running += 1;
                    let memory = world.machine.sessions.get(&agent.state.worker).unwrap().assigned[&job].memory;
                    let end = ends.next().unwrap_or(9);
                    agent.report(job, match end {
                        0 => failed(FailureClass::Exit),
                        _ if memory < needs[&job].0 => out_of_memory(),
                        _ => success(),
                    });
                }
                world.settle(agent);
            }
            let waits = open.iter().any(|job| world.job(*job).eligible_at > world.clock_now());
            prop_assert!(running > 0 || waits, "nothing runs of {} jobs that could", open.len());
            world.pass(WAIT);
        }
        for (job, (_, attempts)) in &needs {
            prop_assert!(world.job(*job).attempt <= *attempts);
        }
    }
}
