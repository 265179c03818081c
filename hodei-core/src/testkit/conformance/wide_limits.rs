//! Limits of queues, tenants and the whole store: exact beside each other, whenever they are set.

use std::pin::Pin;
use std::time::Duration;

use super::env::Env;
use super::jobs::*;
use crate::error::ErrorKind;
use crate::id::{JobId, Tenant};
use crate::job::{Lease, NewJob};
use crate::store::{Claimed, Exchange, Lane, Limit, LimitOf, LimitUse, Move, Pick, Scope, Spent, together};

/// How many owners claim at the same time.
const RACERS: usize = 8;

/// A limit of each kind that counts [`job`].
fn kinds(env: &Env) -> Vec<LimitOf> {
    let own = Tenant::default;
    let all = Some(LimitOf::All).filter(|_| env.store().capabilities().limits_all);
    let others =
        [LimitOf::Tenant(own()), LimitOf::Queue(own(), name("default")), LimitOf::Key(own(), name("k"))];
    all.into_iter().chain(others).collect()
}

fn keyed() -> NewJob {
    job_of(spec().limited_by("k"))
}

async fn set(env: &Env, of: &LimitOf, max: u32) {
    env.store().set_limit(Limit::new(of.clone(), max)).await.expect("set_limit");
}

async fn remove(env: &Env, of: &LimitOf) -> bool {
    env.store().remove_limit(of).await.expect("remove_limit")
}

async fn in_use(env: &Env, of: &LimitOf) -> u32 {
    let limits = env.store().limits(&Scope::All).await.expect("limits");
    limits.into_iter().find(|row| row.limit.of == *of).expect("it was set").in_use
}

/// Claims from the lanes of these jobs, and says how many it got from each.
async fn claims(env: &mut Env, beside: &[JobId], n: u32) -> Vec<usize> {
    let worker = env.worker().await;
    let mut got = Vec::new();
    for id in beside {
        got.push(env.claim_beside(&worker, *id, n).await.len());
    }
    got
}

/// Two jobs in each of three lanes: two of a queue, and one of another.
async fn lanes_of(env: &mut Env, tenant: &Tenant) -> [JobId; 3] {
    let mut firsts = Vec::new();
    for (queue, key) in [("default", "a"), ("default", "b"), ("other", "a")] {
        let new = || job_for(tenant, spec().queue(queue).limited_by(key));
        firsts.push(env.add_all(vec![new(), new()]).await[0]);
    }
    firsts.try_into().expect("three lanes")
}

pub(super) async fn a_limit_of_a_queue_holds_over_its_lanes(env: &mut Env) {
    set(env, &LimitOf::Queue(Tenant::default(), name("default")), 3).await;
    let ([a, b, other], foreign) = (lanes_of(env, &Tenant::default()).await, lanes_of(env, &acme()).await);
    assert_eq!(claims(env, &[a, b, other], 9).await, [2, 1, 2]);
    assert_eq!(claims(env, &foreign, 9).await, [2, 2, 2], "it is of one tenant");
}

pub(super) async fn a_limit_of_a_tenant_holds_over_its_queues(env: &mut Env) {
    set(env, &LimitOf::Tenant(Tenant::default()), 5).await;
    let (own, foreign) = (lanes_of(env, &Tenant::default()).await, lanes_of(env, &acme()).await);
    assert_eq!(claims(env, &own, 9).await, [2, 2, 1]);
    assert_eq!(claims(env, &foreign, 9).await, [2, 2, 2], "it is of one tenant");
}

pub(super) async fn a_limit_of_all_holds_over_tenants(env: &mut Env) {
    if !env.store().capabilities().limits_all {
        let error = env.store().set_limit(Limit::all(7)).await.expect_err("nobody could hold it");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!remove(env, &LimitOf::All).await);
        return;
    }
    set(env, &LimitOf::All, 7).await;
    let (own, foreign) = (lanes_of(env, &Tenant::default()).await, lanes_of(env, &acme()).await);
    assert_eq!(claims(env, &own, 9).await, [2, 2, 2]);
    assert_eq!(claims(env, &foreign, 9).await, [1, 0, 0]);
    let all = LimitUse { limit: Limit::all(7), in_use: 7, spent: Spent::default() };
    assert_eq!(env.store().limits(&Scope::Tenant(acme())).await.expect("limits"), [all], "it is everybody's");
}

pub(super) async fn the_least_room_of_all_limits_decides(env: &mut Env) {
    let kinds = kinds(env);
    for tightest in &kinds {
        for of in &kinds {
            set(env, of, if of == tightest { 1 } else { 2 }).await;
        }
        let ids = env.add_all(vec![keyed(), keyed(), keyed()]).await;
        assert_eq!(claims(env, &ids[..1], 9).await, [1], "{tightest}");
        for of in &kinds {
            assert_eq!(in_use(env, of).await, 1, "a job counts against {of}");
        }
        set(env, tightest, 9).await;
        assert_eq!(claims(env, &ids[..1], 9).await, [1], "the others have room for one");
        let worker = env.worker().await;
        let held = env.store().leases_of(&worker).await.expect("leases_of");
        for one in &held {
            env.tell(one, succeeded()).await;
        }
        env.cancel(&ids).await;
    }
}

