//! Sequences: one at a time, in the order in which they came.

use std::pin::Pin;
use std::time::Duration;

use super::env::{Env, together};
use super::jobs::*;
use crate::id::JobId;
use crate::job::{Cause, NewJob, Requires, State};
use crate::store::{Applied, Move, Redriven, Retention, Scope, SubmitOptions, Submitted};

fn next_in(key: &str) -> NewJob {
    job_of(spec().sequence(key))
}

fn line(n: usize) -> Vec<NewJob> {
    (0..n).map(|_| next_in("s")).collect()
}

/// The states of jobs.
async fn states(env: &Env, ids: &[JobId]) -> Vec<State> {
    let mut states = Vec::new();
    for id in ids {
        states.push(env.state(*id).await);
    }
    states
}

pub(super) async fn the_next_of_a_sequence_waits_for_the_end_of_the_one_before(env: &mut Env) {
    let mut ids = env.add_all(line(3)).await;
    ids.push(env.add(next_in("s")).await);
    for n in 0..ids.len() {
        let mut expected = vec![State::Succeeded; n];
        expected.push(State::Pending);
        expected.resize(ids.len(), State::Blocked);
        assert_eq!(states(env, &ids).await, expected);
        let waits = env.get(ids[n]).await;
        let cause = if n == 0 { Cause::Submitted } else { Cause::ParentsSettled };
        assert_eq!((waits.cause, waits.waits_for, waits.eligible_at), (cause, 0, env.now()));
        let worker = env.worker().await;
        let mut claimed = env.claim_beside(&worker, ids[n], 9).await;
        assert_eq!(claimed.len(), 1, "one at a time");
        let held = claimed.remove(0);
        assert_eq!(held.job.id, ids[n]);
        env.advance(SECOND).await;
        assert_eq!(env.report(vec![of(&held, started()), of(&held, succeeded())]).await, [Applied::Done; 2]);
    }
}

pub(super) async fn a_retry_keeps_its_turn(env: &mut Env) {
    let (term, ids) = (env.term().await, env.add_all(line(2)).await);
    let steps = [retried(HOUR), snoozed(HOUR), Move::Preempted, Move::Lost { lost_max: LOST_MAX }];
    for step in steps {
        env.run(ids[0], step).await;
        assert_eq!(states(env, &ids).await, [State::Pending, State::Blocked]);
        env.advance(HOUR).await;
    }
    let owner = env.owner("a").await;
    env.take(&owner, ids[0]).await;
    env.store().retire(&owner).await.expect("retire");
    env.reap(&term, 9).await;
    assert_eq!(states(env, &ids).await, [State::Pending, State::Blocked], "its owner died");
    env.run(ids[0], failed()).await;
    assert_eq!(states(env, &ids).await, [State::Failed, State::Pending]);
}

pub(super) async fn who_comes_before_leaves_nothing_to_who_comes_behind(env: &mut Env) {
    let ids = env.add_all(line(2)).await;
    env.run(ids[0], succeeded_with(output("secret"))).await;
    let held = env.hold(ids[1]).await;
    assert!(held.inputs.is_empty());
    assert_eq!(held.job.parents[0].requires, Requires::Turn);
    let again = env.store().leases_of(held.job.lease.as_ref().expect("held")).await.expect("leases_of");
    assert!(again[0].inputs.is_empty());
    assert_eq!(env.submit(vec![next_in("s").id(ids[1])]).await, [Submitted::Existing(ids[1])]);
}

pub(super) async fn a_sequence_is_of_one_tenant_and_over_queues_and_levels(env: &mut Env) {
    let first = env.add(next_in("s")).await;
    let urgent = env.add(job_of(spec().queue("q").priority(priority(63)).sequence("s"))).await;
    let others = [
        env.add(next_in("t")).await,
        env.add(job_for(&acme(), spec().sequence("s"))).await,
        env.add(job()).await,
    ];
    assert_eq!(states(env, &others).await, [State::Pending; 3]);
    assert_eq!(states(env, &[first, urgent]).await, [State::Pending, State::Blocked]);
}

