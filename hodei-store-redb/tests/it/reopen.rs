//! What was acknowledged is there again, and whoever held it is not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hodei_core::job::{Failure, FailureClass, Finish, Lease, NewJob, Output, Parent, Requires, State};
use hodei_core::store::{
    Applied, ChangeLog, Coordination, Fired, JobStore, Limit, Move, QueuePolicy, Retention, Schedule, Scope,
    Served, Store, Term,
};
use hodei_core::{Name, Tenant, Timestamp};

use crate::env::{Env, TTL, claim, done, everything, job, job_of, owner, report, spec, submit, tenant, term};

const NIGHT: &str = "night";

fn later(env: &Env, by: Duration) -> Timestamp {
    use hodei_core::Clock as _;
    env.clock.now().saturating_add(by)
}

/// Sets a queue, a limit and a schedule.
async fn set_policies(store: &dyn Store) {
    let queue = QueuePolicy { tenant: tenant("b"), queue: Name::literal(NIGHT), paused: false, weight: 3 };
    store.set_queue(queue).await.expect("the store is sound");
    let limit = Limit::key(Tenant::default(), Name::literal("db"), 2);
    store.set_limit(limit).await.expect("the store is sound");
    let schedule = Schedule {
        tenant: tenant("b"),
        name: Name::literal("daily"),
        rule: Arc::from("@daily"),
        spec: Arc::new(spec().queue(NIGHT).build().expect("a valid spec")),
        last_fired: None,
    };
    store.set_schedule(schedule).await.expect("the store is sound");
}

/// Jobs of two tenants in every state, with parents, times, keys, limits and ends.
pub(crate) async fn populate(env: &Env, store: &dyn Store) -> (Lease, Term) {
    set_policies(store).await;
    let node = owner(store, "node").await;
    let duty = term(store, "maintain", &node).await;
    let fired = store.fire(&duty, &tenant("b"), &Name::literal("daily"), later(env, Duration::ZERO)).await;
    assert!(matches!(fired, Ok(Fired::New(_))));
    let limited: Vec<NewJob> = (0..4).map(|_| job_of(&Tenant::default(), spec().limited_by("db"))).collect();
    submit(store, limited).await;
    submit(store, (0..7).map(|_| job()).collect()).await;
    let held = claim(store, &node, 5).await;
    assert_eq!(held.len(), 8, "two of the limit, five of the rest, one of the schedule");
    let held: Vec<_> = held.into_iter().filter(|of| of.job.tenant == Tenant::default()).collect();
    let failure = Failure::new(FailureClass::Error, "out of luck");
    let output = Output::Inline(Bytes::from_static(b"{\"a\":\"1\"}"));
    let ends = [
        Move::Finished(Box::new(Finish::succeeded(output))),
        Move::Finished(Box::new(Finish::failed(failure.clone()))),
        Move::Retried { failure, wait: Duration::from_secs(60), manifest: None },
        Move::Started { lease: None },
    ];
    for (of, step) in held.iter().zip(ends) {
        assert_eq!(report(store, &node, (of.job.id, of.job.epoch), step).await, Applied::Done);
    }
    store
        .request_cancel(&Scope::All, vec![held[3].job.id, held[4].job.id])
        .await
        .expect("the store is sound");
    let needs = |id, requires| Parent { id, requires };
    let blocked =
        job().after([needs(held[5].job.id, Requires::Success), needs(held[0].job.id, Requires::Ended)]);
    let skipped = job().after([needs(held[1].job.id, Requires::Success)]);
    let delayed = job().run_at(later(env, Duration::from_secs(30))).deadline(later(env, TTL)).unique("once");
    let other = job_of(&tenant("b"), spec().queue(NIGHT).limited_by("db"));
    submit(store, vec![blocked, skipped, delayed, other]).await;
    (node, duty)
}

