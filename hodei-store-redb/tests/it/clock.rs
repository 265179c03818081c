//! A clock that is set back: what was ready, dead or spent is so afterwards.

use std::sync::Arc;
use std::time::Duration;

use hodei_core::job::NewJob;
use hodei_core::store::{Claimed, JobStore as _, Limit, LimitOf, MemoryStore, Rate, Store};
use hodei_core::{Clock as _, ManualClock, Name, OwnerId, Tenant};

use crate::env::{Env, claim, done, job, job_of, report, spec, submit};

const HOUR: Duration = Duration::from_secs(3_600);
const TTL: Duration = Duration::from_secs(10);

fn queues(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|of| of.job.spec.queue().as_str()).collect()
}

async fn nothing_waits(store: &dyn Store, clock: &ManualClock) {
    let (began, upkeep) = (clock.now(), Name::literal("upkeep"));
    let register = async |name: &str| {
        store.register(&OwnerId::new(name).expect("a name"), TTL).await.expect("the store is sound")
    };
    let paced = LimitOf::Key(Tenant::default(), Name::literal("paced"));
    store
        .set_limit(Limit::paced(paced, Rate::new(1, Duration::from_secs(1)).burst(1)))
        .await
        .expect("the store is sound");
    clock.advance(HOUR);
    let of = |queue: &str| job_of(&Tenant::default(), spec().queue(queue));
    let slow = || job_of(&Tenant::default(), spec().queue("paced").limited_by("paced"));
    let delayed = NewJob { run_at: Some(clock.now().saturating_add(TTL)), ..of("delayed") };
    submit(store, vec![of("free"), of("free"), slow(), slow(), slow(), delayed]).await;
    let (node, dying, gone) = (register("node").await, register("dying").await, register("gone").await);
    store.retire(&gone).await.expect("the store is sound");
    store.take_term(&upkeep, &dying, TTL).await.expect("the store is sound").expect("nobody leads");
    assert_eq!(claim(store, &dying, 1).await.len(), 2, "one of each queue");
    clock.set(began);
    let claimed = claim(store, &node, 1).await;
    assert_eq!(queues(&claimed), ["free"], "it was ready before, and the rate is spent");
    assert!(claimed[0].job.moved_at >= claimed[0].job.created_at);
    let beats = store.beat(vec![node.clone(), dying.clone(), gone], TTL).await.expect("the store is sound");
    assert_eq!(beats.iter().map(|beat| beat.alive).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(
        store.take_term(&upkeep, &node, TTL).await.expect("the store is sound"),
        None,
        "it is led as long as before"
    );
    clock.advance(Duration::from_secs(1));
    assert_eq!(queues(&claim(store, &node, 1).await), ["paced"], "a second is a second");
    // The other one is silent from now on.
    clock.advance(TTL - Duration::from_secs(2));
    assert!(store.beat(vec![node.clone()], TTL).await.expect("the store is sound")[0].alive);
    clock.advance(Duration::from_secs(2));
    let term = store
        .take_term(&upkeep, &node, TTL)
        .await
        .expect("the store is sound")
        .expect("nobody leads any more");
    let reaped = store.reap(&term, 9, 100).await.expect("the store is sound");
    assert_eq!(reaped.changes.len(), 2, "what it held goes round again");
    assert_eq!(queues(&claim(store, &node, 9).await).len(), 2, "at once: {reaped:?}");
    assert!(store.counts(&hodei_core::store::Scope::All).await.expect("the store is sound").total() == 6);
    assert_eq!(store.verify_indexes().await.expect("the store is sound"), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_waits_for_a_clock_that_was_set_back() {
    let env = Env::new();
    nothing_waits(&env.open(), &env.clock).await;
}

#[tokio::test]
async fn nothing_waits_in_memory_either() {
    let env = Env::new();
    let clock: Arc<ManualClock> = Arc::clone(&env.clock);
    nothing_waits(&MemoryStore::builder().clock(clock).build(), &env.clock).await;
}

/// As on a machine whose clock lost its battery: what waits for nothing waits for no year to come.
#[tokio::test]
async fn what_was_ready_is_ready_though_the_clock_be_set_back_while_the_file_was_closed() {
    let env = Env::new();
    let began = env.clock.now();
    env.clock.advance(HOUR);
    {
        let store = env.open();
        let node = crate::env::owner(&store, "node").await;
        let delayed = NewJob { run_at: Some(env.clock.now().saturating_add(TTL)), ..job() };
        submit(&store, vec![job(), job(), delayed]).await;
        let first = claim(&store, &node, 1).await.remove(0);
        report(&store, &node, (first.job.id, first.job.epoch), done()).await;
    }
    env.clock.set(began);
    let store = env.open();
    let node = crate::env::owner(&store, "node").await;
    assert_eq!(claim(&store, &node, 9).await.len(), 1, "but not the one that has to wait");
    assert_eq!(store.verify_indexes().await.expect("the store is sound"), Vec::<String>::new());
}
