//! What comes to a node that waits for work is claimed with its submission.

use std::time::Duration;

use hodei_core::JobId;
use hodei_core::job::{JobSpecBuilder, NewJob, Priority};
use hodei_core::store::{Exchange, JobStore, SubmitOptions};

use super::world::{Agent, World, assigned, command, now, unavailable};
use crate::machine::{Effect, Input};

fn job(spec: JobSpecBuilder) -> NewJob {
    NewJob::new(spec.build().expect("a valid spec"))
}

/// A node that has run a job, and an agent of so many slots that waits for another one.
fn idle(slots: u32) -> (World, Agent) {
    let (mut world, mut agent) = (World::new(), Agent::new("w", slots));
    world.submit(command(), 1);
    world.settle(&mut agent);
    agent.finish_all();
    world.settle(&mut agent);
    (world, agent)
}

fn claim(world: &mut World, jobs: &[NewJob]) -> Option<Exchange> {
    let at = world.clock_now();
    world.machine.standby(at)?.exchange(jobs, at)
}

/// Stores jobs without telling the machine.
fn store(world: &World, jobs: Vec<NewJob>) -> Vec<JobId> {
    let committed = now(world.store.submit(jobs, SubmitOptions::each())).expect("the store takes them");
    committed.replies.iter().filter_map(|reply| reply.stored()).collect()
}

/// Submits jobs with their claim, as a driver and whoever submits do.
fn submit_along(world: &mut World, jobs: Vec<NewJob>) -> Vec<JobId> {
    let exchange = claim(world, &jobs).expect("it waits for such");
    world.machine.handle(Input::Claiming, world.clock_now());
    let jobs = store(world, jobs);
    let answer = world.perform(Effect::Exchange(Box::new(exchange)));
    world.tell(answer);
    jobs
}

#[test]
fn what_comes_to_an_idle_node_is_claimed_with_its_submission() {
    let (mut world, mut agent) = idle(1);
    let before = world.exchanges.len();
    let jobs = submit_along(&mut world, vec![job(command())]);
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!((assigned(&heard), world.exchanges.len()), (jobs, before + 1));
    agent.finish_all();
    world.settle(&mut agent);
    assert!(claim(&mut world, &[job(command())]).is_some(), "it waits again");
}

#[test]
fn no_more_is_claimed_than_there_is_room_for() {
    let (mut world, mut agent) = idle(2);
    let jobs = submit_along(&mut world, (0..5).map(|_| job(command())).collect());
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!(assigned(&heard), jobs[..2]);
    assert!(claim(&mut world, &[job(command())]).is_none(), "no slot is free, and something is ready");
}

#[test]
fn only_what_can_start_at_once_is_claimed_with_its_submission() {
    let (mut world, _agent) = idle(64);
    let mut later = job(command());
    later.run_at = Some(world.clock_now().saturating_add(Duration::from_secs(60)));
    assert!(claim(&mut world, &[later]).is_none());
    assert!(claim(&mut world, &[job(command().sequence("one"))]).is_none());
    assert!(claim(&mut world, &[job(command().queue("unknown"))]).is_none());
    let two = [job(command()), job(command().queue("other"))];
    assert!(claim(&mut world, &two).is_none(), "the other lane may hold what is more urgent");
    let many: Vec<NewJob> = (0..17).map(|_| job(command())).collect();
    assert!(claim(&mut world, &many).is_none());
    assert!(claim(&mut world, &many[..16]).is_some());
}

#[test]
fn a_node_that_knows_of_work_or_has_something_to_say_does_not_stand_by() {
    let (mut world, _agent) = idle(2);
    let at = world.clock_now();
    assert!(world.machine.standby(at).is_some());
    world.machine.handle(Input::Woken, at);
    assert!(world.machine.standby(at).is_none(), "the store has rung");
    world.tell(Input::Tick);
    assert!(world.machine.standby(at).is_some());
    let jobs = [job(command())];
    let standby = world.machine.standby(at).expect("it waits for work");
    let mut later = job(command());
    later.run_at = Some(at.saturating_add(Duration::from_secs(5)));
    world.submit_all(vec![later]);
    let due = world.machine.standby(at).expect("nothing is ready");
    let then = at.saturating_add(Duration::from_secs(5));
    assert!(standby.exchange(&jobs, then).is_some() && due.exchange(&jobs, then).is_none(), "one is due");
    world.tell(Input::Drain);
    assert!(world.machine.standby(at).is_none(), "it takes no more work");
}

#[test]
fn what_is_more_urgent_than_what_was_claimed_with_its_submission_comes_first() {
    let (mut world, mut agent) = idle(1);
    world.pass(Duration::from_millis(500));
    let lesser = vec![job(command().priority(Priority::MIN))];
    let exchange = claim(&mut world, &lesser).expect("it waits for such");
    world.machine.handle(Input::Claiming, world.clock_now());
    let urgent = store(&world, vec![job(command().queue("other").priority(Priority::MAX))]);
    store(&world, lesser);
    let answer = world.perform(Effect::Exchange(Box::new(exchange)));
    world.tell(answer);
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), urgent);
}

#[test]
fn a_claim_with_a_submission_of_which_nothing_was_heard_is_asked_for() {
    let (mut world, mut agent) = idle(1);
    let jobs = vec![job(command())];
    let exchange = claim(&mut world, &jobs).expect("it waits for such");
    world.machine.handle(Input::Claiming, world.clock_now());
    let jobs = store(&world, jobs);
    world.perform(Effect::Exchange(Box::new(exchange)));
    world.tell(Input::Exchanged(Err(unavailable())));
    world.pass(Duration::from_secs(1));
    world.settle(&mut agent);
    assert_eq!(agent.jobs(), jobs);
}

#[test]
fn where_claims_do_not_meet_their_submissions_they_become_rare() {
    let (mut world, _agent) = idle(1);
    let jobs = [job(command())];
    let mut made = 0;
    for _ in 0..64 {
        if let Some(exchange) = claim(&mut world, &jobs) {
            made += 1;
            world.machine.handle(Input::Claiming, world.clock_now());
            let answer = world.perform(Effect::Exchange(Box::new(exchange)));
            world.tell(answer);
        }
    }
    assert_eq!(made, 4 + 60 / 15, "one of sixteen, itself counted");
}