#[tokio::test]
async fn everything_is_there_again() {
    let env = Env::new();
    let store = env.open();
    populate(&env, &store).await;
    let before = everything(&store).await.unwrap();
    for state in State::ALL {
        assert!(before.counts.of(state) > 0, "the test has a job that is {state:?}");
    }
    drop(store);
    for _ in 0..2 {
        let store = env.open();
        assert_eq!(everything(&store).await.unwrap(), before);
        assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_cursor_of_an_earlier_life_goes_on_where_it_was() {
    let env = Env::new();
    let store = env.open();
    let first = submit(&store, vec![job()]).await;
    let page = store.changes(&Scope::All, None, 10).await.unwrap();
    assert_eq!(page.changes.iter().map(|change| change.job).collect::<Vec<_>>(), first);
    drop(store);
    let store = env.open();
    assert_eq!(store.changes_end().await.unwrap(), page.next);
    let second = submit(&store, vec![job()]).await;
    let page = store.changes(&Scope::All, Some(page.next), 10).await.unwrap();
    assert_eq!(page.changes.iter().map(|change| change.job).collect::<Vec<_>>(), second);
}

#[tokio::test]
async fn owners_and_terms_of_an_earlier_life_are_dead_and_incarnations_rise() {
    let env = Env::new();
    let mut last = 0;
    for _ in 0..3 {
        let store = env.open();
        let node = owner(&store, "node").await;
        assert!(node.incarnation > last, "{} after {last}", node.incarnation);
        let duty = term(&store, "maintain", &node).await;
        assert!(store.keep_term(&duty, TTL).await.unwrap());
        drop(store);
        let store = env.open();
        assert!(!store.beat(vec![node.clone()], TTL).await.unwrap()[0].alive);
        assert!(!store.keep_term(&duty, TTL).await.unwrap());
        assert!(store.reap(&duty, 3, 10).await.unwrap().term_lost);
        assert!(store.prune(&duty, Retention::default(), 10).await.unwrap().term_lost);
        let heir = owner(&store, "heir").await;
        let next = term(&store, "maintain", &heir).await;
        assert!(next.number > duty.number);
        last = heir.incarnation;
    }
}

#[tokio::test]
async fn leases_of_an_earlier_life_are_reaped_and_their_reports_refused() {
    let env = Env::new();
    let store = env.open();
    let ids = submit(&store, vec![job(), job(), job()]).await;
    let node = owner(&store, "node").await;
    let held = claim(&store, &node, 10).await;
    assert_eq!(held.len(), 3);
    report(&store, &node, (held[0].job.id, held[0].job.epoch), Move::Started { lease: None }).await;
    drop(store);
    let store = env.open();
    assert_eq!(store.leases_of(&node).await.unwrap().len(), 3, "until they are taken back");
    let heir = owner(&store, "heir").await;
    let duty = term(&store, "maintain", &heir).await;
    let first = store.reap(&duty, 3, 2).await.unwrap();
    assert_eq!((first.changes.len(), first.more), (2, true));
    let second = store.reap(&duty, 3, 2).await.unwrap();
    assert_eq!((second.changes.len(), second.more), (1, false));
    let late = report(&store, &node, (held[0].job.id, held[0].job.epoch), done()).await;
    assert!(matches!(late, Applied::LeaseLost { .. }), "{late:?}");
    let mut again = Vec::new();
    for _ in 0..3 {
        // A job that lost an owner is claimed alone.
        let [one] = &claim(&store, &heir, 10).await[..] else { panic!("one at a time") };
        assert!(one.job.epoch > held[0].job.epoch && one.job.lost_count == 1);
        again.push(one.job.id);
    }
    again.sort();
    assert_eq!(again, ids);
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_pruned_stays_away_and_its_numbers_are_not_used_again() {
    let env = Env::new();
    let store = env.open();
    let node = owner(&store, "node").await;
    let duty = term(&store, "maintain", &node).await;
    submit(&store, vec![job(), job()]).await;
    let [of, _] = &claim(&store, &node, 2).await[..] else { panic!("two") };
    assert_eq!(report(&store, &node, (of.job.id, of.job.epoch), done()).await, Applied::Done);
    let start = store.changes(&Scope::All, None, 1).await.unwrap().next;
    let end = store.changes_end().await.unwrap();
    env.clock.advance(Retention::KEYS_MIN);
    store.beat(vec![node.clone()], TTL).await.unwrap();
    let node = owner(&store, "node").await;
    let none = Retention { jobs: Duration::ZERO, changes: 0, ..Retention::default() };
    assert!(store.prune(&duty, none, 100).await.unwrap().term_lost, "a day is longer than a term");
    let duty = term(&store, "maintain", &node).await;
    let pruned = store.prune(&duty, none, 100).await.unwrap();
    assert_eq!((pruned.jobs, pruned.changes, pruned.more), (1, 5, false));
    drop(store);
    let store = env.open();
    assert_eq!(store.counts(&Scope::All).await.unwrap().total(), 1);
    assert_eq!(store.changes_end().await.unwrap(), end);
    let expired = store.changes(&Scope::All, Some(start), 10).await.unwrap_err();
    assert_eq!(expired.kind(), hodei_core::ErrorKind::CursorExpired);
    assert!(store.changes(&Scope::All, Some(end), 10).await.unwrap().changes.is_empty());
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn fewer_changes_are_recorded_where_that_was_asked_for() {
    for (log, expected) in [(ChangeLog::All, 3), (ChangeLog::TerminalOnly, 2), (ChangeLog::Off, 0)] {
        let env = Env::new();
        let store = env.builder().changes(log).open().unwrap();
        submit(&store, vec![job()]).await;
        let node = owner(&store, "node").await;
        let held = claim(&store, &node, 1).await;
        assert_eq!(report(&store, &node, (held[0].job.id, held[0].job.epoch), done()).await, Applied::Done);
        let page = store.changes(&Scope::All, None, 10).await.unwrap();
        assert_eq!(page.changes.len(), expected, "{log:?}");
        drop(store);
        assert_eq!(env.open().verify_indexes().await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn delayed_jobs_become_ready_though_the_store_was_closed_meanwhile() {
    let env = Env::new();
    let store = env.open();
    let wait = Duration::from_secs(5);
    submit(&store, vec![job().run_at(later(&env, wait))]).await;
    let lanes = store.lanes(&Served::default()).await.unwrap();
    assert_eq!((lanes.heads.len(), lanes.next_due), (0, Some(later(&env, wait))));
    drop(store);
    env.clock.advance(wait);
    let store = env.open();
    let lanes = store.lanes(&Served::default()).await.unwrap();
    assert_eq!((lanes.heads.len(), lanes.next_due), (1, None));
    assert_eq!(lanes.heads[0].depth, 1);
}
