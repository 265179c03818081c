//! Cancellations, wherever the job is.

use hodei_core::gateway::{News, StopCause};
use hodei_core::job::{Cause, Finish, State};
use hodei_core::store::{JobStore, Move, Scope};

use super::world::{Agent, World, assigned, command, now, success, whichever};
use crate::machine::{Effect, Input};

#[test]
fn a_cancelled_job_that_runs_is_stopped_once() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    agent.report(jobs[0], News::Started);
    world.news(&mut agent);
    world.cancel_in_store(jobs[0]);
    assert!(world.sync(&mut agent).is_none());
    world.tell(Input::Cancelled(whichever(&jobs)));
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!(
        heard.stop.iter().map(|stop| (stop.job, stop.why)).collect::<Vec<_>>(),
        [(jobs[0], StopCause::Cancelled)]
    );
    world.tell(Input::Cancelled(whichever(&jobs)));
    assert!(world.sync(&mut agent).is_none(), "it is not told twice");
    agent.report(jobs[0], News::Ended(Box::new(Finish::cancelled())));
    world.sync(&mut agent);
    assert_eq!((world.job(jobs[0]).state, world.job(jobs[0]).cause), (State::Cancelled, Cause::Cancelled));
}

#[test]
fn a_run_that_truly_ended_before_it_heard_of_its_cancellation_has_ended() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    agent.report(jobs[0], News::Started);
    world.news(&mut agent);
    world.cancel_in_store(jobs[0]);
    agent.report(jobs[0], success());
    world.sync(&mut agent);
    assert_eq!(world.job(jobs[0]).state, State::Succeeded);
}

#[test]
fn a_job_that_is_cancelled_before_its_agent_is_told_is_never_sent() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    world.sync(&mut agent);
    world.pass(std::time::Duration::from_secs(2));
    world.hear(&mut agent).expect("its time is over").expect("an answer");
    let jobs = world.submit(command(), 2);
    world.cancel_in_store(jobs[0]);
    world.tell(Input::Cancelled(whichever(&[jobs[0]])));
    assert_eq!(assigned(&world.news(&mut agent)), [jobs[1]]);
}

#[test]
fn a_cancellation_that_overtakes_the_claim_is_not_forgotten() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    world.sync(&mut agent);
    world.hold = true;
    let jobs = world.submit(command(), 2);
    let claim = world.claim_call();
    let claimed = world.perform(claim);
    // Claimed in the store, and cancelled there; the machine hears of the second before the first.
    world.cancel_in_store(jobs[0]);
    world.tell(Input::Cancelled(whichever(&[jobs[0]])));
    world.tell(claimed);
    world.let_go();
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!((assigned(&heard), heard.stop.len()), (vec![jobs[1]], 0));
    assert_eq!(world.job(jobs[0]).state, State::Cancelled);
}

#[test]
fn a_cancellation_that_overtakes_the_answer_about_leases_is_not_forgotten() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    world.sync(&mut agent);
    world.hold = true;
    let jobs = world.submit(command(), 2);
    let claim = world.claim_call();
    world.perform(claim);
    world.tell(Input::Exchanged(Err(super::world::unavailable())));
    world.pass(std::time::Duration::from_secs(1));
    let leases = world.call_that(|call| matches!(call, Effect::AskLeases));
    let leases = world.perform(leases);
    world.cancel_in_store(jobs[0]);
    world.tell(Input::Cancelled(whichever(&[jobs[0]])));
    world.tell(leases);
    world.let_go();
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!(assigned(&heard), [jobs[1]]);
}

#[test]
fn a_cancelled_job_in_the_window_makes_room_for_the_next() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 4));
    world.submit(command(), 4);
    world.news(&mut agent);
    agent.finish_all();
    world.settle(&mut agent);
    // As many as ended are claimed ahead now.
    let jobs = world.submit(command(), 8);
    world.hear(&mut agent).expect("news").expect("an answer");
    let waits = jobs
        .iter()
        .copied()
        .find(|job| world.job(*job).state == State::Scheduled && !agent.jobs().contains(job));
    let waits = waits.expect("a job was claimed ahead");
    world.cancel_in_store(waits);
    world.tell(Input::Cancelled(whichever(&[waits])));
    let back = world
        .exchanges
        .iter()
        .flat_map(|exchange| &exchange.transitions)
        .filter(|transition| transition.job == waits);
    assert_eq!(back.map(|transition| &transition.step).collect::<Vec<_>>(), [&Move::Returned]);
    agent.finish_all();
    world.sync(&mut agent);
    assert!(!agent.jobs().contains(&waits));
    assert_eq!(now(world.store.verify_indexes()).expect("it verifies"), Vec::<String>::new());
}

#[test]
fn a_job_that_comes_back_under_a_higher_epoch_takes_one_slot() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    world.cancel_in_store(jobs[0]);
    world.tell(Input::Cancelled(whichever(&jobs)));
    world.sync(&mut agent);
    now(world.store.redrive(&Scope::All, jobs.clone())).unwrap();
    world.tell(Input::Woken);
    for _ in 0..5 {
        world.sync(&mut agent);
        world.hear(&mut agent);
    }
    // The agent stops the run of the older epoch by itself and reports nothing of it.
    let epoch = world.job(jobs[0]).epoch;
    agent.state.running.retain(|run| run.epoch == epoch);
    assert_eq!(agent.state.running.len(), 1);
    agent.report(jobs[0], success());
    for _ in 0..5 {
        world.sync(&mut agent);
        world.hear(&mut agent);
    }
    assert_eq!(world.job(jobs[0]).state, State::Succeeded);
    world.submit(command(), 2);
    for _ in 0..5 {
        world.sync(&mut agent);
        world.hear(&mut agent);
    }
    assert_eq!(agent.jobs().len(), 2, "a slot is gone");
}
