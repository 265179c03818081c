//! Submitting: what is new, what is told apart, what is refused.

use std::sync::Arc;

use super::env::{Env, together};
use super::fixture::Setup;
use super::jobs::*;
use crate::error::ErrorKind;
use crate::id::{JobId, Tenant};
use crate::job::{Cause, Epoch, NewJob, State};
use crate::store::{
    Change, Counts, Fired, Refusal, Retention, Schedule, Scope, SubmitOptions,
    Submitted::{self, Conflict, Existing, New, Refused},
};

pub(super) async fn a_new_job_is_stored_as_it_was_submitted(env: &mut Env) {
    let new = job().run_at(env.ahead(SECOND)).deadline(env.ahead(HOUR)).unique("k");
    let done = env.store().submit(vec![new.clone()], SubmitOptions::each()).await.expect("submit");
    let stored = env.get(new.id).await;
    assert_eq!(done.replies, [New(new.id)]);
    assert_eq!(done.changes, [Change::of(&stored, None)]);
    assert_eq!((&stored.spec, &stored.tenant, &stored.unique), (&new.spec, &new.tenant, &new.unique));
    assert_eq!((stored.deadline, stored.pipeline, &stored.parents), (new.deadline, None, &new.parents));
    assert_eq!((stored.state, stored.cause, stored.version), (State::Pending, Cause::Submitted, 1));
    assert_eq!((stored.created_at, stored.moved_at), (env.now(), env.now()));
    assert_eq!((Some(stored.eligible_at), stored.fingerprint), (new.run_at, new.fingerprint()));
    assert_eq!((stored.attempt, stored.epoch, stored.lease), (0, Epoch::default(), None));
    env.seen.changes.extend(done.changes);
}

pub(super) async fn a_time_that_has_passed_is_now(env: &mut Env) {
    let (past, now) = (env.now(), env.ahead(SECOND));
    env.advance(SECOND).await;
    let id = env.add(job().run_at(past)).await;
    assert_eq!(env.get(id).await.eligible_at, now);
}

pub(super) async fn an_empty_batch_changes_nothing(env: &mut Env) {
    for options in [SubmitOptions::each(), SubmitOptions::atomic()] {
        assert_eq!(env.submit_as(Vec::new(), options).await, []);
    }
    assert_eq!(env.store().counts(&Scope::All).await.expect("counts"), Counts::default());
}

pub(super) async fn a_repeated_submission_is_existing(env: &mut Env) {
    let new = job();
    env.add(new.clone()).await;
    env.run(new.id, succeeded()).await;
    let stored = env.get(new.id).await;
    env.advance(SECOND).await;
    assert_eq!(env.submit(vec![new.clone()]).await, [Existing(new.id)]);
    assert_eq!(env.get(new.id).await, stored);
}

pub(super) async fn another_submission_of_an_id_is_a_conflict(env: &mut Env) {
    let id = env.add(job()).await;
    let stored = env.get(id).await;
    let other = job_of(spec().name("other")).id(id);
    assert_eq!(env.submit(vec![other]).await, [Conflict(id)]);
    assert_eq!(env.get(id).await, stored);
}

pub(super) async fn a_unique_key_has_one_job_of_a_tenant(env: &mut Env) {
    let first = env.add(job().unique("k")).await;
    let replies = env.submit(vec![job().unique("k"), job_of(spec().name("other")).unique("k")]).await;
    assert_eq!(replies, [Existing(first), Conflict(first)]);
    env.run(first, succeeded()).await;
    assert_eq!(env.submit(vec![job().unique("k")]).await, [Existing(first)], "settled jobs keep their keys");
    env.add(job_for(&acme(), spec()).unique("k")).await;
}

pub(super) async fn a_repetition_within_a_batch_is_told_apart(env: &mut Env) {
    let (one, keyed) = (job(), job().unique("k"));
    let batch = vec![
        one.clone(),
        one.clone(),
        job_of(spec().name("other")).id(one.id),
        keyed.clone(),
        job().unique("k"),
        job_of(spec().name("other")).unique("k"),
    ];
    let expected = [
        New(one.id),
        Existing(one.id),
        Conflict(one.id),
        New(keyed.id),
        Existing(keyed.id),
        Conflict(keyed.id),
    ];
    assert_eq!(env.submit(batch).await, expected);
    assert_eq!(env.store().counts(&Scope::All).await.expect("counts").total(), 2);
}

/// A batch in which the key says "the same" and the id says "another" once had an atomic store keep half of it.
pub(super) async fn the_id_speaks_before_the_key(env: &mut Env) {
    let stored = env.add(job_of(spec().name("other"))).await;
    let keyed = job().unique("k");
    let torn = job().unique("k").id(stored);
    let batch = vec![keyed.clone(), torn];
    let atomic = env.submit_as(batch.clone(), SubmitOptions::atomic()).await;
    assert_eq!(atomic, [Refused(Refusal::Together), Conflict(stored)]);
    assert_eq!(env.find(keyed.id).await, None);
    assert_eq!(env.submit(batch).await, [New(keyed.id), Conflict(stored)]);
}

