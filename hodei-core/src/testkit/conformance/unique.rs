//! Uniqueness: which jobs are told apart, how long a key is held, and who gets it next.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::env::{Env, LIFE, together};
use super::jobs::*;
use crate::id::JobId;
use crate::job::{JobSpec, NewJob, State, Unique};
use crate::store::{
    Applied, Move, Reaped, Redriven, Refusal, Retention, SubmitOptions,
    Submitted::{self, Conflict, Existing, New, Refused},
};

/// A job that is the only one of its key until it has ended.
fn only() -> NewJob {
    job().unique(Unique::key("k").while_open())
}

/// As [`only`], of another spec.
fn other() -> NewJob {
    job_of(spec().name("other")).unique(Unique::key("k").while_open())
}

pub(super) async fn a_key_while_open_is_held_until_the_end(env: &mut Env) {
    env.add(job_for(&acme(), spec()).unique(Unique::key("k").while_open())).await;
    for end in [succeeded(), failed(), cancelled()] {
        let id = env.add(only()).await;
        assert_eq!(env.submit(vec![only(), other()]).await, [Existing(id), Conflict(id)]);
        let held = env.hold(id).await;
        assert_eq!(env.submit(vec![only()]).await, [Existing(id)], "it is leased");
        assert_eq!(env.tell(&held, started()).await, Applied::Done);
        assert_eq!(env.submit(vec![other()]).await, [Conflict(id)], "it runs");
        assert_eq!(env.tell(&held, end.clone()).await, Applied::Done);
    }
    env.add(only()).await;
}

pub(super) async fn every_end_frees_a_key(env: &mut Env) {
    let term = env.term().await;
    // Cancelled before it was claimed, while it was delayed, and while it ran.
    let waits = env.add(only()).await;
    env.cancel(&[waits]).await;
    let delayed = env.add(only().run_at(env.ahead(HOUR))).await;
    env.cancel(&[delayed]).await;
    let held = env.running(only()).await;
    env.cancel(&[held.job.id]).await;
    assert_eq!(env.submit(vec![only()]).await, [Existing(held.job.id)], "it was only asked to stop");
    assert_eq!(env.tell(&held, retried(SECOND)).await, Applied::Done);
    // Ended by its deadline, and by the deaths of its owners.
    env.add(only().deadline(env.ahead(SECOND))).await;
    env.advance(SECOND).await;
    env.reap(&term, 9).await;
    let lost = env.add(only()).await;
    for _ in 0..LOST_MAX {
        assert_eq!(env.submit(vec![only()]).await, [Existing(lost)]);
        let owner = env.owner("mortal").await;
        env.take(&owner, lost).await;
        env.advance(LIFE).await;
        assert_ne!(env.reap(&term, 9).await, Reaped::default());
    }
    // Taken along by a parent, while it waited and as it came.
    let parent = env.add(job_of(spec().queue("parent"))).await;
    env.add(only().after(needs(&[parent]))).await;
    assert!(matches!(env.submit(vec![only()]).await[..], [Conflict(_)]));
    env.cancel(&[parent]).await;
    env.add(only()).await;
}

pub(super) async fn a_job_that_ends_as_it_comes_frees_its_key(env: &mut Env) {
    let parent = env.add(job()).await;
    env.run(parent, failed()).await;
    let skipped = only().after(needs(&[parent]));
    let replies = env.submit(vec![skipped.clone(), other()]).await;
    assert_eq!(replies, [New(skipped.id), Conflict(skipped.id)], "within a batch it counts as open");
    assert_eq!(env.state(skipped.id).await, State::Failed);
    env.add(other()).await;
}

pub(super) async fn who_goes_back_to_its_lane_keeps_its_key(env: &mut Env) {
    let id = env.add(only()).await;
    for step in [retried(Duration::ZERO), snoozed(Duration::ZERO), Move::Preempted, Move::Returned] {
        let held = env.hold(id).await;
        if step != Move::Returned {
            assert_eq!(env.tell(&held, started()).await, Applied::Done);
        }
        assert_eq!(env.tell(&held, step).await, Applied::Done);
        assert_eq!(env.submit(vec![only(), other()]).await, [Existing(id), Conflict(id)]);
    }
    env.run(id, succeeded()).await;
    env.add(only()).await;
}

