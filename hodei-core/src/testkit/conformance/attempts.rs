//! Attempts: what costs one, and when the next may begin.

use std::sync::Arc;
use std::time::Duration;

use super::env::Env;
use super::jobs::*;
use crate::job::{Cause, Manifest, Outcome, State};
use crate::store::{Applied, Move};

pub(super) async fn an_attempt_is_counted_when_a_run_begins(env: &mut Env) {
    let id = env.add(job()).await;
    for (step, ended_at_once, attempt) in [
        (Move::Returned, true, 0),
        (snoozed(Duration::ZERO), true, 0),
        (snoozed(Duration::ZERO), false, 0),
        (Move::Preempted, false, 0),
        (retried(Duration::ZERO), true, 1),
        (retried(Duration::ZERO), false, 2),
        (Move::Preempted, false, 2),
        (succeeded(), true, 3),
    ] {
        let held = env.hold(id).await;
        if !ended_at_once {
            env.tell(&held, started()).await;
        }
        env.tell(&held, step.clone()).await;
        assert_eq!(env.get(id).await.attempt, attempt, "after {step:?}");
    }
}

pub(super) async fn a_start_tells_when(env: &mut Env) {
    let id = env.add(job()).await;
    let held = env.hold(id).await;
    env.advance(SECOND).await;
    env.tell(&held, started()).await;
    let stored = env.get(id).await;
    assert_eq!((stored.state, stored.cause, stored.attempt), (State::Running, Cause::Started, 1));
    assert_eq!((stored.started_at, stored.moved_at), (Some(env.now()), env.now()));
}

pub(super) async fn waits_count_from_the_stores_now(env: &mut Env) {
    for (step, cause) in [(retried(5 * SECOND), Cause::Retried), (snoozed(5 * SECOND), Cause::Snoozed)] {
        let held = env.running(job()).await;
        env.advance(SECOND).await;
        assert_eq!(env.tell(&held, step).await, Applied::Done);
        let (stored, due) = (env.get(held.job.id).await, env.ahead(5 * SECOND));
        assert_eq!((stored.state, stored.cause, stored.eligible_at), (State::Pending, cause, due));
        assert_eq!(stored.lease, None);
        assert_eq!(env.lanes().await.next_due, Some(due));
        let worker = env.worker().await;
        env.advance(4 * SECOND).await;
        assert!(env.claim_beside(&worker, held.job.id, 1).await.is_empty());
        env.advance(SECOND).await;
        env.take(&worker, held.job.id).await;
    }
}

pub(super) async fn the_last_failure_stays_with_the_job(env: &mut Env) {
    let held = env.running(job()).await;
    let manifest = Arc::new(Manifest::default());
    let step =
        Move::Retried { failure: failure(), wait: Duration::ZERO, manifest: Some(Arc::clone(&manifest)) };
    env.tell(&held, step).await;
    let stored = env.get(held.job.id).await;
    let settled = stored.settled.as_deref().expect("the run has ended");
    assert_eq!((&settled.outcome, &settled.manifest), (&Outcome::Failed(failure()), &Some(manifest)));
    assert_eq!((stored.outcome(), stored.output()), (None, None), "the job itself has not");
    assert_eq!(env.hold(held.job.id).await.job.settled, stored.settled, "and comes with the claim");
}

pub(super) async fn a_returned_job_keeps_its_place_and_a_preempted_one_does_not(env: &mut Env) {
    let all = env.add_all(vec![job(), job()]).await;
    env.advance(SECOND).await;
    let held = env.hold(all[0]).await;
    env.tell(&held, Move::Returned).await;
    let held = env.hold(all[0]).await;
    env.tell(&held, started()).await;
    env.tell(&held, Move::Preempted).await;
    env.hold(all[1]).await;
    env.hold(all[0]).await;
    assert_eq!(env.get(all[0]).await.epoch.number(), 3);
}

pub(super) async fn a_very_long_wait_is_no_overflow(env: &mut Env) {
    let held = env.running(job()).await;
    assert_eq!(env.tell(&held, retried(Duration::MAX)).await, Applied::Done);
    let stored = env.get(held.job.id).await;
    assert_eq!(stored.eligible_at, crate::time::Timestamp::MAX);
}