pub(super) async fn a_sequence_goes_on_however_a_turn_ends(env: &mut Env) {
    let term = env.term().await;
    let mut all = line(5);
    all[3] = next_in("s").deadline(env.ahead(SECOND));
    let ids = env.add_all(all).await;
    env.run(ids[0], succeeded()).await;
    env.run(ids[1], failed()).await;
    env.cancel(&ids[2..3]).await;
    assert_eq!(env.state(ids[2]).await, State::Cancelled);
    env.advance(SECOND).await;
    env.reap(&term, 9).await;
    let expected = [State::Succeeded, State::Failed, State::Cancelled, State::Failed, State::Pending];
    assert_eq!(states(env, &ids).await, expected);
}

pub(super) async fn who_ends_before_its_turn_lets_nobody_by(env: &mut Env) {
    let ids = env.add_all(line(4)).await;
    let held = env.hold(ids[0]).await;
    env.cancel(&ids[1..3]).await;
    let last = env.add(next_in("s")).await;
    assert_eq!((env.state(ids[3]).await, env.state(last).await), (State::Blocked, State::Blocked));
    env.tell(&held, succeeded()).await;
    assert_eq!((env.state(ids[3]).await, env.state(last).await), (State::Pending, State::Blocked));
    env.run(ids[3], failed()).await;
    assert_eq!(env.state(last).await, State::Pending);
}

pub(super) async fn a_whole_line_that_was_cancelled_lets_the_next_one_by(env: &mut Env) {
    let ids = env.add_all(line(3)).await;
    let held = env.hold(ids[0]).await;
    env.cancel(&ids[1..]).await;
    let next = env.add(next_in("s")).await;
    assert_eq!(env.state(next).await, State::Blocked, "the first one still runs");
    env.tell(&held, started()).await;
    env.cancel(&ids[..1]).await;
    assert_eq!(env.state(next).await, State::Blocked, "the first one is asked to stop");
    env.tell(&held, cancelled()).await;
    assert_eq!(env.state(next).await, State::Pending);
    assert_eq!(env.state(env.find(ids[2]).await.expect("kept").id).await, State::Cancelled);
}

pub(super) async fn a_parent_of_the_same_sequence_is_waited_for_once(env: &mut Env) {
    let parent = env.add(next_in("s")).await;
    let child = env.add(next_in("s").after(needs(&[parent]))).await;
    let stored = env.get(child).await;
    assert_eq!((stored.waits_for, stored.parents.len()), (1, 1));
    assert_eq!(stored.parents[0].requires, Requires::SuccessInTurn);
    env.run(parent, succeeded_with(output("42"))).await;
    assert_eq!(env.run(child, failed()).await.inputs[0].output, output("42"));
    let skipped = env.add(next_in("s").after(needs(&[child]))).await;
    let next = env.add(next_in("s")).await;
    assert_eq!(states(env, &[skipped, next]).await, [State::Failed, State::Pending]);
}

pub(super) async fn a_parent_that_ends_before_its_turn_lets_nobody_by(env: &mut Env) {
    let ids = env.add_all(line(2)).await;
    let child = env.add(next_in("s").after(outlives(&ids[1..]))).await;
    let beside = env.add(job().after(outlives(&ids[1..]))).await;
    env.cancel(&ids[1..]).await;
    assert_eq!(states(env, &[child, beside]).await, [State::Blocked, State::Pending]);
    env.run(ids[0], succeeded()).await;
    assert_eq!(env.state(child).await, State::Pending);
}

pub(super) async fn a_sequence_that_has_ended_begins_anew(env: &mut Env) {
    let first = env.add(next_in("s")).await;
    env.run(first, succeeded()).await;
    let second = env.add(next_in("s")).await;
    assert_eq!(env.state(second).await, State::Pending);
    let worker = env.worker().await;
    env.take(&worker, second).await;
}