pub(super) async fn a_taken_key_holds_up_no_other_job_of_a_batch(env: &mut Env) {
    let taken = env.add(only()).await;
    let (first, free) = (job(), job().unique(Unique::key("free").while_open()));
    let (again, last) = (job().unique(Unique::key("free").while_open()), job());
    let batch = vec![first.clone(), other(), free.clone(), again, only(), last.clone()];
    let atomic = env.submit_as(batch.clone(), SubmitOptions::atomic()).await;
    let together = Refused(Refusal::Together);
    assert_eq!(atomic[..3], [together, Conflict(taken), together]);
    assert_eq!(atomic[4..], [Existing(taken), together]);
    let expected =
        [New(first.id), Conflict(taken), New(free.id), Existing(free.id), Existing(taken), New(last.id)];
    assert_eq!(env.submit(batch).await, expected);
    for id in [first.id, free.id, last.id] {
        assert_eq!(env.state(id).await, State::Pending);
    }
}

pub(super) async fn a_period_has_one_job_of_each_kind_and_arguments(env: &mut Env) {
    let of = |args: &'static str, env: &Env| {
        let spec = JobSpec::command(["report", args]).build().expect("a valid spec");
        NewJob::new(spec).unique(Unique::new().by_args().per(HOUR).at(env.now()))
    };
    // To the beginning of a period.
    let into = env.now().as_micros().rem_euclid(3_600_000_000);
    env.advance(HOUR - Duration::from_micros(into.unsigned_abs())).await;
    let begun = of("a", env);
    env.add(begun.clone()).await;
    env.add(of("b", env)).await;
    env.advance(HOUR - Duration::from_micros(1)).await;
    assert_eq!(env.submit(vec![of("a", env)]).await, [Existing(begun.id)]);
    env.advance(Duration::from_micros(1)).await;
    let next = of("a", env);
    env.add(next.clone()).await;
    assert_eq!(env.submit(vec![of("a", env), begun.clone()]).await, [Existing(next.id), Existing(begun.id)]);
}

pub(super) async fn a_job_goes_round_again_when_nobody_has_its_key(env: &mut Env) {
    let (first, second) = (env.add(only()).await, job_of(spec().queue("b")));
    env.run(first, failed()).await;
    let second = env.add(second.unique(Unique::key("k").while_open())).await;
    assert_eq!(env.redrive(&[first]).await, [Redriven::KeyTaken(second)]);
    assert_eq!(env.state(first).await, State::Failed);
    env.cancel(&[second]).await;
    let replies = env.redrive(&[second, first, second]).await;
    assert_eq!(replies, [Redriven::Done, Redriven::KeyTaken(second), Redriven::NotTerminal]);
    assert_eq!(env.submit(vec![other()]).await, [Conflict(second)], "it has the key again");
    env.run(second, failed()).await;
    assert_eq!(env.redrive(&[first]).await, [Redriven::Done]);
    assert_eq!(env.redrive(&[second]).await, [Redriven::KeyTaken(first)]);
    env.run(first, succeeded()).await;
    env.add(other()).await;
}

pub(super) async fn what_a_run_spawns_may_have_the_key_of_the_run(env: &mut Env) {
    let next = other();
    let first = env.add(only()).await;
    env.run(first, spawning(vec![next.clone()])).await;
    assert_eq!(env.submit(vec![only()]).await, [Conflict(next.id)]);
    env.run(next.id, succeeded()).await;
    env.add(only()).await;
}

/// Of two in one call only the first once saw a free key: the other one failed all of it.
pub(super) async fn of_two_runs_that_spawn_one_key_the_first_does(env: &mut Env) {
    for unique in [Unique::key("kept"), Unique::key("open").while_open()] {
        let parents = env.add_all(vec![job(), job()]).await;
        let worker = env.worker().await;
        let held = env.claim_beside(&worker, parents[0], 2).await;
        let spawned: Vec<NewJob> =
            (0..2).map(|_| job_of(spec().queue("spawned")).unique(unique.clone())).collect();
        let ends = held.iter().zip(&spawned).map(|(held, new)| of(held, spawning(vec![new.clone()])));
        assert_eq!(env.report(ends.collect()).await, [Applied::Done, Applied::Done]);
        assert_eq!(env.state(spawned[0].id).await, State::Pending);
        assert_eq!(env.find(spawned[1].id).await, None);
        env.run(spawned[0].id, succeeded()).await;
    }
}

pub(super) async fn a_job_that_is_pruned_takes_no_key_of_another(env: &mut Env) {
    let term = env.term().await;
    let gone = env.add(only()).await;
    env.cancel(&[gone]).await;
    let holder = env.add(only()).await;
    env.advance(40 * 24 * HOUR).await;
    env.prune(&term, Retention { changes: 1_000, ..Retention::default() }, 100).await;
    assert_eq!(env.find(gone).await, None);
    assert_eq!(env.submit(vec![only(), other()]).await, [Existing(holder), Conflict(holder)]);
}

