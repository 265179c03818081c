//! A node that does not hear of its store, and what it promises its agents.

use std::time::Duration;

use hodei_core::gateway::{News, StopCause};
use hodei_core::job::{Finish, State};
use hodei_core::store::{JobStore, Scope};

use super::world::{Agent, World, assigned, command, now};
use crate::machine::{Effect, Input};

const SECOND: Duration = Duration::from_secs(1);

/// A node whose beat was heard, and an agent of its that runs a job.
fn running() -> (World, Agent, hodei_core::JobId) {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let until = world.clock_now().saturating_add(SECOND * 5);
    world.tell(Input::Beaten(world.owner.clone(), Some(until)));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    agent.report(jobs[0], News::Started);
    world.settle(&mut agent);
    (world, agent, jobs[0])
}

fn stops(world: &mut World, agent: &mut Agent) -> Vec<(hodei_core::JobId, StopCause)> {
    let heard = world.hear(agent).expect("news").expect("an answer");
    heard.stop.iter().map(|stop| (stop.job, stop.why)).collect()
}

#[test]
fn a_node_whose_beats_come_through_is_not_given_up() {
    let (mut world, mut agent, _) = running();
    for _ in 0..20 {
        world.pass(SECOND);
        let until = world.clock_now().saturating_add(SECOND * 5);
        world.tell(Input::Beaten(world.owner.clone(), Some(until)));
        if let Some(heard) = world.hear(&mut agent) {
            assert!(heard.expect("an answer").stop.is_empty());
            world.sync(&mut agent);
        }
    }
    assert_eq!(world.owner.incarnation, 1);
}

#[test]
fn a_node_that_hears_of_no_beat_ends_what_it_runs_before_others_may_take_it() {
    let (mut world, mut agent, job) = running();
    world.pass(SECOND * 4);
    if world.hear(&mut agent).is_some() {
        world.sync(&mut agent);
    }
    assert!(world.machine.poll_timeout() <= world.clock_now().saturating_add(SECOND), "it wakes in time");
    world.pass(SECOND);
    assert_eq!(stops(&mut world, &mut agent), [(job, StopCause::LeaseLost)]);
    assert_eq!(world.owner.incarnation, 1, "its agents have time to end what they run");
    world.sync(&mut agent);
    // It registered at once: the store ended the old life, and what ran was begun elsewhere before its agents had heard.
    let margin = Duration::from_millis(750);
    world.pass(margin - Duration::from_micros(1));
    assert_eq!(world.owner.incarnation, 1, "nobody may take what it ran before they have");
    assert_eq!(world.machine.poll_timeout(), world.clock_now().saturating_add(Duration::from_micros(1)));
    world.pass(Duration::from_micros(1));
    assert_eq!(world.owner.incarnation, 2, "it begins anew");
}

#[test]
fn a_beat_that_is_refused_ends_what_runs_at_once() {
    let (mut world, mut agent, job) = running();
    world.tell(Input::Beaten(world.owner.clone(), None));
    assert_eq!(stops(&mut world, &mut agent), [(job, StopCause::LeaseLost)]);
    let old = hodei_core::job::Lease { incarnation: 1, ..world.owner.clone() };
    world.tell(Input::Beaten(old, None));
    assert_eq!(world.owner.incarnation, 2, "what is said of a life that is over says nothing");
}

#[test]
fn what_a_claim_brings_after_the_node_was_given_up_is_not_run() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.sync(&mut agent);
    world.hold = true;
    let jobs = world.submit(command(), 1);
    let claim = world.claim_call();
    let answer = world.perform(claim);
    world.tell(Input::Beaten(world.owner.clone(), None));
    world.tell(answer);
    assert!(world.hear(&mut agent).is_none(), "nothing is assigned");
    assert!(matches!(world.call_that(|call| matches!(call, Effect::Register)), Effect::Register));
    assert_eq!(world.job(jobs[0]).state, State::Scheduled, "the reaper's now");
}

