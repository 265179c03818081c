//! Limits: exact over lanes, picks, and every way in which a lease ends.

use std::time::Duration;

use super::env::Env;
use super::jobs::*;
use crate::id::Tenant;
use crate::job::{Lease, NewJob};
use crate::store::{Applied, Lane, Limit, LimitUse, Pick, Scope, Spent};

async fn limit(env: &Env, key: &'static str, max: u32) {
    let limit = Limit::key(Tenant::default(), name(key), max);
    env.store().set_limit(limit).await.expect("set_limit");
}

async fn in_use(env: &Env) -> u32 {
    env.store().limits(&Scope::All).await.expect("limits")[0].in_use
}

fn limited() -> NewJob {
    job_of(spec().limited_by("k"))
}

pub(super) async fn a_limit_holds_over_lanes_and_picks(env: &mut Env) {
    limit(env, "k", 3).await;
    let here = env.add_all(vec![limited(), limited()]).await;
    let there = job_of(spec().queue("other").limited_by("k"));
    let there = env.add_all(vec![there, job_of(spec().queue("other").limited_by("k"))]).await;
    let lanes = [Lane::of(&env.get(here[0]).await), Lane::of(&env.get(there[0]).await)];
    let picks = lanes.map(|lane| Pick { lane, floor: priority(0), ceiling: priority(63), n: 9 }).to_vec();
    let worker = env.worker().await;
    let done = env.exchange(&worker, Vec::new(), picks.clone()).await;
    assert_eq!(ids(&done.claimed), [here[0], here[1], there[0]]);
    assert_eq!(ids(&env.exchange(&worker, Vec::new(), picks.clone()).await.claimed), []);
    let freed = vec![of(&done.claimed[0], succeeded())];
    let next = env.exchange(&worker, freed, picks).await;
    assert_eq!((next.applied, ids(&next.claimed)), (vec![Applied::Done], vec![there[1]]));
}

pub(super) async fn the_narrowest_of_several_limits_holds(env: &mut Env) {
    limit(env, "narrow", 1).await;
    limit(env, "wide", 2).await;
    let both = || job_of(spec().limited_by("wide").limited_by("narrow").limited_by("unset"));
    let first = env.add_all(vec![both(), both()]).await;
    let wide = env.add_all(vec![job_of(spec().limited_by("wide")), job_of(spec().limited_by("wide"))]).await;
    let worker = env.worker().await;
    assert_eq!(ids(&env.claim_beside(&worker, first[0], 9).await), [first[0]]);
    assert_eq!(ids(&env.claim_beside(&worker, wide[0], 9).await), [wide[0]]);
}

pub(super) async fn a_limit_is_of_one_tenant(env: &mut Env) {
    limit(env, "k", 0).await;
    let own = env.add(limited()).await;
    let foreign = env.add(job_for(&acme(), spec().limited_by("k"))).await;
    let worker = env.worker().await;
    assert_eq!(ids(&env.claim_beside(&worker, own, 1).await), []);
    assert_eq!(ids(&env.claim_beside(&worker, foreign, 1).await), [foreign]);
    assert_eq!(in_use(env).await, 0);
}

pub(super) async fn the_use_is_counted_before_a_limit_is_set(env: &mut Env) {
    let ids = env.add_all(vec![limited(), limited()]).await;
    let held = env.hold(ids[0]).await;
    limit(env, "k", 1).await;
    let used =
        LimitUse { limit: Limit::key(Tenant::default(), name("k"), 1), in_use: 1, spent: Spent::default() };
    assert_eq!(env.store().limits(&Scope::All).await.expect("limits"), [used]);
    let worker = env.worker().await;
    assert!(env.claim_beside(&worker, ids[1], 1).await.is_empty());
    env.tell(&held, succeeded()).await;
    env.take(&worker, ids[1]).await;
}

pub(super) async fn what_is_leased_stays_leased_under_a_lower_limit(env: &mut Env) {
    limit(env, "k", 2).await;
    let ids = env.add_all(vec![limited(), limited(), limited()]).await;
    let (a, b) = (env.hold(ids[0]).await, env.hold(ids[1]).await);
    limit(env, "k", 1).await;
    assert_eq!(in_use(env).await, 2);
    let worker = env.worker().await;
    env.tell(&a, succeeded()).await;
    assert!(env.claim_beside(&worker, ids[2], 1).await.is_empty(), "one of one is used");
    env.tell(&b, succeeded()).await;
    env.take(&worker, ids[2]).await;
}

pub(super) async fn every_end_of_a_lease_frees_its_limit(env: &mut Env) {
    limit(env, "k", 1).await;
    let steps = [
        succeeded(),
        failed(),
        cancelled(),
        retried(Duration::ZERO),
        snoozed(Duration::ZERO),
        crate::store::Move::Preempted,
    ];
    for step in steps {
        let held = env.running(limited()).await;
        assert_eq!(in_use(env).await, 1);
        assert_eq!(env.tell(&held, step).await, Applied::Done);
        assert_eq!(in_use(env).await, 0);
        env.cancel(&[held.job.id]).await;
    }
    let id = env.add(limited()).await;
    let held = env.hold(id).await;
    env.tell(&held, crate::store::Move::Returned).await;
    assert_eq!(in_use(env).await, 0, "returned");
    env.hold(id).await;
    env.cancel(&[id]).await;
    assert_eq!(in_use(env).await, 0, "cancelled before it started");
}

pub(super) async fn a_reap_frees_limits(env: &mut Env) {
    limit(env, "k", 1).await;
    let term = env.term().await;
    let owner: Lease = env.owner("a").await;
    let id = env.add(limited()).await;
    env.take(&owner, id).await;
    env.store().retire(&owner).await.expect("retire");
    assert_eq!(in_use(env).await, 1, "until it is reaped");
    env.reap(&term, 9).await;
    assert_eq!(in_use(env).await, 0);
}