pub(super) async fn keys_are_held_by_the_same_after_reopening(env: &mut Env) {
    let (ended, holder) = (env.add(only()).await, only());
    env.run(ended, failed()).await;
    env.add(holder.clone()).await;
    env.hold(holder.id).await;
    let kept = env.add(job().unique("kept")).await;
    if !env.reopen().await {
        return;
    }
    assert_eq!(env.submit(vec![only(), job().unique("kept")]).await, [Existing(holder.id), Existing(kept)]);
    env.cancel(&[holder.id]).await;
    env.add(other()).await;
}

/// A job that is the only one of its key unless it fails.
fn once() -> NewJob {
    job().unique(Unique::key("k").unless_failed())
}

/// A job that is the only one of its key that waits.
fn next() -> NewJob {
    job().unique(Unique::key("k").while_waiting())
}

pub(super) async fn a_key_unless_failed_is_free_after_a_failure(env: &mut Env) {
    for end in [failed(), cancelled()] {
        let held = env.running(once()).await;
        assert_eq!(env.submit(vec![once()]).await, [Existing(held.job.id)], "it runs");
        assert_eq!(env.tell(&held, end).await, Applied::Done);
    }
    let waits = env.add(once()).await;
    env.cancel(&[waits]).await;
    env.add(once().deadline(env.ahead(SECOND))).await;
    let term = env.term().await;
    env.advance(SECOND).await;
    env.reap(&term, 9).await;
    // A failure that is not the last one frees nothing.
    let last = env.running(once()).await;
    assert_eq!(env.tell(&last, retried(Duration::ZERO)).await, Applied::Done);
    assert_eq!(env.submit(vec![once()]).await, [Existing(last.job.id)]);
}

pub(super) async fn a_key_unless_failed_is_held_after_a_success(env: &mut Env) {
    let id = env.add(once()).await;
    env.run(id, succeeded()).await;
    let other = job_of(spec().name("other")).unique(Unique::key("k").unless_failed());
    assert_eq!(env.submit(vec![once(), other]).await, [Existing(id), Conflict(id)]);
    // Under other names, which begin differently, there are others.
    env.add(only()).await;
    env.add(next()).await;
}

pub(super) async fn what_failed_goes_round_again_unless_another_has_its_key(env: &mut Env) {
    let first = env.add(once()).await;
    env.run(first, failed()).await;
    assert_eq!(env.redrive(&[first]).await, [Redriven::Done]);
    assert_eq!(env.submit(vec![once()]).await, [Existing(first)], "it has the key again");
    env.run(first, failed()).await;
    let second = env.add(once()).await;
    assert_eq!(env.redrive(&[first]).await, [Redriven::KeyTaken(second)]);
    env.run(second, succeeded()).await;
    assert_eq!(env.redrive(&[first]).await, [Redriven::KeyTaken(second)]);
    assert_eq!(env.state(first).await, State::Failed);
}

pub(super) async fn a_key_while_waiting_is_held_until_the_claim(env: &mut Env) {
    let different = || job_of(spec().name("other")).unique(Unique::key("k").while_waiting());
    let first = env.add(next()).await;
    assert_eq!(env.submit(vec![next(), different()]).await, [Existing(first), Conflict(first)]);
    let held = env.hold(first).await;
    let second = env.add(next()).await;
    assert_eq!(env.submit(vec![next(), different()]).await, [Existing(second), Conflict(second)]);
    assert_eq!(env.tell(&held, started()).await, Applied::Done);
    assert_eq!(env.submit(vec![next()]).await, [Existing(second)], "the first one runs");
    assert_eq!(env.tell(&held, succeeded()).await, Applied::Done);
    assert_eq!(env.submit(vec![next()]).await, [Existing(second)], "the first one has ended");
    let running = env.hold(second).await;
    let delayed = env.add(next().run_at(env.ahead(HOUR))).await;
    assert_eq!(env.tell(&running, failed()).await, Applied::Done);
    assert_eq!(env.submit(vec![next()]).await, [Conflict(delayed)]);
    // Cancelled before it was claimed.
    env.cancel(&[delayed]).await;
    let parent = env.add(job_of(spec().queue("parent"))).await;
    let blocked = next().after(needs(&[parent]));
    assert_eq!(env.submit(vec![blocked.clone(), different()]).await, [New(blocked.id), Conflict(blocked.id)]);
    env.run(parent, succeeded()).await;
    assert_eq!(env.submit(vec![different()]).await, [Conflict(blocked.id)], "it is ready now");
    env.hold(blocked.id).await;
    env.add(next()).await;
}