/// An agent may run on alone for as long as its node waits for it and lives itself, whichever is less.
#[test]
fn an_agent_is_told_how_long_it_may_run_on_alone() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.submit(command(), 2);
    let heard = world.news(&mut agent);
    assert_eq!((heard.answers, heard.alone), (1, Some(Duration::from_millis(5_250))));
    let until = world.clock_now().saturating_add(SECOND * 3);
    world.tell(Input::Beaten(world.owner.clone(), Some(until)));
    agent.finish_all();
    let heard = world.news(&mut agent);
    assert_eq!((heard.answers, heard.alone), (2, Some(SECOND * 3)));
    world.settle(&mut agent);
    world.pass(SECOND * 2);
    let late = *world.hear(&mut agent).expect("its time is over").expect("an answer");
    assert_eq!(late.alone, Some(SECOND * 3), "counted from when the call came");
}

#[test]
fn a_cancellation_of_an_earlier_run_leaves_the_next_one_alone() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    world.cancel_in_store(jobs[0]);
    let first = world.job(jobs[0]).epoch;
    agent.report(jobs[0], News::Ended(Box::new(Finish::cancelled())));
    world.settle(&mut agent);
    now(world.store.redrive(&Scope::All, jobs.clone())).expect("the store redrives");
    world.tell(Input::Woken);
    let again = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!(assigned(&again), jobs, "it runs again");
    world.sync(&mut agent);
    world.tell(Input::Cancelled(vec![(jobs[0], first)]));
    assert!(world.hear(&mut agent).is_none(), "that was another run");
    let epoch = world.job(jobs[0]).epoch;
    world.tell(Input::Cancelled(vec![(jobs[0], epoch)]));
    assert_eq!(stops(&mut world, &mut agent), [(jobs[0], StopCause::Cancelled)]);
}

/// A node that may rest, with an agent, whose beats came through for as long as it takes.
fn resting() -> (World, Agent) {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.machine.let_rest(true);
    world.sync(&mut agent);
    for _ in 0..12 {
        world.pass(SECOND);
        if !world.machine.rests() {
            let until = world.clock_now().saturating_add(SECOND * 5);
            world.tell(Input::Beaten(world.owner.clone(), Some(until)));
        }
        world.settle(&mut agent);
    }
    assert!(world.machine.rests());
    (world, agent)
}

#[test]
fn a_node_that_holds_nothing_rests_and_begins_a_life_for_the_next_job() {
    let (mut world, mut agent) = resting();
    for _ in 0..60 {
        world.pass(SECOND);
        world.settle(&mut agent);
    }
    assert_eq!((world.machine.rests(), world.owner.incarnation), (true, 1), "nobody is asked for anything");
    let jobs = world.submit(command(), 1);
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!(assigned(&heard), jobs);
    assert_eq!((world.machine.rests(), world.owner.incarnation), (false, 2));
    assert_eq!(world.job(jobs[0]).lease.as_ref(), Some(&world.owner), "claimed under the new life");
}

#[test]
fn a_node_that_holds_something_or_that_somebody_needs_does_not_rest() {
    let (mut world, mut agent, _) = running();
    world.machine.let_rest(true);
    for needed in [false, true] {
        for _ in 0..30 {
            world.pass(SECOND);
            let until = world.clock_now().saturating_add(SECOND * 5);
            world.tell(Input::Beaten(world.owner.clone(), Some(until)));
            world.settle(&mut agent);
            assert!(!world.machine.rests());
        }
        if !needed {
            agent.finish_all();
            world.machine.let_rest(false);
        }
    }
    assert_eq!(world.owner.incarnation, 1);
}

#[test]
fn a_node_that_rests_and_is_needed_lives_again() {
    let (mut world, _) = resting();
    world.machine.let_rest(false);
    let until = world.clock_now().saturating_add(SECOND * 5);
    world.tell(Input::Beaten(world.owner.clone(), Some(until)));
    assert_eq!((world.machine.rests(), world.owner.incarnation), (false, 1), "its life had not ended");
    let (mut world, _) = resting();
    world.machine.let_rest(false);
    world.tell(Input::Beaten(world.owner.clone(), None));
    assert_eq!((world.machine.rests(), world.owner.incarnation), (false, 2), "it had");
}