pub(super) async fn what_was_leased_before_a_limit_was_set_counts(env: &mut Env) {
    for of in kinds(env) {
        let ids = env.add_all(vec![keyed(), keyed(), keyed()]).await;
        let (a, b) = (env.hold(ids[0]).await, env.hold(ids[1]).await);
        set(env, &of, 2).await;
        assert_eq!(in_use(env, &of).await, 2, "{of}");
        assert_eq!(claims(env, &ids[2..], 1).await, [0]);
        set(env, &of, 1).await;
        env.tell(&a, succeeded()).await;
        assert_eq!(claims(env, &ids[2..], 1).await, [0], "one of one is used");
        set(env, &of, 2).await;
        let c = env.hold(ids[2]).await;
        assert_eq!(in_use(env, &of).await, 2);
        assert!(remove(env, &of).await && !remove(env, &of).await);
        env.tell(&b, succeeded()).await;
        set(env, &of, 5).await;
        assert_eq!(in_use(env, &of).await, 1, "it was counted anew");
        env.tell(&c, succeeded()).await;
        assert_eq!(in_use(env, &of).await, 0);
        remove(env, &of).await;
    }
}

pub(super) async fn a_limit_that_was_removed_lets_work_through(env: &mut Env) {
    for of in kinds(env) {
        set(env, &of, 0).await;
        let id = env.add(keyed()).await;
        assert_eq!((env.lanes().await.heads.len(), claims(env, &[id], 1).await), (0, vec![0]), "{of}");
        assert!(remove(env, &of).await);
        assert_eq!(env.lanes().await.heads[0].depth, 1);
        env.run(id, succeeded()).await;
    }
}

pub(super) async fn every_end_of_a_lease_frees_every_limit(env: &mut Env) {
    let (kinds, term) = (kinds(env), env.term().await);
    for of in &kinds {
        set(env, of, 1).await;
    }
    let used = async |env: &Env| {
        let mut used = Vec::new();
        for of in &kinds {
            used.push(in_use(env, of).await);
        }
        used.dedup();
        used
    };
    let steps = [succeeded(), failed(), retried(Duration::ZERO), snoozed(HOUR), Move::Preempted];
    for step in steps {
        let held = env.running(keyed()).await;
        assert_eq!(used(env).await, [1]);
        env.tell(&held, step).await;
        assert_eq!(used(env).await, [0]);
        env.cancel(&[held.job.id]).await;
    }
    let id = env.add(keyed()).await;
    let held = env.hold(id).await;
    env.tell(&held, Move::Returned).await;
    assert_eq!(used(env).await, [0], "returned");
    env.hold(id).await;
    env.cancel(&[id]).await;
    assert_eq!(used(env).await, [0], "cancelled before it started");
    let (owner, id): (Lease, _) = (env.owner("a").await, env.add(keyed()).await);
    env.take(&owner, id).await;
    env.store().retire(&owner).await.expect("retire");
    assert_eq!(used(env).await, [1], "until it is reaped");
    env.reap(&term, 9).await;
    assert_eq!(used(env).await, [0]);
}

pub(super) async fn wide_limits_cut_the_depth(env: &mut Env) {
    for of in kinds(env) {
        let ids = env.add_all((0..4).map(|_| keyed()).collect()).await;
        set(env, &of, 3).await;
        assert_eq!(env.lanes().await.heads[0].depth, 3, "{of}");
        let held = env.hold(ids[0]).await;
        assert_eq!(env.lanes().await.heads[0].depth, 2, "{of}");
        env.tell(&held, succeeded()).await;
        env.cancel(&ids).await;
        remove(env, &of).await;
    }
}

/// Has owners claim at once, two jobs each, from three lanes of six jobs that are all under what `k` is under; returns the jobs
/// and what was claimed.
pub(super) async fn race(env: &mut Env) -> (Vec<JobId>, Vec<Claimed>) {
    let mut jobs = Vec::new();
    for key in ["a", "b", "c"] {
        jobs.extend((0..6).map(|_| job_of(spec().limited_by("k").limited_by(key))));
    }
    let ids = env.add_all(jobs).await;
    let mut lanes = Vec::new();
    for first in [ids[0], ids[6], ids[12]] {
        lanes.push(Lane::of(&env.get(first).await));
    }
    let owner = env.worker().await;
    let racing = (0..RACERS).map(|n| {
        let lane = lanes[n % lanes.len()].clone();
        let picks = vec![Pick { lane, floor: priority(0), ceiling: priority(63), n: 2 }];
        let (store, owner) = (env.shared(), owner.clone());
        Box::pin(async move {
            let exchange = Exchange { owner, transitions: Vec::new(), picks };
            store.exchange(exchange).await.expect("exchange").claimed
        }) as Pin<Box<dyn Future<Output = Vec<Claimed>> + Send>>
    });
    (ids, together(racing.collect()).await.concat())
}

pub(super) async fn racing_owners_never_exceed_a_limit(env: &mut Env) {
    env.seen.unordered = true;
    for of in kinds(env) {
        set(env, &of, 5).await;
        let (ids, claimed) = race(env).await;
        assert_eq!((claimed.len(), in_use(env, &of).await), (5, 5), "{of}");
        for one in &claimed {
            env.tell(one, succeeded()).await;
        }
        env.cancel(&ids).await;
        remove(env, &of).await;
    }
}

pub(super) async fn wide_limits_come_back(env: &mut Env) {
    let kinds = kinds(env);
    let held = env.running(keyed()).await;
    for of in &kinds {
        set(env, of, 1).await;
    }
    let id = env.add(keyed()).await;
    let before = env.store().limits(&Scope::All).await.expect("limits");
    assert!(before.iter().all(|row| row.in_use == 1), "{before:?}");
    if !env.reopen().await {
        return;
    }
    assert_eq!(env.store().limits(&Scope::All).await.expect("limits"), before);
    assert_eq!(claims(env, &[id], 1).await, [0]);
    env.tell(&held, succeeded()).await;
    assert_eq!(claims(env, &[id], 1).await, [1]);
    for of in &kinds {
        assert!(remove(env, of).await);
    }
    assert!(env.reopen().await);
    assert_eq!(env.store().limits(&Scope::All).await.expect("limits"), []);
}
