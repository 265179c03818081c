//! Redriving: the dead letter's way back.

use super::env::Env;
use super::jobs::*;
use crate::job::{Cause, State};
use crate::store::Redriven;

pub(super) async fn what_failed_or_was_cancelled_goes_round_again(env: &mut Env) {
    let (bad, gone) = (env.add(job()).await, env.add(job()).await);
    env.run(bad, failed()).await;
    env.cancel(&[gone]).await;
    env.advance(SECOND).await;
    assert_eq!(env.redrive(&[bad, gone]).await, [Redriven::Done, Redriven::Done]);
    for id in [bad, gone] {
        let stored = env.get(id).await;
        assert_eq!((stored.state, stored.cause), (State::Pending, Cause::Redriven));
        assert_eq!((stored.generation, stored.attempt, stored.eligible_at), (1, 0, env.now()));
        let epoch = stored.epoch;
        assert!(env.run(id, succeeded()).await.job.epoch > epoch);
    }
}

pub(super) async fn what_succeeded_or_has_not_ended_does_not(env: &mut Env) {
    let parent = env.add(job_of(spec().queue("parent"))).await;
    let blocked = env.add(job().after(needs(&[parent]))).await;
    let good = env.add(job()).await;
    env.run(good, succeeded()).await;
    let running = env.running(job()).await.job.id;
    let pending = env.add(job()).await;
    let replies = env.redrive(&[good, pending, running, blocked, nobody()]).await;
    let not = Redriven::NotTerminal;
    assert_eq!(replies, [Redriven::Succeeded, not, not, not, Redriven::NotFound]);
    assert_eq!(env.redrive(&[]).await, []);
}

pub(super) async fn attempts_losses_and_deadline_begin_anew(env: &mut Env) {
    let term = env.term().await;
    let id = env.add(job().deadline(env.ahead(SECOND))).await;
    env.advance(SECOND).await;
    env.reap(&term, 9).await;
    assert_eq!(env.redrive(&[id]).await, [Redriven::Done]);
    for generation in [1, 2] {
        for _ in 0..LOST_MAX {
            let owner = env.owner("a").await;
            env.take(&owner, id).await;
            env.store().retire(&owner).await.expect("retire");
            env.reap(&term, 9).await;
        }
        let stored = env.get(id).await;
        assert_eq!(
            (stored.cause, stored.generation, stored.deadline),
            (Cause::LostTooOften, generation, None)
        );
        assert_eq!(env.redrive(&[id]).await, [Redriven::Done]);
        assert_eq!(env.get(id).await.lost_count, 0);
    }
}

pub(super) async fn a_child_that_was_taken_along_is_redriven_by_itself(env: &mut Env) {
    let parent = env.add(job()).await;
    let child = env.add(job().after(needs(&[parent]))).await;
    env.run(parent, failed()).await;
    env.redrive(&[parent]).await;
    assert_eq!(env.state(child).await, State::Failed);
    env.run(parent, succeeded_with(output("42"))).await;
    assert_eq!(env.state(child).await, State::Failed, "nobody brings it back unasked");
    assert_eq!(env.redrive(&[child]).await, [Redriven::Done]);
    let held = env.run(child, succeeded()).await;
    assert_eq!(held.inputs[0].output, output("42"));
}
