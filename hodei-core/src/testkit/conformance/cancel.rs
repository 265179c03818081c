//! Cancelling: at once, by request, or too late.

use super::env::{Env, LIFE};
use super::jobs::*;
use crate::job::{Cause, Outcome, State};
use crate::store::{Applied, CancelReply, Move};

pub(super) async fn what_does_not_run_is_cancelled_at_once(env: &mut Env) {
    let parent = env.add(job_of(spec().queue("parent"))).await;
    let blocked = env.add(job().after(needs(&[parent]))).await;
    let delayed = env.add(job().run_at(env.ahead(HOUR))).await;
    let scheduled = env.add(job()).await;
    let held = env.hold(scheduled).await;
    let pending = env.add(job()).await;
    env.advance(SECOND).await;
    for id in [blocked, delayed, pending, scheduled] {
        let before = env.get(id).await;
        assert_eq!(env.cancel(&[id]).await, [CancelReply::Cancelled]);
        let stored = env.get(id).await;
        assert_eq!((stored.state, stored.cause), (State::Cancelled, Cause::Cancelled));
        assert_eq!((stored.outcome(), stored.moved_at), (Some(&Outcome::Cancelled), env.now()));
        assert_eq!((stored.epoch, stored.lease), (before.epoch.next(), None));
    }
    let lost = Applied::LeaseLost { held: held.job.epoch, current: held.job.epoch.next() };
    for step in [started(), succeeded(), cancelled(), Move::Returned] {
        assert_eq!(env.tell(&held, step).await, lost, "whoever holds it is fenced off");
    }
    assert_eq!(env.lanes().await.heads.len(), 1, "only the parent is ready");
}

pub(super) async fn what_runs_is_asked_to_stop(env: &mut Env) {
    let held = env.running(job()).await;
    let before = env.get(held.job.id).await;
    for _ in 0..2 {
        let done = env.store().request_cancel(&own(), vec![held.job.id]).await.expect("cancel");
        assert_eq!((done.replies, done.changes), (vec![CancelReply::Requested], vec![]));
    }
    let stored = env.get(held.job.id).await;
    assert!(stored.cancel_requested);
    assert_eq!((stored.state, stored.version, stored.epoch), (State::Running, before.version, before.epoch));
    assert_eq!(env.tell(&held, cancelled()).await, Applied::Done);
    let stored = env.get(held.job.id).await;
    assert_eq!((stored.state, stored.cancel_requested), (State::Cancelled, false));
}

pub(super) async fn a_run_that_truly_finished_keeps_its_end(env: &mut Env) {
    for (step, state) in [(succeeded(), State::Succeeded), (failed(), State::Failed)] {
        let held = env.running(job()).await;
        env.cancel(&[held.job.id]).await;
        assert_eq!(env.tell(&held, step).await, Applied::Done);
        assert_eq!(env.state(held.job.id).await, state);
    }
}

pub(super) async fn nothing_comes_after_a_request_but_an_end(env: &mut Env) {
    for step in [retried(SECOND), snoozed(SECOND), Move::Preempted] {
        let held = env.running(job()).await;
        env.cancel(&[held.job.id]).await;
        assert_eq!(env.tell(&held, step.clone()).await, Applied::Done);
        let stored = env.get(held.job.id).await;
        assert_eq!((stored.state, stored.cause), (State::Cancelled, Cause::Cancelled), "{step:?}");
        assert!(!stored.cancel_requested);
    }
}

pub(super) async fn a_request_outlives_the_owner(env: &mut Env) {
    let term = env.term().await;
    let owner = env.owner("a").await;
    let id = env.add(job()).await;
    let child = env.add(job().after(needs(&[id]))).await;
    let held = env.take(&owner, id).await;
    env.tell(&held, started()).await;
    env.cancel(&[id]).await;
    env.advance(LIFE).await;
    env.reap(&term, 9).await;
    let stored = env.get(id).await;
    assert_eq!((stored.state, stored.lost_count), (State::Cancelled, 0));
    assert_eq!(env.state(child).await, State::Cancelled);
}

pub(super) async fn what_has_ended_or_is_unknown_stays_so(env: &mut Env) {
    let ended = env.add(job()).await;
    env.run(ended, succeeded()).await;
    let gone = env.add(job()).await;
    let unknown = nobody();
    let (stored, terminal) = (env.get(ended).await, CancelReply::AlreadyTerminal);
    let replies = env.cancel(&[ended, unknown, gone, gone]).await;
    assert_eq!(replies, [terminal, CancelReply::NotFound, CancelReply::Cancelled, terminal]);
    assert_eq!(env.get(ended).await, stored);
    assert_eq!(env.cancel(&[]).await, []);
}
