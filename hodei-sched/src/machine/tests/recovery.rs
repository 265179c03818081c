//! A store that does not answer, or no longer knows the node.

use std::time::Duration;

use hodei_core::gateway::StopCause;
use hodei_core::job::{Resources, State};
use hodei_core::store::{Applied, Coordination, Exchanged, Move};
use hodei_core::{Clock, Timestamp};

use super::world::{Agent, World, assigned, command, now, success, unavailable};
use crate::machine::{Effect, Input};

/// Brings a claim of one job to the point where the store is called.
fn about_to_claim(world: &mut World, agent: &mut Agent) -> (hodei_core::JobId, Effect) {
    world.sync(agent);
    world.hold = true;
    let jobs = world.submit(command(), 1);
    (jobs[0], world.claim_call())
}

#[test]
fn a_claim_whose_reply_was_lost_is_found_again_and_assigned_once() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let (job, claim) = about_to_claim(&mut world, &mut agent);
    world.perform(claim);
    world.tell(Input::Exchanged(Err(unavailable())));
    world.let_go();
    world.pass(Duration::from_secs(1));
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!((assigned(&heard), heard.assign[0].job.epoch.number()), (vec![job], 1));
    assert!(world.sync(&mut agent).is_none());
}

#[test]
fn a_claim_that_never_arrived_is_made_again() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let (job, _lost) = about_to_claim(&mut world, &mut agent);
    world.tell(Input::Exchanged(Err(unavailable())));
    world.let_go();
    world.pass(Duration::from_secs(1));
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!(assigned(&heard), [job]);
}

#[test]
fn an_end_whose_reply_was_lost_is_written_once_and_acknowledged() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    world.hold = true;
    agent.report(jobs[0], success());
    world.sync(&mut agent);
    let end = world.call_that(|call| matches!(call, Effect::Exchange(_)));
    world.perform(end);
    world.tell(Input::Exchanged(Err(unavailable())));
    let version = world.job(jobs[0]).version;
    world.let_go();
    world.pass(Duration::from_secs(1));
    let said = world.exchanges.iter().flat_map(|exchange| &exchange.transitions);
    assert_eq!(
        said.filter(|transition| matches!(transition.step, Move::Finished(_))).count(),
        2,
        "said twice"
    );
    assert_eq!((world.job(jobs[0]).state, world.job(jobs[0]).version), (State::Succeeded, version));
    assert_eq!(world.hear(&mut agent).expect("news").expect("an answer").acked, 1);
}

#[test]
fn waits_double_while_the_store_fails_and_start_anew_when_it_answers() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.hold = true;
    world.sync(&mut agent);
    for wait in [50, 100, 200, 400, 800, 1_600, 3_200, 3_200] {
        assert!(matches!(world.take_call(), Effect::AskLanes { .. }));
        world.tell(Input::Lanes(Err(unavailable())));
        // Heard of meanwhile, so that the session lives on.
        world.sync(&mut agent);
        world.pass(Duration::from_millis(wait - 1));
        assert!(world.held.is_empty(), "it waits {wait} ms");
        world.pass(Duration::from_millis(1));
    }
    world.let_go();
    world.hold = true;
    world.sync(&mut agent);
    world.tell(Input::Woken);
    world.take_call();
    world.tell(Input::Lanes(Err(unavailable())));
    world.pass(Duration::from_millis(50));
    assert_eq!(world.held.len(), 1, "the first wait again");
}

#[test]
fn a_failure_that_nobody_waits_for_any_more_does_not_keep_the_driver_awake() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.hold = true;
    world.sync(&mut agent);
    world.take_call();
    world.tell(Input::Lanes(Err(unavailable())));
    world.tell(Input::Abandon);
    for _ in 0..10 {
        world.pass(Duration::from_secs(60));
        let again = world.machine.poll_timeout();
        assert!(again > world.clock.now(), "the next look is at {again}");
    }
}