pub(super) async fn a_job_goes_round_again_only_when_its_sequence_has_ended(env: &mut Env) {
    let ids = env.add_all(line(3)).await;
    env.run(ids[0], failed()).await;
    let out = Redriven::OutOfTurn;
    assert_eq!(env.redrive(&ids).await, [out, Redriven::NotTerminal, Redriven::NotTerminal]);
    env.cancel(&ids[2..]).await;
    assert_eq!(env.redrive(&[ids[0], ids[2]]).await, [out, out], "one of them has not ended");
    env.run(ids[1], failed()).await;
    assert_eq!(env.redrive(&[ids[0], ids[2]]).await, [Redriven::Done, out], "now the first one has not");
    let behind = env.add(next_in("s")).await;
    assert_eq!(env.state(behind).await, State::Blocked);
    env.run(ids[0], succeeded()).await;
    assert_eq!(env.redrive(&ids[1..]).await, [out, out]);
    env.run(behind, succeeded()).await;
    assert_eq!(env.redrive(&ids[2..]).await, [Redriven::Done]);
}

pub(super) async fn a_run_that_spawns_into_its_own_sequence_comes_first(env: &mut Env) {
    let (first, spawned) = (env.add(next_in("s")).await, next_in("s"));
    let id = spawned.id;
    env.run(first, spawning(vec![spawned])).await;
    assert_eq!(env.state(id).await, State::Pending);
    let (next, spawned) = (env.add(next_in("s")).await, next_in("s"));
    let last = spawned.id;
    env.run(id, spawning(vec![spawned])).await;
    assert_eq!(states(env, &[next, last]).await, [State::Pending, State::Blocked]);
}

pub(super) async fn racing_submissions_stand_in_one_line(env: &mut Env) {
    const RACERS: usize = 8;
    env.seen.unordered = true;
    let store = env.shared();
    let racers = (0..RACERS).map(|_| {
        let store = &store;
        Box::pin(async move { store.submit(line(3), SubmitOptions::each()).await.expect("submit").replies })
            as Pin<Box<dyn Future<Output = Vec<Submitted>> + Send + '_>>
    });
    assert_eq!(together(racers.collect()).await.concat().len(), 3 * RACERS);
    let worker = env.worker().await;
    for left in (0..3 * RACERS).rev() {
        let counts = env.store().counts(&Scope::All).await.expect("counts");
        assert_eq!((counts.of(State::Pending), counts.of(State::Blocked)), (1, left as u64));
        let lane = env.lanes().await.heads.remove(0).lane;
        let held = env.claim(&worker, &lane, 9).await.remove(0);
        env.tell(&held, succeeded()).await;
    }
}

pub(super) async fn who_has_not_had_its_turn_is_not_pruned(env: &mut Env) {
    let term = env.term().await;
    let ids = env.add_all(line(3)).await;
    let held = env.hold(ids[0]).await;
    env.cancel(&ids[1..]).await;
    env.advance(2 * Retention::KEYS_MIN).await;
    let nothing = Retention { jobs: Duration::ZERO, changes: 1_000_000, ..Retention::default() };
    assert_eq!(env.prune(&term, nothing, 9).await.jobs, 0);
    let next = env.add(next_in("s")).await;
    assert_eq!(env.state(next).await, State::Blocked);
    env.tell(&held, succeeded()).await;
    env.run(next, succeeded()).await;
    env.advance(2 * Retention::KEYS_MIN).await;
    let mut gone = 0;
    for _ in 0..4 {
        gone += env.prune(&term, nothing, 9).await.jobs;
    }
    assert_eq!(gone, 4);
    let anew = env.add(next_in("s")).await;
    assert_eq!(env.get(anew).await.parents.len(), 0, "the last one is forgotten");
}

pub(super) async fn a_sequence_comes_back(env: &mut Env) {
    let ids = env.add_all(line(3)).await;
    let held = env.hold(ids[0]).await;
    env.cancel(&ids[2..]).await;
    if !env.reopen().await {
        return;
    }
    let next = env.add(next_in("s")).await;
    env.tell(&held, succeeded()).await;
    assert_eq!(states(env, &[ids[1], next]).await, [State::Pending, State::Blocked]);
    env.run(ids[1], succeeded()).await;
    assert_eq!(env.state(next).await, State::Pending);
}
