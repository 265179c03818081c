//! Dispatchers that lend each other jobs: two machines on one store.

use std::time::Duration;

use hodei_core::JobId;
use hodei_core::gateway::News;
use hodei_core::job::State;
use hodei_core::store::Coordination;

use super::world::{Agent, World, command, now, success, unavailable};
use crate::machine::{Effect, Input};

/// A machine that has claimed ahead, with its agent, and one that borrows a job of it.
struct Pair {
    lender: World,
    busy: Agent,
    borrower: World,
    idle: Agent,
    job: JobId,
}

fn pair() -> Pair {
    let (mut lender, mut busy) = (World::new(), Agent::new("busy", 8));
    lender.submit(command(), 200);
    lender.settle(&mut busy);
    while lender.machine.surplus() < 4 {
        busy.finish_all();
        lender.settle(&mut busy);
    }
    let mut borrower = World::beside(&lender, "other");
    let mut idle = Agent::new("idle", 1);
    borrower.settle(&mut idle);
    borrower.machine.has_asked();
    let mut lent = lender.machine.lend(9);
    let rest = lent.split_off(1);
    lender.machine.unlend(rest, lender.clock_now());
    let job = lent[0].job.id;
    borrower.machine.take_lent(lent, borrower.clock_now());
    idle.finish_all();
    borrower.settle(&mut idle);
    assert_eq!(idle.jobs(), [job], "what is here comes before what would be claimed");
    Pair { lender, busy, borrower, idle, job }
}

#[test]
fn the_lease_of_a_job_that_was_lent_moves_with_its_first_report() {
    let Pair { lender, mut borrower, mut idle, job, .. } = pair();
    assert_eq!(lender.job(job).lease.expect("it is leased").owner, lender.owner.owner);
    idle.report(job, News::Started);
    borrower.settle(&mut idle);
    assert_eq!(borrower.job(job).lease.expect("it is leased").owner, borrower.owner.owner);
    idle.report(job, success());
    borrower.settle(&mut idle);
    assert_eq!((borrower.job(job).state, borrower.job(job).attempt), (State::Succeeded, 1));
}

#[test]
fn the_lender_does_not_run_what_the_store_still_takes_for_its_own() {
    let Pair { mut lender, mut busy, job, .. } = pair();
    // The reply of an exchange is lost, and the lender asks what it holds.
    lender.hold = true;
    busy.finish_all();
    lender.sync(&mut busy);
    let lost = lender.call_that(|call| matches!(call, Effect::Exchange(_)));
    lender.perform(lost);
    lender.hold = false;
    lender.tell(Input::Exchanged(Err(unavailable())));
    lender.pass(Duration::from_secs(1));
    while lender.job(job).state == State::Scheduled && !busy.jobs().is_empty() {
        assert!(!busy.jobs().contains(&job), "it runs elsewhere");
        busy.finish_all();
        lender.settle(&mut busy);
    }
    assert_eq!(lender.job(job).state, State::Scheduled);
}

#[test]
fn what_was_borrowed_is_nobodys_when_the_borrower_is_given_up() {
    let Pair { mut lender, mut borrower, mut idle, job, .. } = pair();
    borrower.machine.has_asked();
    let more = lender.machine.lend(9);
    let ids: Vec<JobId> = more.iter().map(|claimed| claimed.job.id).collect();
    borrower.machine.take_lent(more, borrower.clock_now());
    now(borrower.store.retire(&borrower.owner)).expect("it retires");
    idle.report(job, success());
    borrower.settle(&mut idle);
    assert_ne!(borrower.owner.incarnation, 0);
    for running in idle.jobs() {
        idle.report(running, News::Started);
    }
    borrower.settle(&mut idle);
    for id in ids {
        let holder = borrower.job(id).lease.map(|lease| lease.owner);
        assert_ne!(holder, Some(lender.owner.owner.clone()), "it runs, or somebody else may claim it");
    }
}

#[test]
fn no_more_is_lent_than_there_is_room_for() {
    let Pair { mut lender, .. } = pair();
    let waiting = lender.machine.surplus();
    assert_eq!((lender.machine.lend(1).len(), lender.machine.surplus()), (1, waiting - 1));
}

#[test]
fn what_nobody_can_use_goes_back() {
    let Pair { lender, mut borrower, mut idle, job, .. } = pair();
    borrower.tell(Input::Drain);
    idle.report(job, success());
    borrower.news(&mut idle);
    let mut lender = lender;
    borrower.machine.has_asked();
    let more = lender.machine.lend(9);
    let ids: Vec<JobId> = more.iter().map(|claimed| claimed.job.id).collect();
    borrower.machine.take_lent(more, borrower.clock_now());
    borrower.tell(Input::Tick);
    assert!(!ids.is_empty() && ids.iter().all(|id| borrower.job(*id).state == State::Pending));
}

#[test]
fn what_starts_while_its_borrower_begins_a_new_life_moves_to_that() {
    let Pair { mut borrower, mut idle, job, .. } = pair();
    let before = borrower.owner.clone();
    borrower.hold = true;
    borrower.tell(Input::Beaten(before.clone(), None));
    idle.report(job, News::Started);
    borrower.sync(&mut idle);
    borrower.let_go();
    assert_ne!(borrower.owner, before, "it had to register anew");
    assert_eq!(borrower.job(job).lease, Some(borrower.owner.clone()), "nobody reaps what runs here");
    idle.report(job, success());
    borrower.settle(&mut idle);
    assert_eq!(borrower.job(job).state, State::Succeeded);
}

#[test]
fn what_was_lent_to_one_who_died_goes_back_when_nobody_waits_for_its_agents() {
    let Pair { mut lender, mut busy, borrower, job, .. } = pair();
    drop(borrower);
    let epoch = lender.job(job).epoch;
    lender.machine.bereave(lender.clock_now());
    for _ in 0..5 {
        lender.pass(Duration::from_secs(1));
        lender.settle(&mut busy);
        assert_eq!((lender.job(job).state, lender.job(job).epoch), (State::Scheduled, epoch), "it may run");
    }
    lender.pass(Duration::from_secs(1));
    lender.settle(&mut busy);
    let after = lender.job(job);
    assert!(after.state == State::Pending || after.epoch > epoch, "{after:?}");
}

#[test]
fn what_has_begun_elsewhere_stays_there_when_a_third_one_dies() {
    // It was lent before the third one died, and after it.
    for dies_first in [false, true] {
        let Pair { mut lender, mut busy, mut borrower, mut idle, job } = pair();
        if !dies_first {
            lender.machine.bereave(lender.clock_now());
        }
        idle.report(job, News::Started);
        borrower.settle(&mut idle);
        if dies_first {
            lender.machine.bereave(lender.clock_now());
        }
        let begun = borrower.job(job);
        for _ in 0..8 {
            lender.pass(Duration::from_secs(1));
            lender.settle(&mut busy);
            assert_eq!(lender.job(job), begun, "it runs on");
        }
    }
}
