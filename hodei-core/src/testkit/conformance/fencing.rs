//! Transitions: made once, told again, fenced by the epoch.

use std::sync::Arc;
use std::time::Duration;

use super::env::Env;
use super::jobs::*;
use crate::job::{Epoch, Finish, LogEnd, Manifest, Outcome, State, Stream};
use crate::store::{Applied, Claimed, Move, Transition};

/// Every move that a running job can make.
fn moves() -> Vec<Move> {
    let wait = Duration::from_secs(5);
    vec![succeeded(), failed(), cancelled(), retried(wait), snoozed(wait), Move::Preempted]
}

/// Sends a transition again and sees that it is told apart and changes nothing.
async fn replay(env: &mut Env, held: &Claimed, step: Move) {
    let stored = env.get(held.job.id).await;
    env.advance(SECOND).await;
    let worker = env.worker().await;
    let done = env.exchange(&worker, vec![of(held, step)], Vec::new()).await;
    assert_eq!((done.applied, done.changes), (vec![Applied::AlreadyApplied], vec![]));
    assert_eq!(env.get(held.job.id).await, stored);
}

pub(super) async fn a_repeated_move_is_told_and_changes_nothing(env: &mut Env) {
    for step in moves() {
        let held = env.running(job()).await;
        replay(env, &held, started()).await;
        assert_eq!(env.tell(&held, step.clone()).await, Applied::Done, "{step:?}");
        replay(env, &held, step).await;
        replay(env, &held, started()).await;
        env.cancel(&[held.job.id]).await;
    }
}

pub(super) async fn a_job_may_end_without_a_start(env: &mut Env) {
    for step in moves().into_iter().chain([Move::Returned]) {
        let id = env.add(job()).await;
        let held = env.hold(id).await;
        assert_eq!(env.tell(&held, step.clone()).await, Applied::Done, "{step:?}");
        replay(env, &held, step).await;
        env.cancel(&[id]).await;
    }
}

pub(super) async fn a_stale_epoch_changes_nothing(env: &mut Env) {
    let held = env.running(job()).await;
    env.tell(&held, retried(Duration::ZERO)).await;
    let now_held = env.hold(held.job.id).await;
    let lost = Applied::LeaseLost { held: held.job.epoch, current: now_held.job.epoch };
    for step in moves().into_iter().chain([started(), Move::Returned]) {
        assert_eq!(env.tell(&held, step.clone()).await, lost, "{step:?}");
        assert_eq!(env.get(held.job.id).await, *now_held.job);
    }
    assert_eq!(env.tell(&now_held, started()).await, Applied::Done);
}

pub(super) async fn an_epoch_from_the_future_changes_nothing(env: &mut Env) {
    let held = env.running(job()).await;
    let ahead = Epoch::from_number(held.job.epoch.number() + 1);
    let step = Transition { job: held.job.id, epoch: ahead, step: succeeded() };
    let lost = Applied::LeaseLost { held: ahead, current: held.job.epoch };
    assert_eq!(env.report(vec![step]).await, [lost]);
    assert_eq!(env.state(held.job.id).await, State::Running);
}

pub(super) async fn only_one_of_two_ends_counts(env: &mut Env) {
    let held = env.running(job()).await;
    assert_eq!(env.tell(&held, succeeded()).await, Applied::Done);
    let epoch = held.job.epoch;
    for step in [failed(), cancelled(), retried(SECOND), Move::Preempted] {
        let lost = Applied::LeaseLost { held: epoch, current: epoch };
        assert_eq!(env.tell(&held, step).await, lost);
    }
    assert_eq!(env.state(held.job.id).await, State::Succeeded);
}

pub(super) async fn a_job_that_nobody_holds_takes_no_reports(env: &mut Env) {
    let id = env.add(job()).await;
    let step = |epoch| Transition { job: id, epoch: Epoch::from_number(epoch), step: succeeded() };
    for epoch in [0, 1] {
        let lost = Applied::LeaseLost { held: Epoch::from_number(epoch), current: Epoch::default() };
        assert_eq!(env.report(vec![step(epoch)]).await, [lost]);
    }
    assert_eq!(env.state(id).await, State::Pending);
}

pub(super) async fn a_job_that_was_taken_back_takes_no_reports(env: &mut Env) {
    let term = env.term().await;
    let (owner, id) = (env.owner("a").await, env.add(job()).await);
    let held = env.take(&owner, id).await;
    env.store().retire(&owner).await.expect("retire");
    env.reap(&term, 9).await;
    let lost = Applied::LeaseLost { held: held.job.epoch, current: held.job.epoch };
    for step in [started(), succeeded(), Move::Returned] {
        assert_eq!(env.tell(&held, step).await, lost);
    }
    assert_eq!(env.state(id).await, State::Pending);
}