pub(super) async fn parents_stand_before_their_children(env: &mut Env) {
    let parent = job();
    let child = job().after(needs(&[parent.id]));
    let replies = env.submit(vec![child.clone(), parent.clone(), child.clone()]).await;
    assert_eq!(replies, [Refused(Refusal::UnknownParent(parent.id)), New(parent.id), New(child.id)]);
    let stored = env.get(child.id).await;
    assert_eq!((stored.state, stored.waits_for, stored.parents), (State::Blocked, 1, child.parents));
}

pub(super) async fn a_parent_that_was_refused_is_unknown(env: &mut Env) {
    let refused = job().unique("");
    let child = job().after(needs(&[refused.id]));
    let replies = env.submit(vec![refused.clone(), child]).await;
    let unknown = Refused(Refusal::UnknownParent(refused.id));
    assert_eq!(replies, [Refused(Refusal::Invalid), unknown]);
}

pub(super) async fn a_parent_of_another_tenant_is_unknown(env: &mut Env) {
    let stored = env.add(job_for(&acme(), spec())).await;
    let beside = job_for(&acme(), spec());
    let batch = vec![beside.clone(), job().after(needs(&[stored])), job().after(needs(&[beside.id]))];
    let unknown = |id| Refused(Refusal::UnknownParent(id));
    assert_eq!(env.submit(batch).await, [New(beside.id), unknown(stored), unknown(beside.id)]);
}

pub(super) async fn what_breaks_a_rule_is_refused(env: &mut Env) {
    let (id, parent) = (job().id, env.add(job()).await);
    let broken: Vec<NewJob> = vec![
        job().id(job_for(&acme(), spec()).id),
        job().unique(""),
        job().unique("a\0b"),
        job().unique("k".repeat(257)),
        job().id(id).after(needs(&[id])),
        job().after(needs(&[parent, parent])),
    ];
    for job in broken {
        assert_eq!(env.submit(vec![job.clone()]).await, [Refused(Refusal::Invalid)], "{job:?}");
        assert_eq!(env.find(job.id).await, None);
    }
}

pub(super) async fn an_atomic_batch_is_stored_whole(env: &mut Env) {
    let (a, b) = (job(), job().unique("k"));
    let c = job().after(needs(&[a.id, b.id]));
    let batch = vec![a.clone(), b.clone(), c.clone()];
    let replies = env.submit_as(batch.clone(), SubmitOptions::atomic()).await;
    assert_eq!(replies, [New(a.id), New(b.id), New(c.id)]);
    let more = [batch, vec![job().after(needs(&[c.id]))]].concat();
    let last = more[3].id;
    let replies = env.submit_as(more, SubmitOptions::atomic()).await;
    assert_eq!(
        replies,
        [Existing(a.id), Existing(b.id), Existing(c.id), New(last)],
        "repetitions spoil nothing"
    );
}

pub(super) async fn an_atomic_batch_is_stored_whole_or_not_at_all(env: &mut Env) {
    let stored = env.add(job().unique("taken")).await;
    let same = job().unique("taken").id(stored);
    let unknown = nobody();
    let spoilers: Vec<(NewJob, Submitted)> = vec![
        (job_of(spec().name("other")).id(stored), Conflict(stored)),
        (job_of(spec().name("other")).unique("taken"), Conflict(stored)),
        (job().unique(""), Refused(Refusal::Invalid)),
        (job().after(needs(&[unknown])), Refused(Refusal::UnknownParent(unknown))),
    ];
    for (spoiler, reply) in spoilers {
        let (first, last) = (job().unique("free"), job());
        let batch = vec![first.clone(), same.clone(), spoiler, last.clone()];
        let together = Refused(Refusal::Together);
        let replies = env.submit_as(batch, SubmitOptions::atomic()).await;
        assert_eq!(replies, [together, Existing(stored), reply, together]);
        assert_eq!((env.find(first.id).await, env.find(last.id).await), (None, None));
    }
    assert_eq!(env.store().counts(&Scope::All).await.expect("counts").total(), 1);
    env.add(job().unique("free")).await;
}

pub(super) async fn an_atomic_batch_of_several_tenants_is_taken_or_refused_whole(env: &mut Env) {
    let batch = vec![job(), job_for(&acme(), spec()), job()];
    if env.store().capabilities().spans_tenants {
        let expected: Vec<Submitted> = batch.iter().map(|job| New(job.id)).collect();
        assert_eq!(env.submit_as(batch, SubmitOptions::atomic()).await, expected);
        return;
    }
    let error =
        env.store().submit(batch.clone(), SubmitOptions::atomic()).await.expect_err("they share nothing");
    let fault = &error.faults()[0];
    assert_eq!(
        (error.kind(), fault.field.as_str(), fault.code),
        (ErrorKind::Invalid, "jobs", "several_tenants")
    );
    assert_eq!(env.store().counts(&Scope::All).await.expect("counts"), Counts::default());
    let own = vec![batch[0].clone(), batch[2].clone()];
    assert_eq!(env.submit_as(own, SubmitOptions::atomic()).await, [New(batch[0].id), New(batch[2].id)]);
}

