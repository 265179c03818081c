//! Schedules: each fire time gives one job.

use std::sync::Arc;

use super::env::{Env, LIFE};
use super::jobs::*;
use crate::id::Tenant;
use crate::job::State;
use crate::store::{Fired, Schedule, Scope};

pub(super) fn schedule(tenant: Tenant, named: &'static str, rule: &str) -> Schedule {
    let spec = spec().name(named).build().expect("a valid spec");
    Schedule { tenant, name: name(named), rule: rule.into(), spec: Arc::new(spec), last_fired: None }
}

async fn set(env: &Env, schedule: &Schedule) {
    env.store().set_schedule(schedule.clone()).await.expect("set_schedule");
}

async fn list(env: &Env) -> Vec<Schedule> {
    env.store().schedules(&Scope::All).await.expect("schedules")
}

pub(super) async fn a_fire_time_gives_one_job(env: &mut Env) {
    let (term, daily) = (env.term().await, schedule(Tenant::default(), "daily", "@daily"));
    set(env, &daily).await;
    let at = env.now();
    let Fired::New(id) = env.fire(&term, "daily", at).await else { panic!("it fires") };
    let stored = env.get(id).await;
    assert_eq!((stored.state, &stored.spec, &stored.tenant), (State::Pending, &daily.spec, &daily.tenant));
    assert_eq!(env.fire(&term, "daily", at).await, Fired::Already);
    let earlier = crate::time::Timestamp::from_micros(at.as_micros() - 1);
    assert_eq!(env.fire(&term, "daily", earlier).await, Fired::Already);
    let later = env.ahead(SECOND);
    assert!(matches!(env.fire(&term, "daily", later).await, Fired::New(next) if next != id));
    assert_eq!(list(env).await, [Schedule { last_fired: Some(later), ..daily }]);
    assert_eq!(env.store().counts(&Scope::All).await.expect("counts").total(), 2);
}

pub(super) async fn a_changed_schedule_knows_when_it_fired(env: &mut Env) {
    let (term, at) = (env.term().await, env.now());
    set(env, &schedule(Tenant::default(), "daily", "@daily")).await;
    env.fire(&term, "daily", at).await;
    let hourly =
        Schedule { last_fired: Some(env.ahead(HOUR)), ..schedule(Tenant::default(), "daily", "@hourly") };
    set(env, &hourly).await;
    assert_eq!(list(env).await, [Schedule { last_fired: Some(at), ..hourly }]);
    assert_eq!(env.fire(&term, "daily", at).await, Fired::Already);
}

pub(super) async fn a_schedule_set_again_does_not_repeat_a_fire_time(env: &mut Env) {
    let (term, at) = (env.term().await, env.now());
    let daily = schedule(Tenant::default(), "daily", "@daily");
    set(env, &daily).await;
    let Fired::New(id) = env.fire(&term, "daily", at).await else { panic!("it fires") };
    let key = env.get(id).await.unique.expect("a fired job has a key");
    assert_eq!(Schedule::of_key(&key), Some((daily.name.clone(), at)));
    assert!(env.store().remove_schedule(&daily.tenant, &daily.name).await.expect("remove"));
    set(env, &daily).await;
    assert_eq!(env.fire(&term, "daily", at).await, Fired::Already, "its job is there");
    assert_eq!(list(env).await, [Schedule { last_fired: Some(at), ..daily.clone() }], "it counts as fired");
    assert!(matches!(env.fire(&term, "daily", env.ahead(SECOND)).await, Fired::New(_)));
    assert_eq!(env.store().counts(&Scope::All).await.expect("counts").total(), 2);
}

pub(super) async fn schedules_are_listed_and_removed(env: &mut Env) {
    let all = [
        schedule(acme(), "b", "1"),
        schedule(Tenant::default(), "a", "2"),
        schedule(Tenant::default(), "c", "3"),
    ];
    for schedule in all.iter().rev() {
        set(env, schedule).await;
    }
    assert_eq!(list(env).await, all, "by tenant and name");
    assert_eq!(env.store().schedules(&foreign()).await.expect("schedules"), all[..1]);
    let store = env.shared();
    let remove =
        async |tenant: &Tenant, named| store.remove_schedule(tenant, &name(named)).await.expect("remove");
    assert!(!remove(&acme(), "a").await, "another tenant's");
    assert!(remove(&Tenant::default(), "a").await);
    assert!(!remove(&Tenant::default(), "a").await);
    assert_eq!(list(env).await, [all[0].clone(), all[2].clone()]);
}

pub(super) async fn only_a_known_schedule_fires_and_only_in_a_term(env: &mut Env) {
    let leader = env.owner("leader").await;
    let short = env.store().take_term(&name("maintain"), &leader, LIFE).await.expect("take_term");
    let short = short.expect("nobody leads");
    set(env, &schedule(acme(), "daily", "@daily")).await;
    let at = env.now();
    assert_eq!(env.fire(&short, "daily", at).await, Fired::NotFound, "another tenant's");
    set(env, &schedule(Tenant::default(), "daily", "@daily")).await;
    env.advance(LIFE).await;
    assert_eq!(env.fire(&short, "daily", at).await, Fired::TermLost);
    let term = env.term().await;
    assert_eq!(env.fire(&short, "daily", at).await, Fired::TermLost);
    assert!(matches!(env.fire(&term, "daily", at).await, Fired::New(_)));
}
