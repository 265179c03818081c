//! Wake-ups: nobody sleeps through work. They may come for nothing; they may not stay away.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::env::Env;
use super::jobs::*;
use crate::id::Tenant;
use crate::store::{Limit, LimitOf, QueuePolicy, Wakeup, Wakeups};

/// Takes the wake-ups that have come.
async fn drain(wakeups: &mut Wakeups) {
    poll_fn(|cx| {
        while let Poll::Ready(Some(Wakeup)) = wakeups.as_mut().poll_next(cx) {}
        Poll::Ready(())
    })
    .await;
}

/// Waits for a wake-up.
async fn woken(wakeups: &mut Wakeups) {
    assert_eq!(poll_fn(|cx| wakeups.as_mut().poll_next(cx)).await, Some(Wakeup), "the stream does not end");
}

pub(super) async fn a_submission_wakes_every_listener(env: &mut Env) {
    let (mut a, mut b) = (env.store().wakeups(), env.store().wakeups());
    env.add(job()).await;
    woken(&mut a).await;
    woken(&mut b).await;
    drain(&mut a).await;
    env.add(job()).await;
    woken(&mut a).await;
    assert_eq!(env.lanes().await.heads[0].depth, 2, "what woke them is there");
}

pub(super) async fn a_delayed_job_wakes_for_its_time_to_be_known(env: &mut Env) {
    let mut wakeups = env.store().wakeups();
    let at = env.ahead(SECOND);
    env.add(job().run_at(at)).await;
    woken(&mut wakeups).await;
    assert_eq!(env.lanes().await.next_due, Some(at));
}

pub(super) async fn what_becomes_ready_wakes(env: &mut Env) {
    let parent = env.add(job()).await;
    env.add(job_of(spec().queue("child")).after(needs(&[parent]))).await;
    let held = env.hold(parent).await;
    let mut wakeups = env.store().wakeups();
    drain(&mut wakeups).await;
    env.tell(&held, started()).await;
    drain(&mut wakeups).await;
    env.tell(&held, retried(Duration::ZERO)).await;
    woken(&mut wakeups).await;
    let held = env.hold(parent).await;
    drain(&mut wakeups).await;
    env.tell(&held, failed()).await;
    drain(&mut wakeups).await;
    env.redrive(&[parent]).await;
    woken(&mut wakeups).await;
}

pub(super) async fn a_released_child_wakes(env: &mut Env) {
    let parent = env.add(job()).await;
    env.add(job_of(spec().queue("child")).after(needs(&[parent]))).await;
    let held = env.hold(parent).await;
    let mut wakeups = env.store().wakeups();
    drain(&mut wakeups).await;
    env.tell(&held, succeeded()).await;
    woken(&mut wakeups).await;
}

pub(super) async fn a_reap_wakes_for_what_came_back(env: &mut Env) {
    let term = env.term().await;
    let owner = env.owner("a").await;
    let id = env.add(job()).await;
    env.take(&owner, id).await;
    env.store().retire(&owner).await.expect("retire");
    let mut wakeups = env.store().wakeups();
    drain(&mut wakeups).await;
    env.reap(&term, 9).await;
    woken(&mut wakeups).await;
}

pub(super) async fn a_request_to_cancel_wakes_the_owner(env: &mut Env) {
    let held = env.running(job()).await;
    let mut wakeups = env.store().wakeups();
    drain(&mut wakeups).await;
    env.cancel(&[held.job.id]).await;
    woken(&mut wakeups).await;
}

pub(super) async fn a_policy_that_lets_work_through_wakes(env: &mut Env) {
    let tenant = Tenant::default;
    let pause = |paused| QueuePolicy { tenant: tenant(), queue: name("default"), paused, weight: 1 };
    let limit = |max| Limit::key(tenant(), name("k"), max);
    env.store().set_queue(pause(true)).await.expect("set_queue");
    env.store().set_limit(limit(0)).await.expect("set_limit");
    env.add_all(vec![job(), job_of(spec().queue("other").limited_by("k"))]).await;
    let mut wakeups = env.store().wakeups();
    drain(&mut wakeups).await;
    env.store().set_queue(pause(false)).await.expect("set_queue");
    woken(&mut wakeups).await;
    drain(&mut wakeups).await;
    env.store().set_limit(limit(1)).await.expect("set_limit");
    woken(&mut wakeups).await;
}

pub(super) async fn a_limit_that_is_free_again_wakes(env: &mut Env) {
    let limit = Limit::key(Tenant::default(), name("k"), 1);
    env.store().set_limit(limit).await.expect("set_limit");
    let all = env.add_all(vec![job_of(spec().limited_by("k")), job_of(spec().limited_by("k"))]).await;
    let held = env.hold(all[0]).await;
    let mut wakeups = env.store().wakeups();
    drain(&mut wakeups).await;
    env.tell(&held, succeeded()).await;
    woken(&mut wakeups).await;
    env.hold(all[1]).await;
}

pub(super) async fn every_limit_with_room_again_wakes(env: &mut Env) {
    let own = Tenant::default;
    let queue = LimitOf::Queue(own(), name("default"));
    for about in [LimitOf::Tenant(own()), queue, LimitOf::Key(own(), name("k"))] {
        env.store().set_limit(Limit::new(about.clone(), 1)).await.expect("set_limit");
        let all = env.add_all((0..3).map(|_| job_of(spec().limited_by("k"))).collect()).await;
        let held = env.hold(all[0]).await;
        let mut wakeups = env.store().wakeups();
        drain(&mut wakeups).await;
        env.tell(&held, succeeded()).await;
        woken(&mut wakeups).await;
        let next = env.hold(all[1]).await;
        drain(&mut wakeups).await;
        env.store().remove_limit(&about).await.expect("remove_limit");
        woken(&mut wakeups).await;
        let last = env.hold(all[2]).await;
        env.report(vec![of(&next, succeeded()), of(&last, succeeded())]).await;
    }
}
