//! What is more urgent than what was claimed ahead.

use std::time::Duration;

use hodei_core::job::{Priority, Resources, Runs};
use hodei_core::{Clock, JobId};

use super::world::{Agent, World, command, success, unavailable};
use crate::machine::{Effect, Input};

const MILLIS: fn(u64) -> Duration = Duration::from_millis;

fn level(n: u8) -> Priority {
    Priority::new(n).expect("a level")
}

/// A node with eight slots, all taken, that has claimed as many jobs of level 10 ahead and has looked at its store just now.
fn claimed_ahead() -> (World, Agent) {
    let (mut world, mut agent) = World::ahead(level(10));
    world.pass(MILLIS(1_000));
    world.settle(&mut agent);
    (world, agent)
}

/// Ends one job, and returns which ones begin in its place.
fn next(world: &mut World, agent: &mut Agent) -> Vec<JobId> {
    let before = agent.jobs();
    agent.report(before[0], success());
    world.settle(agent);
    agent.jobs().into_iter().filter(|job| !before.contains(job)).collect()
}

#[test]
fn the_machine_comes_back_by_itself_to_look_for_what_is_more_urgent() {
    let (mut world, mut agent) = claimed_ahead();
    world.pass(MILLIS(50));
    let urgent = world.submit(command().priority(level(63)), 1);
    let wait = world.machine.poll_timeout().saturating_since(world.clock.now());
    assert!(wait <= MILLIS(50), "it comes back in {wait:?}");
    world.pass(wait);
    assert_eq!(next(&mut world, &mut agent), urgent);
}

#[test]
fn a_slot_that_comes_free_waits_for_the_look_that_is_due() {
    let (mut world, mut agent) = claimed_ahead();
    world.pass(MILLIS(50));
    let urgent = world.submit(command().priority(level(63)), 1);
    // Nobody ticks; the next that is heard is the report.
    world.clock.advance(MILLIS(60));
    assert_eq!(next(&mut world, &mut agent), urgent);
}

#[test]
fn until_the_store_has_answered_nothing_is_handed_out_but_not_for_long() {
    let (mut world, mut agent) = claimed_ahead();
    world.hold = true;
    world.submit(command().priority(level(63)), 1);
    world.clock.advance(MILLIS(100));
    assert_eq!(next(&mut world, &mut agent), [], "the store is asked");
    assert!(world.held.iter().any(|call| matches!(call, Effect::AskLanes { .. })));
    let wait = world.machine.poll_timeout().saturating_since(world.clock.now());
    assert_eq!(wait, MILLIS(100));
    world.pass(wait);
    let before = agent.jobs();
    world.hear(&mut agent);
    assert_eq!(agent.jobs().len(), before.len() + 1, "a store that does not answer holds nothing up");
    assert!(world.machine.poll_timeout() > world.clock.now());
}

#[test]
fn a_store_that_fails_holds_nothing_up() {
    let (mut world, mut agent) = claimed_ahead();
    world.hold = true;
    world.submit(command().priority(level(63)), 1);
    world.clock.advance(MILLIS(100));
    next(&mut world, &mut agent);
    while world.held.pop_front().is_some() {
        world.tell(Input::Lanes(Err(unavailable())));
    }
    let before = agent.jobs();
    world.hear(&mut agent);
    assert_eq!(agent.jobs().len(), before.len() + 1);
}

#[test]
fn looks_that_take_long_leave_most_of_the_time_to_the_work() {
    let (mut world, mut agent) = claimed_ahead();
    world.hold = true;
    let (mut held_up, mut all) = (0, 0);
    let mut asked_at = None;
    for _ in 0..4_000 {
        // Something comes all the time, and every call of the store takes 60 ms.
        world.tell(Input::Woken);
        world.pass(MILLIS(1));
        if !world.held.is_empty() {
            let asked = *asked_at.get_or_insert_with(|| world.clock.now());
            if world.clock.now().saturating_since(asked) >= MILLIS(60) {
                let call = world.take_call();
                let answer = world.perform(call);
                asked_at = None;
                world.tell(answer);
            }
        }
        let until = world.machine.poll_timeout();
        assert!(until > world.clock.now(), "it does not spin");
        held_up += u32::from(world.machine.look.until().is_some());
        all += 1;
        world.hear(&mut agent);
        world.sync(&mut agent);
    }
    assert!((100..all / 8).contains(&held_up), "{held_up} ms of {all}");
}

#[test]
fn the_next_urgent_job_of_a_lane_comes_first_as_the_first_one_did() {
    let (mut world, mut agent) = claimed_ahead();
    for n in [63, 63, 50, 40] {
        let urgent = world.submit(command().priority(level(n)), 1);
        world.pass(MILLIS(100));
        assert_eq!(next(&mut world, &mut agent), urgent, "of level {n}");
    }
}

#[test]
fn what_finds_no_room_yet_is_not_before_more_urgent_work_that_asks_the_same() {
    let capacity = Resources::none().cpu_millis(4_000);
    let whole = || command().resources(Resources::none().cpu_millis(4_000));
    let (mut world, mut agent) = (World::new(), Agent::with("w", 8, capacity, vec![Runs::Command]));
    world.submit(whole().priority(level(10)), 20);
    while world.machine.surplus() == 0 {
        agent.finish_all();
        world.settle(&mut agent);
    }
    let urgent = world.submit(whole().priority(level(63)), 1);
    world.pass(MILLIS(100));
    assert_eq!(next(&mut world, &mut agent), urgent, "slots are free all the time, cpus are not");
}

/// A worker is kept for the lesser one, which was claimed first; what is more urgent asks for something else.
#[test]
fn what_is_more_urgent_comes_before_what_a_worker_is_kept_for() {
    let needs = |cpu, at| command().resources(Resources::none().cpu_millis(cpu)).priority(level(at));
    let worker = |name| Agent::with(name, 16, Resources::none().cpu_millis(5), vec![Runs::Command]);
    let (mut world, mut one, mut other) = (World::new(), worker("one"), worker("other"));
    world.settle(&mut one);
    world.settle(&mut other);
    world.submit(needs(3, 10), 2);
    world.settle(&mut one);
    world.settle(&mut other);
    assert_eq!((one.jobs().len(), other.jobs().len()), (1, 1));
    let lesser = world.submit(needs(5, 10), 1)[0];
    world.pass(MILLIS(1_000));
    world.settle(&mut one);
    let urgent = world.submit(needs(4, 20), 2);
    world.pass(MILLIS(1_000));
    world.settle(&mut one);
    world.settle(&mut other);
    // Nothing is claimed any more.
    world.hold = true;
    for agent in [&mut one, &mut other] {
        agent.finish_all();
        world.hear(agent);
    }
    world.let_go();
    world.settle(&mut one);
    world.settle(&mut other);
    let mut runs = [one.jobs(), other.jobs()].concat();
    runs.sort_unstable();
    assert_eq!(runs, urgent, "and not {lesser:?}");
}

#[test]
fn what_waits_for_a_look_is_not_lent_meanwhile() {
    let (mut world, mut agent) = claimed_ahead();
    world.hold = true;
    world.submit(command().priority(level(63)), 1);
    let before = world.machine.surplus();
    world.clock.advance(MILLIS(100));
    next(&mut world, &mut agent);
    assert!(before > 0 && world.machine.surplus() == 0, "{before}");
    world.pass(MILLIS(100));
    assert!(world.machine.surplus() > 0, "nothing waits for the store any more");
}
