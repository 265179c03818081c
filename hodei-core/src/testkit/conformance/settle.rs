//! Settling: what children learn, and what a run leaves behind for others.

use super::env::Env;
use super::jobs::*;
use crate::id::JobId;
use crate::job::{Cause, FailureClass, Finish, NewJob, Outcome, Requires, State};
use crate::store::{Applied, CancelReply, Move, Redriven, Scope};

async fn where_is(env: &Env, id: JobId) -> (State, Cause) {
    let job = env.get(id).await;
    (job.state, job.cause)
}

pub(super) async fn a_child_waits_for_all_its_parents(env: &mut Env) {
    let parents = env.add_all(vec![job(), job(), job()]).await;
    let child = env.add(job().after(needs(&parents))).await;
    for (n, parent) in parents.iter().enumerate() {
        let waits_for = u32::try_from(parents.len() - n).expect("few");
        let stored = env.get(child).await;
        assert_eq!((stored.state, stored.waits_for), (State::Blocked, waits_for));
        env.advance(SECOND).await;
        env.run(*parent, succeeded()).await;
    }
    let stored = env.get(child).await;
    assert_eq!((stored.state, stored.cause, stored.waits_for), (State::Pending, Cause::ParentsSettled, 0));
    assert_eq!(stored.eligible_at, env.now(), "its place in the lane is from now");
}

pub(super) async fn a_childs_own_time_still_counts(env: &mut Env) {
    let parent = env.add(job()).await;
    let at = env.ahead(HOUR);
    let child = env.add(job().after(needs(&[parent])).run_at(at)).await;
    assert_eq!(env.lanes().await.next_due, None, "a blocked job is not due");
    env.run(parent, succeeded()).await;
    assert_eq!(env.get(child).await.eligible_at, at);
    assert_eq!(env.lanes().await.next_due, Some(at));
}

pub(super) async fn a_child_goes_the_way_of_a_parent_it_needs(env: &mut Env) {
    for (step, needing, outliving) in [
        (failed(), (State::Failed, Cause::ParentFailed), (State::Pending, Cause::ParentsSettled)),
        (cancelled(), (State::Cancelled, Cause::Skipped), (State::Pending, Cause::ParentsSettled)),
        (succeeded(), (State::Pending, Cause::ParentsSettled), (State::Pending, Cause::ParentsSettled)),
    ] {
        let (parent, open) = (env.add(job()).await, env.add(job_of(spec().queue("open"))).await);
        let first = env.add(job().after(needs(&[parent]))).await;
        let second = env.add(job().after(outlives(&[parent]))).await;
        let third = env.add(job().after([needs(&[open]), needs(&[parent])].concat())).await;
        env.run(parent, step.clone()).await;
        assert_eq!(where_is(env, first).await, needing, "{step:?}");
        assert_eq!(where_is(env, second).await, outliving, "{step:?}");
        let waiting = if needing.0 == State::Pending { (State::Blocked, Cause::Submitted) } else { needing };
        assert_eq!(where_is(env, third).await, waiting, "{step:?}: at once, whatever else it waits for");
        env.cancel(&[first, second, third, open]).await;
    }
}

pub(super) async fn a_child_of_a_failed_parent_says_so(env: &mut Env) {
    let parent = env.add(job()).await;
    let child = env.add(job().after(needs(&[parent]))).await;
    env.run(parent, failed()).await;
    let stored = env.get(child).await;
    let Some(Outcome::Failed(failure)) = stored.outcome() else { panic!("it failed: {stored:?}") };
    assert_eq!((failure.class, stored.attempt), (FailureClass::Parent, 0));
}

pub(super) async fn a_child_may_ask_for_a_failure(env: &mut Env) {
    let cancelled = Move::Finished(Box::new(Finish::cancelled()));
    for (step, expected) in [
        (failed(), (State::Pending, Cause::ParentsSettled)),
        (succeeded(), (State::Cancelled, Cause::Skipped)),
        (cancelled, (State::Cancelled, Cause::Skipped)),
    ] {
        let parent = env.add(job()).await;
        let child = env.add(job().after(after_failure_of(&[parent]))).await;
        let below = env.add(job().after(needs(&[child]))).await;
        env.run(parent, step).await;
        let late = env.add(job().after(after_failure_of(&[parent]))).await;
        assert_eq!((where_is(env, child).await, where_is(env, late).await), (expected, expected));
        let skipped = expected.0 == State::Cancelled;
        assert_eq!(env.state(below).await == State::Cancelled, skipped);
        for open in [child, late] {
            env.store().request_cancel(&Scope::All, vec![open]).await.expect("request_cancel");
        }
    }
}

pub(super) async fn an_end_runs_down_a_long_chain(env: &mut Env) {
    let mut chain: Vec<NewJob> = vec![job()];
    for n in 0..300 {
        let above = chain[n].id;
        chain.push(job().after(needs(&[above])));
    }
    let last = job().after(outlives(&[chain[300].id]));
    let ids = env.add_all([chain, vec![last]].concat()).await;
    env.run(ids[0], failed()).await;
    assert_eq!(where_is(env, ids[300]).await, (State::Failed, Cause::ParentFailed));
    assert_eq!(where_is(env, ids[301]).await, (State::Pending, Cause::ParentsSettled));
}