#[test]
fn a_node_that_was_given_up_stops_what_it_ran_and_begins_anew() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    now(world.store.retire(&world.owner)).expect("the store retires");
    // The next claim finds the row gone.
    let later = world.submit(command(), 1);
    let heard = world.news(&mut agent);
    assert_eq!(
        heard.stop.iter().map(|stop| (stop.job, stop.why)).collect::<Vec<_>>(),
        [(jobs[0], StopCause::LeaseLost)]
    );
    assert_eq!(assigned(&heard), later);
    assert_eq!((world.owner.incarnation, world.job(later[0]).lease), (2, Some(world.owner.clone())));
}

#[test]
fn a_node_that_cannot_register_tries_again_later() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.sync(&mut agent);
    now(world.store.retire(&world.owner)).expect("the store retires");
    world.hold = true;
    world.submit(command(), 1);
    world.call_that(|call| matches!(call, Effect::Register));
    world.tell(Input::Registered(world.owner.clone(), world.clock_now()));
    assert!(world.held.is_empty(), "the lease is the old one: it waits first");
    world.pass(Duration::from_millis(50));
    assert!(matches!(world.take_call(), Effect::Register));
}

#[test]
fn a_delayed_job_is_claimed_when_it_is_due_and_costs_nothing_until_then() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.sync(&mut agent);
    let due = world.clock.now().saturating_add(Duration::from_millis(700));
    let job = hodei_core::job::NewJob::new(command().build().expect("a valid spec")).run_at(due);
    let jobs = world.submit_all(vec![job]);
    assert_eq!(world.machine.poll_timeout(), due, "the machine asks to be woken then");
    world.pass(Duration::from_millis(699));
    assert_eq!(world.job(jobs[0]).state, State::Pending);
    world.pass(Duration::from_millis(1));
    assert_eq!(assigned(&world.hear(&mut agent).expect("news").expect("an answer")), jobs);
    assert!(world.machine.poll_timeout() < Timestamp::MAX);
}

/// A store of several parts, one of which did not answer: it did not take what belongs to it.
#[test]
fn what_a_part_of_the_store_does_not_take_is_told_again_and_holds_up_nobody() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let jobs = world.submit(command(), 2);
    world.news(&mut agent);
    world.hold = true;
    agent.report(jobs[0], success());
    world.sync(&mut agent);
    let Effect::Exchange(refused) = world.call_that(|call| matches!(call, Effect::Exchange(_))) else {
        panic!("an exchange was waited for");
    };
    assert_eq!(refused.transitions.len(), 1);
    agent.report(jobs[1], success());
    world.sync(&mut agent);
    let applied = vec![Applied::Unavailable];
    world.tell(Input::Exchanged(Ok(Exchanged { applied, ..Exchanged::default() })));
    world.let_go();
    assert_eq!([world.job(jobs[0]).state, world.job(jobs[1]).state], [State::Scheduled, State::Succeeded]);
    world.pass(Duration::from_millis(49));
    assert_eq!(world.job(jobs[0]).state, State::Scheduled, "it waits before it tells it again");
    assert!(!world.machine.is_idle(), "that is still to be told");
    world.pass(Duration::from_millis(1));
    assert_eq!(world.job(jobs[0]).state, State::Succeeded);
    assert_eq!(world.hear(&mut agent).expect("news").expect("an answer").acked, 2);
    assert!(world.machine.is_idle());
}

