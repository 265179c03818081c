//! Policies: set, replaced, listed.

use super::env::Env;
use super::jobs::*;
use crate::error::ErrorKind;
use crate::id::Tenant;
use crate::store::{Limit, LimitUse, QueuePolicy, Scope, Spent};

fn queue(tenant: Tenant, queue: &'static str, weight: u32) -> QueuePolicy {
    QueuePolicy { tenant, queue: name(queue), paused: false, weight }
}

pub(super) async fn queues_are_listed_by_tenant_and_name(env: &mut Env) {
    let all = [queue(acme(), "b", 1), queue(Tenant::default(), "a", 2), queue(Tenant::default(), "c", 3)];
    for policy in all.iter().rev() {
        env.store().set_queue(policy.clone()).await.expect("set_queue");
    }
    assert_eq!(env.store().queues(&Scope::All).await.expect("queues"), all);
    assert_eq!(env.store().queues(&foreign()).await.expect("queues"), all[..1]);
    let changed = QueuePolicy { paused: true, weight: 9, ..all[1].clone() };
    env.store().set_queue(changed.clone()).await.expect("set_queue");
    assert_eq!(env.store().queues(&own()).await.expect("queues"), [changed.clone(), all[2].clone()]);
    for (tenant, named, known) in [
        (Tenant::default(), "a", Some(&changed)),
        (Tenant::default(), "c", Some(&all[2])),
        (Tenant::default(), "b", None),
        (acme(), "b", Some(&all[0])),
        (acme(), "a", None),
        (Tenant::new("nobody").expect("a name"), "a", None),
    ] {
        let found = env.store().queue(&tenant, &name(named)).await.expect("queue");
        assert_eq!(found.as_ref(), known, "that of {tenant} and {named} alone");
    }
}

pub(super) async fn a_queue_without_weight_is_invalid(env: &mut Env) {
    let error = env.store().set_queue(queue(acme(), "a", 0)).await.expect_err("no weight");
    assert_eq!((error.kind(), error.faults()[0].field.as_str()), (ErrorKind::Invalid, "weight"));
    assert_eq!(env.store().queues(&Scope::All).await.expect("queues"), []);
}

pub(super) async fn limits_are_listed_from_the_widest_to_the_narrowest(env: &mut Env) {
    let own = Tenant::default;
    let all = [
        Limit::tenant(acme(), 9),
        Limit::tenant(own(), 8),
        Limit::queue(own(), name("default"), 7),
        Limit::queue(own(), name("z"), 6),
        Limit::key(acme(), name("b"), 1),
        Limit::key(own(), name("a"), 2),
        Limit::key(own(), name("c"), 0),
        Limit::key(own(), name("default"), 5),
    ];
    for limit in all.iter().rev() {
        env.store().set_limit(limit.clone()).await.expect("set_limit");
    }
    env.running(job_of(spec().limited_by("a").limited_by("unset"))).await;
    let uses = [0, 1, 1, 0, 0, 1, 0, 0];
    let used = |limit: &Limit, in_use| LimitUse { limit: limit.clone(), in_use, spent: Spent::default() };
    let expected: Vec<_> = all.iter().zip(uses).map(|(limit, in_use)| used(limit, in_use)).collect();
    assert_eq!(env.store().limits(&Scope::All).await.expect("limits"), expected);
    let expected: Vec<_> = expected.into_iter().filter(|row| row.limit.of.tenant() == Some(&own())).collect();
    assert_eq!(env.store().limits(&super::jobs::own()).await.expect("limits"), expected);
    let keys = |keys: &[&str]| {
        let job = job_of(keys.iter().fold(spec(), |spec, key| spec.limited_by(*key)));
        job.spec.limit_keys().clone()
    };
    for (tenant, queue, named, limits) in [
        (own(), "default", &["c", "a", "unset"][..], &[1, 2, 5, 6][..]),
        (own(), "elsewhere", &[], &[1]),
        (acme(), "z", &["a", "b"], &[0, 4]),
        (Tenant::new("nobody").expect("a name"), "z", &["a"], &[]),
    ] {
        let limits: Vec<_> = limits.iter().map(|n: &usize| used(&all[*n], uses[*n])).collect();
        let found = env.store().limits_on(&tenant, &name(queue), &keys(named)).await.expect("limits_on");
        assert_eq!(found, limits, "those of {tenant}, {queue} and {named:?} alone");
    }
    let raised = Limit { max: u32::MAX, ..all[5].clone() };
    env.store().set_limit(raised.clone()).await.expect("set_limit");
    assert_eq!(env.store().limits(&super::jobs::own()).await.expect("limits")[3], used(&raised, 1));
}
