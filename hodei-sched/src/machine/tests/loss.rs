//! What becomes of the jobs of an agent that is gone.

use std::time::Duration;

use hodei_core::gateway::News;
use hodei_core::job::{Cause, FailureClass, Outcome, State};

use super::world::{Agent, World, command, success};
use crate::machine::{Input, SchedulerConfig};

/// Longer than a waiting call and the silence after it.
const SILENCE: Duration = Duration::from_secs(9);

#[test]
fn a_silent_agents_jobs_count_a_loss_and_no_attempt() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let jobs = world.submit(command(), 2);
    world.news(&mut agent);
    agent.report(jobs[0], News::Started);
    world.news(&mut agent);
    world.pass(SILENCE);
    world.pass(SILENCE);
    for job in jobs.iter().map(|id| world.job(*id)) {
        let found = (job.state, job.cause, job.lost_count, job.attempt);
        assert_eq!(found, (State::Pending, Cause::Lost, 1, 0), "started or not: it may have run");
    }
}

#[test]
fn an_agent_is_given_up_after_its_time_and_not_before() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    world.pass(Duration::from_micros(5_999_999));
    assert_eq!(world.job(jobs[0]).state, State::Scheduled);
    world.pass(Duration::from_micros(1));
    assert_eq!(world.job(jobs[0]).state, State::Pending);
}

#[test]
fn a_job_of_which_the_agent_was_never_told_goes_back_at_no_cost() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    // Answered, and not calling: what is assigned now waits for its next call.
    world.sync(&mut agent);
    world.pass(Duration::from_secs(2));
    assert!(world.hear(&mut agent).is_some());
    let jobs = world.submit(command(), 1);
    assert_eq!(world.job(jobs[0]).state, State::Scheduled);
    world.pass(SILENCE);
    let job = world.job(jobs[0]);
    assert_eq!((job.state, job.cause, job.lost_count), (State::Pending, Cause::Returned, 0));
}

#[test]
fn a_job_under_which_agents_keep_dying_fails() {
    let mut world = World::with(SchedulerConfig { lost_max: 3, ..SchedulerConfig::default() });
    let jobs = world.submit(command(), 1);
    let mut agent = Agent::new("w", 1);
    for life in 1..=3 {
        assert_eq!(world.news(&mut agent).assign[0].job.epoch.number(), life);
        agent = agent.reborn();
    }
    world.sync(&mut agent);
    let job = world.job(jobs[0]);
    assert_eq!((job.state, job.cause, job.lost_count), (State::Failed, Cause::LostTooOften, 3));
    let Some(Outcome::Failed(failure)) = job.outcome() else { panic!("it failed") };
    assert_eq!(failure.class, FailureClass::LostTooOften);
}

#[test]
fn an_end_that_was_reported_is_no_loss() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let jobs = world.submit(command(), 2);
    world.news(&mut agent);
    world.hold = true;
    agent.report(jobs[0], success());
    world.sync(&mut agent);
    let mut next = agent.reborn();
    world.sync(&mut next);
    world.let_go();
    assert_eq!(world.job(jobs[0]).state, State::Succeeded);
    assert_eq!(world.job(jobs[1]).lost_count, 1);
}

#[test]
fn a_run_that_was_lost_and_comes_back_is_fenced_off() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    world.pass(SILENCE);
    let mut other = Agent::new("other", 1);
    assert_eq!(world.news(&mut other).assign[0].job.epoch.number(), 2);
    agent.report(jobs[0], success());
    world.sync(&mut agent);
    assert_eq!((world.job(jobs[0]).state, world.job(jobs[0]).epoch.number()), (State::Scheduled, 2));
    other.finish_all();
    world.sync(&mut other);
    assert_eq!(world.job(jobs[0]).state, State::Succeeded);
}

#[test]
fn agents_that_the_node_itself_stopped_cost_their_jobs_nothing() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let jobs = world.submit(command(), 2);
    world.news(&mut agent);
    agent.report(jobs[0], News::Started);
    world.news(&mut agent);
    world.tell(Input::Abandon);
    for job in jobs.iter().map(|id| world.job(*id)) {
        assert_eq!((job.state, job.lost_count, job.attempt), (State::Pending, 0, 0));
    }
    assert!(world.machine.is_idle());
}
