//! What was claimed and finds no slot.

use std::time::Duration;

use hodei_core::JobId;
use hodei_core::job::{Epoch, Resources, Runs, State};
use hodei_core::store::Exchanged;

use super::world::{Agent, World, command, success};
use crate::machine::{Effect, Input};

const SECOND: Duration = Duration::from_secs(1);

/// A node and its agent of eight slots, all taken by jobs that go on for long, with others of their kind claimed ahead, and
/// which ones these are.
fn burst() -> (World, Agent, Vec<JobId>) {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 8));
    let mut jobs = world.submit(command(), 200);
    world.settle(&mut agent);
    while world.machine.surplus() < 16 {
        agent.finish_all();
        world.settle(&mut agent);
    }
    jobs.retain(|job| world.job(*job).state == State::Scheduled && !agent.jobs().contains(job));
    (world, agent, jobs)
}

fn leased(world: &World, jobs: &[JobId]) -> usize {
    jobs.iter().filter(|job| world.job(**job).state == State::Scheduled).count()
}

#[test]
fn what_was_claimed_ahead_goes_to_a_node_that_has_slots() {
    let (mut world, mut agent, ahead) = burst();
    let (mut other, mut idle) = (World::beside(&world, "other"), Agent::new("v", 500));
    other.settle(&mut idle);
    assert!(!ahead.is_empty() && ahead.iter().all(|job| !idle.jobs().contains(job)), "they are leased");
    let wait = world.machine.poll_timeout().saturating_since(world.clock_now());
    assert!(wait <= 3 * SECOND, "it comes back in {wait:?}");
    for _ in 0..6 {
        world.pass(SECOND);
        world.settle(&mut agent);
    }
    assert_eq!(world.machine.surplus(), 0);
    other.tell(Input::Woken);
    other.settle(&mut idle);
    for job in &ahead {
        let (job, runs) = (world.job(*job), idle.jobs().contains(job));
        assert!(runs && (job.attempt, job.lost_count) == (0, 0), "{job:?}");
        assert!(job.epoch > Epoch::from_number(1));
    }
    assert_eq!(agent.jobs().len(), 8, "what runs goes on");
    let calls = world.exchanges.len();
    for _ in 0..10 {
        world.pass(SECOND);
        world.settle(&mut agent);
    }
    assert_eq!(world.exchanges.len(), calls, "nothing is claimed that would go back again");
}

#[test]
fn as_many_stay_as_begin_within_the_time_and_the_newest_go() {
    let (mut world, mut agent, ahead) = burst();
    // From now on one job ends in each second.
    for _ in 0..7 {
        world.pass(SECOND);
        agent.report(agent.jobs()[0], success());
        world.settle(&mut agent);
    }
    let waits = world.machine.surplus();
    assert!((1..=4).contains(&waits), "{waits} of {} wait here", ahead.len());
    let had: Vec<bool> = ahead.iter().map(|job| world.job(*job).state != State::Pending).collect();
    let first = had.iter().position(|had| !had).expect("some went back");
    assert!(first >= 7 && had[first..].iter().all(|had| !had), "in the order in which they came: {had:?}");
}

#[test]
fn the_one_for_which_a_worker_is_kept_stays() {
    let cpus = |n: u64| Resources::none().cpu_millis(n * 1_000);
    let (mut world, mut agent) = (World::new(), Agent::with("w", 8, cpus(4), vec![Runs::Command]));
    let small = world.submit(command().resources(cpus(1)), 3);
    world.settle(&mut agent);
    let large = world.submit(command().resources(cpus(4)), 2);
    let epoch = world.job(large[0]).epoch;
    for _ in 0..20 {
        world.pass(SECOND);
        world.settle(&mut agent);
    }
    assert_eq!((leased(&world, &large), world.job(large[0]).epoch), (1, epoch), "it is not claimed anew");
    small.iter().for_each(|job| agent.report(*job, success()));
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), large[..1]);
}

#[test]
fn what_finds_no_room_keeps_nobody_from_slots_that_are_free() {
    let gpu = |n: u32| Resources::none().gpus(n);
    let (mut world, mut agent) = (World::new(), Agent::with("w", 8, gpu(8), vec![Runs::Command]));
    let first = world.submit(command().resources(gpu(1)), 8);
    world.settle(&mut agent);
    // They end all at once, and sixteen more are claimed; then one comes that needs all.
    world.submit(command().resources(gpu(1)), 200);
    agent.finish_all();
    world.settle(&mut agent);
    assert!(world.machine.surplus() >= 8 && first.iter().all(|job| world.job(*job).state.is_terminal()));
    // Half of the slots come free with nothing that the others need.
    let mut more = Agent::new("x", 4);
    world.settle(&mut more);
    let others = world.submit(command().queue("others"), 4);
    world.settle(&mut more);
    assert_eq!(more.jobs(), others, "they do not wait behind those");
}

#[test]
fn claims_that_bring_nothing_become_rarer() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.submit(command(), 1);
    world.hold = true;
    world.sync(&mut agent);
    let mut claims = 0;
    for _ in 0..10_000 {
        while let Some(call) = world.held.pop_front() {
            let answer = match call {
                Effect::Exchange(_) => {
                    claims += 1;
                    Input::Exchanged(Ok(Exchanged::default()))
                }
                other => world.perform(other),
            };
            world.tell(answer);
        }
        world.pass(Duration::from_millis(1));
    }
    // After 50, 100, 200, 400 and 800 ms, then each second.
    assert!((10..20).contains(&claims), "{claims} in ten seconds");
}
