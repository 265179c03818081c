//! The end of a node.

use std::time::Duration;

use hodei_core::ErrorKind;
use hodei_core::job::State;

use super::world::{Agent, World, command};
use crate::machine::Input;

#[test]
fn a_drain_waits_for_what_runs_and_gives_the_rest_back() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    world.submit(command(), 2);
    world.news(&mut agent);
    agent.finish_all();
    world.settle(&mut agent);
    let jobs = world.submit(command(), 6);
    world.hear(&mut agent).expect("news").expect("an answer");
    let claimed =
        |world: &World| jobs.iter().filter(|job| world.job(**job).state == State::Scheduled).count();
    assert!(claimed(&world) > 2, "some are claimed ahead");
    world.tell(Input::Drain);
    assert_eq!(claimed(&world), 2, "only what the agent has");
    assert!(!world.machine.is_idle());
    agent.finish_all();
    world.sync(&mut agent);
    assert!(world.machine.is_idle());
    let waiting = jobs.iter().map(|job| world.job(*job)).filter(|job| job.state == State::Pending);
    assert!(waiting.map(|job| (job.attempt, job.lost_count)).all(|costs| costs == (0, 0)));
}

#[test]
fn a_draining_node_claims_nothing_more() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    world.sync(&mut agent);
    world.tell(Input::Drain);
    let jobs = world.submit(command(), 1);
    world.pass(Duration::from_secs(5));
    assert_eq!((world.job(jobs[0]).state, world.exchanges.len()), (State::Pending, 0));
}

#[test]
fn a_claim_that_comes_during_the_drain_goes_back() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.sync(&mut agent);
    world.hold = true;
    let jobs = world.submit(command(), 1);
    let claim = world.claim_call();
    let claimed = world.perform(claim);
    world.tell(Input::Drain);
    world.tell(claimed);
    world.let_go();
    assert_eq!(world.job(jobs[0]).state, State::Pending);
    let told = world.hear(&mut agent);
    assert!(matches!(told, Some(Err(ErrorKind::Unavailable))), "its agent may go elsewhere: {told:?}");
    assert!(world.machine.is_idle());
}

#[test]
fn an_agent_is_let_go_when_its_last_end_is_durable() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let mut idle = Agent::new("idle", 2);
    world.submit(command(), 2);
    world.news(&mut agent);
    world.sync(&mut agent);
    world.sync(&mut idle);
    world.tell(Input::Drain);
    assert!(matches!(world.hear(&mut idle), Some(Err(ErrorKind::Unavailable))), "it has nothing to wait for");
    assert!(world.hear(&mut agent).is_none(), "its runs go on");
    agent.finish_all();
    let acked = world.news(&mut agent).acked;
    assert_eq!(acked, 2, "it need not tell of them elsewhere");
    assert!(matches!(world.sync(&mut agent), Some(Err(ErrorKind::Unavailable))));
    assert_eq!(world.machine.workers().count(), 0);
}

#[test]
fn agents_of_a_node_that_gives_everything_back_are_not_replaced_but_free_to_go() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    world.sync(&mut agent);
    world.tell(Input::Abandon);
    assert!(matches!(world.hear(&mut agent), Some(Err(ErrorKind::Unavailable))));
    let job = world.job(jobs[0]);
    assert_eq!((job.state, job.attempt, job.lost_count), (State::Pending, 0, 0));
}

#[test]
fn a_drain_takes_back_what_its_agent_was_not_told_of() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.sync(&mut agent);
    world.pass(Duration::from_secs(2));
    world.hear(&mut agent).expect("its time is over").expect("an answer");
    let jobs = world.submit(command(), 1);
    assert_eq!(world.job(jobs[0]).state, State::Scheduled);
    world.tell(Input::Drain);
    assert_eq!(world.job(jobs[0]).state, State::Pending);
    assert!(world.machine.is_idle());
}

#[test]
fn an_agent_that_drains_gets_nothing_more() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let first = world.submit(command(), 1);
    world.news(&mut agent);
    agent.state.draining = true;
    world.sync(&mut agent);
    let jobs = world.submit(command(), 3);
    world.pass(Duration::from_secs(2));
    world.hear(&mut agent).expect("its time is over").expect("an answer");
    assert_eq!(agent.jobs(), first);
    assert!(jobs.iter().all(|job| world.job(*job).state == State::Pending), "they are there for others");
}

#[test]
fn a_drain_outlives_an_agent_that_does_not() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    world.tell(Input::Drain);
    assert!(!world.machine.is_idle());
    world.pass(Duration::from_secs(6));
    assert!(world.machine.is_idle());
    assert_eq!((world.job(jobs[0]).state, world.job(jobs[0]).lost_count), (State::Pending, 1));
}