/// Each of them could come back to a key that another has by then.
pub(super) async fn who_waits_again_does_without_a_key_while_waiting(env: &mut Env) {
    let mut waiting = env.add(next()).await;
    for step in [retried(SECOND), snoozed(SECOND), Move::Preempted, Move::Returned] {
        let held = env.hold(waiting).await;
        if step != Move::Returned {
            assert_eq!(env.tell(&held, started()).await, Applied::Done);
        }
        assert_eq!(env.tell(&held, step).await, Applied::Done);
        let other = env.add(next()).await;
        assert_eq!(env.submit(vec![next()]).await, [Existing(other)]);
        // Out of the way of the next one, if it is there already.
        env.cancel(&[waiting]).await;
        waiting = other;
    }
    let term = env.term().await;
    let owner = env.owner("mortal").await;
    env.take(&owner, waiting).await;
    env.advance(LIFE).await;
    env.reap(&term, 9).await;
    let after = env.add(next()).await;
    assert_eq!(env.submit(vec![next()]).await, [Existing(after)]);
}

pub(super) async fn what_is_redriven_does_without_a_key_while_waiting(env: &mut Env) {
    let first = env.add(next()).await;
    env.cancel(&[first]).await;
    let expired = env.add(next().deadline(env.ahead(SECOND))).await;
    let term = env.term().await;
    env.advance(SECOND).await;
    env.reap(&term, 9).await;
    let holder = env.add(next()).await;
    assert_eq!(env.redrive(&[first, expired]).await, [Redriven::Done; 2]);
    assert_eq!(env.submit(vec![next()]).await, [Existing(holder)]);
    env.cancel(&[holder]).await;
    let last = env.add(next()).await;
    assert_eq!(env.submit(vec![next()]).await, [Existing(last)]);
}

pub(super) async fn a_run_may_have_the_next_one_wait(env: &mut Env) {
    let first = env.add(next()).await;
    let (second, other) = (next(), next());
    env.run(first, spawning(vec![second.clone(), other])).await;
    assert_eq!(env.submit(vec![next()]).await, [Existing(second.id)]);
    let term = env.term().await;
    env.advance(40 * 24 * HOUR).await;
    env.prune(&term, Retention { changes: 1_000, ..Retention::default() }, 100).await;
    assert_eq!(env.find(first).await, None);
    assert_eq!(env.submit(vec![next()]).await, [Existing(second.id)], "it was not of the job that went");
}

pub(super) async fn keys_that_were_left_are_free_after_reopening(env: &mut Env) {
    let (claimed, ended, kept) = (env.add(next()).await, once(), job().unique("unfailed:kept"));
    env.hold(claimed).await;
    env.add(ended.clone()).await;
    env.run(ended.id, failed()).await;
    env.add(kept.clone()).await;
    env.run(kept.id, succeeded()).await;
    if !env.reopen().await {
        return;
    }
    assert_eq!(env.submit(vec![job().unique("unfailed:kept")]).await, [Existing(kept.id)]);
    let (waiting, again) = (env.add(next()).await, env.add(once()).await);
    assert_eq!(env.submit(vec![next(), once()]).await, [Existing(waiting), Existing(again)]);
    assert_eq!(env.redrive(&[ended.id]).await, [Redriven::KeyTaken(again)]);
}

pub(super) async fn one_of_many_that_race_for_a_key_that_was_left_gets_it(env: &mut Env) {
    let mut last = env.add(next()).await;
    for _ in 0..4 {
        let held = env.hold(last).await;
        let replies = race(env, (0..8).map(|_| next()).collect()).await;
        let new: Vec<JobId> =
            replies.iter().filter_map(|reply| if let New(id) = reply { Some(*id) } else { None }).collect();
        assert_eq!(new.len(), 1, "{replies:?}");
        assert_eq!(replies.iter().filter(|reply| **reply == Existing(new[0])).count(), 7, "{replies:?}");
        assert_eq!(env.tell(&held, succeeded()).await, Applied::Done);
        last = new[0];
    }
}

/// Submits one job by each of many callers at once, and returns the replies.
async fn race(env: &mut Env, jobs: Vec<NewJob>) -> Vec<Submitted> {
    env.seen.unordered = true;
    let store = env.shared();
    let racing = jobs.into_iter().map(|job| {
        let store = Arc::clone(&store);
        Box::pin(async move {
            let done = store.submit(vec![job], SubmitOptions::each()).await.expect("submit");
            done.replies[0]
        }) as Pin<Box<dyn Future<Output = Submitted> + Send>>
    });
    together(racing.collect()).await
}

pub(super) async fn one_of_many_that_race_for_a_key_gets_it(env: &mut Env) {
    for _ in 0..4 {
        let replies = race(env, (0..8).map(|_| only()).collect()).await;
        let new: Vec<JobId> =
            replies.iter().filter_map(|reply| if let New(id) = reply { Some(*id) } else { None }).collect();
        assert_eq!(new.len(), 1, "{replies:?}");
        assert_eq!(replies.iter().filter(|reply| **reply == Existing(new[0])).count(), 7, "{replies:?}");
        env.cancel(&new).await;
    }
}