pub(super) async fn an_illegal_move_changes_nothing(env: &mut Env) {
    let held = env.running(job()).await;
    let stored = env.get(held.job.id).await;
    let worker = env.worker().await;
    let done = env.exchange(&worker, vec![of(&held, Move::Returned)], Vec::new()).await;
    assert_eq!((done.applied, done.changes), (vec![Applied::Illegal], vec![]));
    assert_eq!(env.get(held.job.id).await, stored);
}

pub(super) async fn an_unknown_job_is_not_found(env: &mut Env) {
    let step = Transition { job: nobody(), epoch: Epoch::from_number(1), step: succeeded() };
    assert_eq!(env.report(vec![step]).await, [Applied::NotFound]);
}

pub(super) async fn transitions_are_applied_in_their_order(env: &mut Env) {
    let all = env.add_all(vec![job(), job()]).await;
    let (a, b) = (env.hold(all[0]).await, env.hold(all[1]).await);
    let steps = vec![
        of(&a, started()),
        of(&b, succeeded()),
        of(&b, started()),
        of(&a, retried(SECOND)),
        of(&a, succeeded()),
    ];
    let epoch = a.job.epoch;
    let lost = Applied::LeaseLost { held: epoch, current: epoch };
    let expected = [Applied::Done, Applied::Done, Applied::AlreadyApplied, Applied::Done, lost];
    let worker = env.worker().await;
    let done = env.exchange(&worker, steps, Vec::new()).await;
    assert_eq!(done.applied, expected);
    let told: Vec<_> = done.changes.iter().map(|change| (change.job, change.to)).collect();
    let (run, end, back) = (State::Running, State::Succeeded, State::Pending);
    assert_eq!(told, [(all[0], run), (all[1], end), (all[0], back)]);
}

pub(super) async fn a_start_can_hand_the_lease_on(env: &mut Env) {
    let (node, session) = (env.owner("node").await, env.owner("session").await);
    let id = env.add(job()).await;
    let held = env.take(&node, id).await;
    let to = Move::Started { lease: Some(session.clone()) };
    assert_eq!(env.tell(&held, to.clone()).await, Applied::Done);
    assert_eq!(env.tell(&held, to).await, Applied::AlreadyApplied);
    assert_eq!((env.held_by(&node).await, env.held_by(&session).await), (vec![], vec![id]));
    env.store().retire(&node).await.expect("retire");
    let term = env.term().await;
    assert_eq!(env.reap(&term, 9).await.changes, [], "a dead node loses only what it holds");
    assert_eq!(env.tell(&held, succeeded()).await, Applied::Done);
}

pub(super) async fn the_end_of_a_run_is_kept_whole(env: &mut Env) {
    let held = env.running(job()).await;
    env.advance(SECOND).await;
    let log = LogEnd { stream: Stream::Stdout, kept: 3, dropped: 1, crc32: 7 };
    let manifest = Arc::new(Manifest { logs: vec![log], artifacts: Vec::new() });
    let mut finish = Finish::succeeded(output("42"));
    finish.manifest = Some(Arc::clone(&manifest));
    env.tell(&held, Move::Finished(Box::new(finish))).await;
    let stored = env.get(held.job.id).await;
    let settled = stored.settled.as_deref().expect("it has settled");
    assert_eq!((settled.at, &settled.outcome), (env.now(), &Outcome::Succeeded));
    assert_eq!((&settled.output, settled.manifest.as_ref()), (&output("42"), Some(&manifest)));
    assert_eq!((stored.lease.as_ref(), stored.output()), (None, Some(&output("42"))));
}

pub(super) async fn a_loss_told_by_the_owner_is_counted_once(env: &mut Env) {
    let lost = Move::Lost { lost_max: 2 };
    let id = env.add(job()).await;
    // A run that was lost costs no attempt, unless it was the last.
    for (state, losses, attempt) in [(State::Pending, 1, 0), (State::Failed, 2, 1)] {
        let held = env.hold(id).await;
        env.tell(&held, started()).await;
        assert_eq!(env.tell(&held, lost.clone()).await, Applied::Done);
        replay(env, &held, lost.clone()).await;
        let stored = env.get(id).await;
        assert_eq!((stored.state, stored.lost_count, stored.attempt), (state, losses, attempt));
    }
}
