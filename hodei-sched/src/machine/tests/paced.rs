//! Rates that the store keeps: for all nodes, and without a tick.

use std::time::Duration;

use hodei_core::job::Resources;
use hodei_core::store::{Limit, LimitOf, Policies, Rate};
use hodei_core::{Name, Tenant};

use super::world::{Agent, World, command, now, unavailable};
use crate::machine::Input;

const SECOND: Duration = Duration::from_secs(1);

fn pace(world: &World, queue: &'static str, rate: Rate) {
    let of = LimitOf::Queue(Tenant::default(), Name::literal(queue));
    now(world.store.set_limit(Limit::paced(of, rate))).expect("set");
}

/// Goes on when the machine says so, until a time has passed.
fn go_on(world: &mut World, agent: &mut Agent, time: Duration) {
    let end = world.clock_now().saturating_add(time);
    while world.clock_now() < end {
        let wait = world.machine.poll_timeout().min(end).saturating_since(world.clock_now());
        world.pass(wait.max(Duration::from_micros(1)));
        world.settle(agent);
    }
}

#[test]
fn work_begins_as_its_tokens_come() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 100));
    world.sync(&mut agent);
    pace(&world, "default", Rate::new(10, SECOND).burst(5));
    world.submit(command(), 100);
    world.settle(&mut agent);
    assert_eq!(agent.jobs().len(), 5, "a burst");
    for tenths in 1..=10 {
        go_on(&mut world, &mut agent, Duration::from_millis(100));
        assert_eq!(agent.jobs().len(), 5 + tenths);
    }
}

#[test]
fn tokens_come_also_while_other_work_waits_for_room() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 64));
    world.sync(&mut agent);
    pace(&world, "default", Rate::new(10, SECOND).burst(1));
    // A lane that is never used up: nobody here has a GPU.
    world.submit(command().queue("large").resources(Resources::none().gpus(1)), 50);
    world.submit(command(), 50);
    world.settle(&mut agent);
    assert_eq!(agent.jobs().len(), 1);
    for tenths in 1..=10 {
        go_on(&mut world, &mut agent, Duration::from_millis(100));
        assert_eq!(agent.jobs().len(), 1 + tenths);
    }
}

#[test]
fn two_nodes_share_a_rate_and_so_does_one_that_comes_later() {
    let mut one = World::new();
    let mut two = World::beside(&one, "two");
    let (mut a, mut b) = (Agent::new("a", 50), Agent::new("b", 50));
    one.sync(&mut a);
    two.sync(&mut b);
    pace(&one, "default", Rate::new(10, SECOND));
    one.submit(command(), 100);
    one.settle(&mut a);
    two.pass(Duration::from_millis(100));
    two.settle(&mut b);
    assert_eq!((a.jobs().len(), b.jobs().len()), (10, 1));
    let (mut three, mut c) = (World::beside(&one, "three"), Agent::new("c", 50));
    three.sync(&mut c);
    three.settle(&mut c);
    assert_eq!(c.jobs().len(), 0, "who starts finds the bucket as it is");
}

#[test]
fn a_claim_whose_reply_was_lost_has_taken_its_tokens() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 8));
    pace(&world, "default", Rate::new(3, 3_600 * SECOND));
    world.sync(&mut agent);
    world.hold = true;
    world.submit(command(), 10);
    let claim = world.claim_call();
    drop(world.perform(claim));
    world.tell(Input::Exchanged(Err(unavailable())));
    world.let_go();
    for _ in 0..20 {
        world.pass(SECOND);
        world.hear(&mut agent);
        world.settle(&mut agent);
    }
    assert_eq!(agent.jobs().len(), 3);
}

#[test]
fn a_node_whose_clock_is_ahead_does_not_ask_all_the_time() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 8));
    world.sync(&mut agent);
    let opens_at = Some(world.clock_now());
    for _ in 0..3 {
        world.settle(&mut agent);
        let lanes = hodei_core::store::Lanes { opens_at, ..hodei_core::store::Lanes::default() };
        world.tell(Input::Lanes(Ok(lanes)));
        assert!(world.machine.poll_timeout() > world.clock_now());
    }
}