#[test]
fn the_waits_of_a_transition_double_while_others_are_told_at_once() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 12));
    let mut jobs = world.submit(command(), 9);
    world.news(&mut agent);
    world.hold = true;
    let first = jobs.remove(0);
    agent.report(first, success());
    world.sync(&mut agent);
    let refused = || Exchanged { applied: vec![Applied::Unavailable], ..Exchanged::default() };
    let ends = |call: &Effect, job| {
        let Effect::Exchange(exchange) = call else { return false };
        exchange.transitions.iter().any(|transition| transition.job == job)
    };
    for (wait, other) in [50, 100, 200, 400, 800, 1_600, 3_200, 3_200].into_iter().zip(jobs) {
        world.call_that(|call| ends(call, first));
        world.tell(Input::Exchanged(Ok(refused())));
        agent.report(other, success());
        world.sync(&mut agent);
        let call = world.call_that(|call| ends(call, other));
        assert!(!ends(&call, first), "nor does the other wait for it");
        let answer = world.perform(call);
        world.tell(answer);
        world.pass(Duration::from_millis(wait - 1));
        // The lanes are asked for every second.
        while let Some(call) = world.held.pop_front() {
            assert!(!ends(&call, first), "it waits {wait} ms");
            let answer = world.perform(call);
            world.tell(answer);
        }
        world.sync(&mut agent);
        assert!(world.machine.poll_timeout() <= world.clock.now().saturating_add(Duration::from_millis(1)));
        world.pass(Duration::from_millis(1));
    }
    world.let_go();
    assert_eq!(world.job(first).state, State::Succeeded);
}

#[test]
fn transitions_that_were_not_taken_one_after_the_other_are_told_again_together() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 3));
    let jobs = world.submit(command(), 3);
    world.news(&mut agent);
    for job in &jobs {
        world.hold = true;
        agent.report(*job, success());
        world.sync(&mut agent);
        world
            .call_that(|call| matches!(call, Effect::Exchange(exchange) if !exchange.transitions.is_empty()));
        let applied = vec![Applied::Unavailable];
        world.tell(Input::Exchanged(Ok(Exchanged { applied, ..Exchanged::default() })));
        world.let_go();
        world.pass(Duration::from_millis(10));
    }
    let before = world.exchanges.len();
    (0..7).for_each(|_| world.pass(Duration::from_millis(10)));
    let told = world.exchanges[before..].iter().map(|exchange| exchange.transitions.len());
    assert_eq!(told.filter(|told| *told > 0).collect::<Vec<_>>(), [1, 2], "after 50 ms and after 100");
    assert!(jobs.iter().all(|job| world.job(*job).state == State::Succeeded));
}

#[test]
fn a_claim_that_comes_again_is_assigned_once() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let (job, claim) = about_to_claim(&mut world, &mut agent);
    let Input::Exchanged(Ok(mut done)) = world.perform(claim) else { panic!("it is claimed") };
    done.reclaimed = done.claimed.clone();
    world.tell(Input::Exchanged(Ok(done)));
    world.let_go();
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!(assigned(&heard), [job]);
    assert!(world.sync(&mut agent).is_none());
}

#[test]
fn a_claim_that_comes_late_is_assigned() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let (job, claim) = about_to_claim(&mut world, &mut agent);
    let Input::Exchanged(Ok(done)) = world.perform(claim) else { panic!("it is claimed") };
    let late = Exchanged { reclaimed: done.claimed, ..Exchanged::default() };
    world.tell(Input::Exchanged(Ok(late)));
    world.let_go();
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!(assigned(&heard), [job]);
}

#[test]
fn a_node_that_knows_of_no_ready_work_asks_for_some_only_when_it_is_woken() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.sync(&mut agent);
    world.hold = true;
    for _ in 0..60 {
        world.pass(Duration::from_secs(1));
        world.sync(&mut agent);
    }
    assert!(world.held.is_empty(), "{:?}", world.held);
    world.submit(command(), 1);
    assert!(matches!(world.take_call(), Effect::AskLanes { .. }));
}

#[test]
fn a_node_with_ready_work_that_it_cannot_run_looks_again_every_second() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let far = command().resources(Resources::none().gpus(1));
    world.submit(far, 1);
    world.sync(&mut agent);
    world.hold = true;
    world.pass(Duration::from_secs(1));
    assert!(matches!(world.take_call(), Effect::AskLanes { .. }));
}