pub(super) async fn a_job_learns_at_once_of_parents_that_have_settled(env: &mut Env) {
    let good = env.add(job()).await;
    env.run(good, succeeded()).await;
    let bad = env.add(job()).await;
    env.run(bad, failed()).await;
    let gone = env.add(job()).await;
    env.cancel(&[gone]).await;
    let open = env.add(job()).await;
    for (parents, state, cause) in [
        (needs(&[good]), State::Pending, Cause::ParentsSettled),
        (needs(&[good, bad]), State::Failed, Cause::ParentFailed),
        (needs(&[gone, good]), State::Cancelled, Cause::Skipped),
        (outlives(&[good, bad, gone]), State::Pending, Cause::ParentsSettled),
        (outlives(&[good, open]), State::Blocked, Cause::Submitted),
        (needs(&[open, bad]), State::Failed, Cause::ParentFailed),
    ] {
        let id = env.add(job().after(parents)).await;
        let stored = env.get(id).await;
        assert_eq!((stored.state, stored.cause), (state, cause));
    }
}

pub(super) async fn a_full_store_takes_no_part_of_a_batch(env: &mut Env) {
    if !env.set_up(Setup::default().max_jobs(3)).await {
        return;
    }
    let kept = [job(), job()];
    env.add_all(kept.to_vec()).await;
    let batch = vec![job(), job()];
    for options in [SubmitOptions::each(), SubmitOptions::atomic()] {
        let error = env.store().submit(batch.clone(), options).await.expect_err("there is no room");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Full, true));
    }
    assert_eq!(env.store().counts(&Scope::All).await.expect("counts").total(), 2);
    let replies = env.submit(vec![kept[0].clone(), batch[0].clone(), kept[1].clone()]).await;
    let expected = [Existing(kept[0].id), New(batch[0].id), Existing(kept[1].id)];
    assert_eq!(replies, expected, "repetitions need no room");
    env.cancel(&[kept[0].id]).await;
    env.advance(Retention::KEYS_MIN).await;
    let term = env.term().await;
    env.prune(&term, Retention { jobs: SECOND, changes: 1_000 }, 10).await;
    assert_eq!(env.submit(vec![batch[1].clone()]).await, [New(batch[1].id)], "pruning makes room");
}

pub(super) async fn a_tenant_at_its_bound_is_refused_alone(env: &mut Env) {
    if !env.set_up(Setup::default().tenant_max_open(2)).await {
        return;
    }
    let batch = vec![job(), job_for(&acme(), spec()), job(), job()];
    let ids: Vec<JobId> = batch.iter().map(|job| job.id).collect();
    let full = Refused(Refusal::TooMany);
    assert_eq!(env.submit(batch.clone()).await, [New(ids[0]), New(ids[1]), New(ids[2]), full]);
    assert_eq!(env.submit(vec![batch[0].clone()]).await, [Existing(ids[0])], "repetitions need no room");
    if env.store().capabilities().spans_tenants {
        let pair = vec![job_for(&acme(), spec()), job()];
        let replies = env.submit_as(pair, SubmitOptions::atomic()).await;
        assert_eq!(replies, [Refused(Refusal::Together), full]);
    }
    env.cancel(&[ids[0]]).await;
    assert_eq!(env.submit(vec![batch[3].clone()]).await, [New(ids[3])], "a settled job makes room");
}

pub(super) async fn a_run_and_a_schedule_submit_past_the_bounds(env: &mut Env) {
    if !env.set_up(Setup::default().max_jobs(1).tenant_max_open(1)).await {
        return;
    }
    let id = env.add(job()).await;
    let (a, b) = (job(), job());
    env.run(id, spawning(vec![a.clone(), b.clone()])).await;
    assert_eq!((env.state(a.id).await, env.state(b.id).await), (State::Pending, State::Pending));
    let term = env.term().await;
    let (tenant, spec) = (Tenant::default(), Arc::clone(&a.spec));
    let daily = Schedule { tenant, name: name("daily"), rule: "@daily".into(), spec, last_fired: None };
    env.store().set_schedule(daily).await.expect("set_schedule");
    let at = env.now();
    let Fired::New(fired) = env.fire(&term, "daily", at).await else { panic!("it fires") };
    assert_eq!(env.state(fired).await, State::Pending);
}

pub(super) async fn one_of_many_racing_submissions_is_new(env: &mut Env) {
    env.seen.unordered = true;
    let (store, new) = (env.shared(), job().unique("k"));
    let racing = (0..8).map(|_| {
        let (store, same) = (&store, new.clone());
        Box::pin(
            async move { store.submit(vec![same], SubmitOptions::each()).await.expect("submit").replies[0] },
        ) as std::pin::Pin<Box<dyn Future<Output = Submitted> + Send + '_>>
    });
    let replies = together(racing.collect()).await;
    assert_eq!(replies.iter().filter(|reply| **reply == New(new.id)).count(), 1, "{replies:?}");
    assert_eq!(replies.iter().filter(|reply| **reply == Existing(new.id)).count(), 7, "{replies:?}");
    assert_eq!(env.get(new.id).await.tenant, Tenant::default());
}
