//! What the simulator found.

use std::time::Duration;

use hodei_core::gateway::News;
use hodei_core::job::{Priority, State};
use hodei_core::store::Lanes;

use super::world::{Agent, World, assigned, command, success, unavailable};
use crate::machine::{Effect, Input};

#[test]
fn an_agent_that_saw_more_replies_elsewhere_has_seen_none_of_these() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    assert!(world.sync(&mut agent).is_none());
    let jobs = world.submit(command(), 1);
    // The reply that names the job finds nobody; meanwhile another node has numbered its own higher.
    agent.state.seen = 7;
    let heard = world.news(&mut agent);
    assert!(heard.number > 7, "an agent ignores a reply that is not new");
    assert_eq!(assigned(&heard), jobs);
}

#[test]
fn a_job_is_said_again_when_another_reply_had_its_number() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    assert!(world.sync(&mut agent).is_none());
    let jobs = world.submit(command(), 1);
    agent.state.seen = 1;
    let heard = world.news(&mut agent);
    assert_eq!((heard.number, assigned(&heard)), (2, jobs));
    assert!(world.sync(&mut agent).is_none(), "what runs is not said again");
}

#[test]
fn a_store_whose_clock_is_behind_is_not_asked_without_end() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.hold = true;
    world.sync(&mut agent);
    let passed = world.clock_now();
    let answer = || Input::Lanes(Ok(Lanes { next_due: Some(passed), ..Lanes::default() }));
    let mut asked = 0;
    for _ in 0..1_000 {
        while let Some(call) = world.held.pop_front() {
            assert!(matches!(call, Effect::AskLanes { .. }), "{call:?}");
            asked += 1;
            world.tell(answer());
        }
        world.pass(Duration::from_millis(1));
    }
    assert!((15..40).contains(&asked), "asked {asked} times in a second");
}

#[test]
fn what_is_due_is_asked_for_at_once_when_the_store_says_so_for_the_first_time() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.hold = true;
    world.sync(&mut agent);
    let call = world.take_call();
    assert!(matches!(call, Effect::AskLanes { .. }));
    let next_due = Some(world.clock_now());
    world.tell(Input::Lanes(Ok(Lanes { next_due, ..Lanes::default() })));
    assert!(matches!(world.take_call(), Effect::AskLanes { .. }));
}

#[test]
fn a_job_that_is_returned_although_it_had_begun_goes_back() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    agent.report(jobs[0], News::Started);
    world.sync(&mut agent);
    assert_eq!(world.job(jobs[0]).state, State::Running);
    agent.report(jobs[0], News::Returned);
    world.sync(&mut agent);
    world.settle(&mut agent);
    let job = world.job(jobs[0]);
    assert_eq!((job.epoch.number(), job.attempt), (2, 0), "it costs no attempt");
    assert_eq!(agent.jobs(), jobs);
}

#[test]
fn a_claim_that_is_made_after_it_was_asked_for_is_found_all_the_same() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    assert!(world.sync(&mut agent).is_none());
    world.hold = true;
    let jobs = world.submit(command(), 1);
    let claim = world.claim_call();
    world.tell(Input::Exchanged(Err(unavailable())));
    world.pass(Duration::from_millis(60));
    let asks = world.call_that(|call| matches!(call, Effect::AskLeases));
    let nothing = world.perform(asks);
    world.tell(nothing);
    // Now the claim is carried out, and nobody hears the answer.
    drop(world.perform(claim));
    world.let_go();
    assert!(world.hear(&mut agent).is_none(), "nobody knows of it yet");
    world.pass(Duration::from_secs(1));
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!(assigned(&heard), jobs);
}

/// Two nodes saw the same lanes, and the other one was there before. What else the lanes have is ready, and no store rings for
/// what was ready all the time: it waited until the store was asked without a reason, for five minutes.
#[test]
fn who_finds_nothing_in_a_lane_looks_again_soon() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let runs = world.submit(command(), 1)[0];
    world.settle(&mut agent);
    world.hold = true;
    let gone = world.submit(command().queue("mail"), 1)[0];
    let ready = world.submit(command().queue("files").priority(Priority::MIN), 1)[0];
    let claim = world.claim_call();
    world.cancel_in_store(gone);
    let answer = world.perform(claim);
    world.tell(answer);
    world.let_go();
    // An exchange that claims nothing comes between.
    agent.report(runs, success());
    world.settle(&mut agent);
    world.pass(Duration::from_millis(50));
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), [ready]);
}
