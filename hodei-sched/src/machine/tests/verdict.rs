//! What an end means for the job.

use std::time::Duration;

use hodei_core::gateway::News;
use hodei_core::job::{
    Backoff, Cause, Failure, FailureClass, Finish, JobSpecBuilder, RetryPolicy, RetryRule, State,
};

use super::world::{Agent, World, command};

fn failed(class: FailureClass) -> News {
    News::Ended(Box::new(Finish::failed(Failure::new(class, "no"))))
}

/// A policy of waits that are told exactly.
fn patient(attempts: u32) -> JobSpecBuilder {
    let backoff = Backoff::Exponential { base: Duration::from_secs(1), max: Duration::from_secs(60) };
    command().retry(RetryPolicy::attempts(attempts).backoff(backoff).exact())
}

/// Runs a job once with an end, and tells state, cause, attempt and wait.
fn after(spec: JobSpecBuilder, news: News) -> (State, Cause, u32, Duration) {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(spec, 1);
    world.news(&mut agent);
    agent.report(jobs[0], news);
    world.sync(&mut agent);
    let job = world.job(jobs[0]);
    (job.state, job.cause, job.attempt, job.eligible_at.saturating_since(job.moved_at))
}

#[test]
fn each_end_has_its_consequence() {
    use {FailureClass as F, State as S};
    let cases = [
        ("an error", patient(3), failed(F::Error), (S::Pending, Cause::Retried, 1, 1)),
        ("an error, no attempt left", patient(1), failed(F::Error), (S::Failed, Cause::Failed, 1, 0)),
        ("bad input", patient(3), failed(F::BadInput), (S::Failed, Cause::Failed, 1, 0)),
        ("a fatal error", patient(3), failed(F::Fatal), (S::Failed, Cause::Failed, 1, 0)),
        ("a snooze", patient(1), News::Snoozed(Duration::from_secs(9)), (S::Pending, Cause::Snoozed, 0, 9)),
        (
            "a class that is never retried",
            command().retry(RetryPolicy::attempts(3).exact().on(F::Exit, RetryRule::Never)),
            failed(F::Exit),
            (S::Failed, Cause::Failed, 1, 0),
        ),
        (
            "its own end",
            patient(3),
            News::Ended(Box::new(Finish::cancelled())),
            (S::Cancelled, Cause::Cancelled, 1, 0),
        ),
    ];
    for (name, spec, news, (state, cause, attempt, wait)) in cases {
        assert_eq!(after(spec, news), (state, cause, attempt, Duration::from_secs(wait)), "{name}");
    }
}

#[test]
fn attempts_are_counted_and_waits_grow_until_none_is_left() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(patient(3), 1);
    let mut waits = Vec::new();
    for attempt in 1..=3 {
        let assigned = match world.sync(&mut agent) {
            Some(heard) => heard.expect("an answer").assign.len(),
            None => 0,
        };
        assert_eq!((assigned, world.job(jobs[0]).attempt), (1, attempt - 1));
        agent.report(jobs[0], failed(FailureClass::Error));
        world.sync(&mut agent);
        let job = world.job(jobs[0]);
        waits.push(job.eligible_at.saturating_since(job.moved_at).as_secs());
        world.pass(Duration::from_secs(waits.last().copied().unwrap_or(0)));
    }
    let job = world.job(jobs[0]);
    assert_eq!((job.state, job.attempt, &waits[..2]), (State::Failed, 3, &[1, 2][..]));
}

#[test]
fn jobs_that_failed_together_do_not_come_back_together() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 20));
    let wait = Backoff::Fixed(Duration::from_secs(60));
    let jobs = world.submit(command().retry(RetryPolicy::attempts(2).backoff(wait)), 20);
    world.news(&mut agent);
    jobs.iter().for_each(|job| agent.report(*job, failed(FailureClass::Error)));
    world.sync(&mut agent);
    let waits =
        jobs.iter().map(|job| world.job(*job)).map(|job| job.eligible_at.saturating_since(job.moved_at));
    let mut waits: Vec<Duration> = waits.collect();
    assert!(waits.iter().all(|wait| (30..=60).contains(&wait.as_secs())), "{waits:?}");
    waits.sort();
    waits.dedup();
    assert!(waits.len() > 15, "{waits:?}");
}