pub(super) async fn a_diamond_is_joined_once(env: &mut Env) {
    let top = job();
    let (left, right) = (job().after(needs(&[top.id])), job().after(needs(&[top.id])));
    let bottom = job().after(needs(&[left.id, right.id, top.id]));
    let ids = env.add_all(vec![top, left, right, bottom]).await;
    env.run(ids[0], succeeded()).await;
    assert_eq!(env.get(ids[3]).await.waits_for, 2);
    env.run(ids[1], succeeded()).await;
    assert_eq!(env.state(ids[3]).await, State::Blocked);
    env.run(ids[2], succeeded()).await;
    assert_eq!(env.get(ids[3]).await.version, 2, "one submission, one release");
}

pub(super) async fn parents_that_settle_together_release_their_child_once(env: &mut Env) {
    let parents = env.add_all(vec![job(), job()]).await;
    let child = env.add(job().after(needs(&parents))).await;
    let (a, b) = (env.hold(parents[0]).await, env.hold(parents[1]).await);
    let applied = env.report(vec![of(&a, succeeded()), of(&b, succeeded())]).await;
    assert_eq!(applied, [Applied::Done, Applied::Done]);
    assert_eq!((env.state(child).await, env.get(child).await.version), (State::Pending, 2));
}

/// A parent that failed and was redriven once told its child twice, and the child began before its other parent.
pub(super) async fn an_edge_tells_its_child_once(env: &mut Env) {
    let (again, open) = (env.add(job()).await, env.add(job_of(spec().queue("open"))).await);
    let child = env.add(job().after(outlives(&[again, open]))).await;
    env.run(again, failed()).await;
    assert_eq!(env.redrive(&[again]).await, [Redriven::Done]);
    env.run(again, succeeded()).await;
    let stored = env.get(child).await;
    assert_eq!((stored.state, stored.waits_for), (State::Blocked, 1));
    env.run(open, succeeded()).await;
    assert_eq!(env.state(child).await, State::Pending);
}

pub(super) async fn a_child_admitted_after_the_end_is_told_once(env: &mut Env) {
    let (again, open) = (env.add(job()).await, env.add(job_of(spec().queue("open"))).await);
    env.run(again, failed()).await;
    let child = env.add(job().after(outlives(&[again, open]))).await;
    env.redrive(&[again]).await;
    env.run(again, succeeded()).await;
    assert_eq!(env.state(child).await, State::Blocked);
}

pub(super) async fn what_a_run_spawns_is_stored_with_its_end(env: &mut Env) {
    let parent = env.add(job()).await;
    let (a, b) = (job().unique("k"), job_of(spec().queue("other")));
    let c = job().after(needs(&[a.id]));
    let held = env.hold(parent).await;
    let step = spawning(vec![a.clone(), b.clone(), c.clone()]);
    assert_eq!(env.tell(&held, step.clone()).await, Applied::Done);
    for (id, state) in [(a.id, State::Pending), (b.id, State::Pending), (c.id, State::Blocked)] {
        assert_eq!(env.state(id).await, state);
    }
    env.run(a.id, succeeded()).await;
    assert_eq!(env.tell(&held, step).await, Applied::AlreadyApplied);
    assert_eq!(env.state(a.id).await, State::Succeeded, "a repetition spawns nothing");
}

/// The parent's end once reached such a child twice: as it was admitted, and by the cascade after it.
pub(super) async fn a_spawned_child_of_the_run_itself_is_told_once(env: &mut Env) {
    let (parent, open) = (env.add(job()).await, env.add(job_of(spec().queue("open"))).await);
    let waits = env.add(job().after(needs(&[parent, open]))).await;
    let spawned = job().after(needs(&[parent, open]));
    let ready = job().after(needs(&[parent]));
    env.run(parent, spawning(vec![spawned.clone(), ready.clone()])).await;
    for id in [waits, spawned.id] {
        let stored = env.get(id).await;
        assert_eq!((stored.state, stored.waits_for), (State::Blocked, 1));
    }
    assert_eq!(env.state(ready.id).await, State::Pending);
}

pub(super) async fn a_run_ends_whatever_it_spawned(env: &mut Env) {
    let taken = env.add(job().unique("k")).await;
    let parent = env.add(job_of(spec().queue("parent"))).await;
    let stranger = job_for(&acme(), spec());
    let unknown = job().after(needs(&[nobody()]));
    let bad = [job().unique(""), job().unique("k"), job_of(spec().name("x")).id(taken), stranger, unknown];
    let good = job();
    let spawn = [bad.to_vec(), vec![good.clone()]].concat();
    env.run(parent, spawning(spawn)).await;
    assert_eq!((env.state(parent).await, env.state(good.id).await), (State::Succeeded, State::Pending));
    for job in bad.iter().filter(|job| job.id != taken) {
        assert_eq!(env.find(job.id).await, None, "{job:?}");
    }
}

pub(super) async fn a_parent_that_is_cancelled_skips_its_children(env: &mut Env) {
    let parent = env.add(job()).await;
    let child = env.add(job().after(needs(&[parent]))).await;
    let mut last = outlives(&[child]);
    last[0].requires = Requires::Ended;
    let last = env.add(job().after(last)).await;
    assert_eq!(env.cancel(&[parent]).await, [CancelReply::Cancelled]);
    assert_eq!(where_is(env, child).await, (State::Cancelled, Cause::Skipped));
    assert_eq!(where_is(env, last).await, (State::Pending, Cause::ParentsSettled));
}
