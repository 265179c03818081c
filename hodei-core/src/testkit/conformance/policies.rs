//! Policies: set, replaced, listed.

use super::env::Env;
use super::jobs::*;
use crate::error::ErrorKind;
use crate::id::Tenant;
use crate::store::{Limit, LimitUse, QueuePolicy, Scope};

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
    assert_eq!(env.store().queues(&own()).await.expect("queues"), [changed, all[2].clone()]);
}

pub(super) async fn a_queue_without_weight_is_invalid(env: &mut Env) {
    let error = env.store().set_queue(queue(acme(), "a", 0)).await.expect_err("no weight");
    assert_eq!((error.kind(), error.faults()[0].field.as_str()), (ErrorKind::Invalid, "weight"));
    assert_eq!(env.store().queues(&Scope::All).await.expect("queues"), []);
}

pub(super) async fn limits_are_listed_by_tenant_and_key(env: &mut Env) {
    let limit = |tenant, key, max| Limit { tenant, key: name(key), max };
    let all = [limit(acme(), "b", 1), limit(Tenant::default(), "a", 2), limit(Tenant::default(), "c", 0)];
    for limit in all.iter().rev() {
        env.store().set_limit(limit.clone()).await.expect("set_limit");
    }
    env.running(job_of(spec().limited_by("a").limited_by("unset"))).await;
    let used = |limit: &Limit, in_use| LimitUse { limit: limit.clone(), in_use };
    let expected = [used(&all[0], 0), used(&all[1], 1), used(&all[2], 0)];
    assert_eq!(env.store().limits(&Scope::All).await.expect("limits"), expected);
    assert_eq!(env.store().limits(&own()).await.expect("limits"), expected[1..]);
    let raised = Limit { max: u32::MAX, ..all[1].clone() };
    env.store().set_limit(raised.clone()).await.expect("set_limit");
    assert_eq!(env.store().limits(&own()).await.expect("limits")[0], used(&raised, 1));
}
