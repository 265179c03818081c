//! Before a store that other processes write to, of whose commits nobody tells.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use hodei_core::store::{CachedStore, Consistency, JobStore, MemoryStore, Scope};
use hodei_core::{Clock, ManualClock};

use crate::scripted::Scripted;
use crate::world::*;

type Cache = CachedStore<Scripted>;

/// A cache, the store as another process holds it, and the clock.
fn cache() -> (Cache, MemoryStore, Arc<ManualClock>) {
    let (store, clock) = memory();
    let cache =
        CachedStore::builder(Scripted::foreign(store.clone())).clock(Arc::<ManualClock>::clone(&clock));
    (cache.build(), store, clock)
}

#[tokio::test]
async fn latest_is_never_answered_from_memory() {
    let (cache, store, _) = cache();
    let id = add(&cache, job()).await;
    assert_eq!(version(&cache, id, Consistency::Latest).await, 1);
    cancel(&store, id).await;
    assert_eq!(version(&cache, id, Consistency::Latest).await, 2);
    let done = succeed(&cache, job()).await;
    let before = cache.inner().reads();
    for _ in 0..2 {
        read(&cache, done, Consistency::Latest).await;
    }
    assert_eq!(cache.inner().reads() - before, 2, "another process may have pruned it");
}

#[tokio::test]
async fn a_record_is_answered_for_as_long_as_the_caller_allows() {
    let (cache, store, clock) = cache();
    let id = add(&cache, job()).await;
    assert_eq!(version(&cache, id, CACHED).await, 1);
    cancel(&store, id).await;
    clock.advance(SECOND);
    assert_eq!(version(&cache, id, CACHED).await, 1, "it is a second old");
    assert_eq!(version(&cache, id, Consistency::Cached(SECOND / 2)).await, 2);
    redrive(&store, id).await;
    clock.advance(SECOND);
    assert_eq!(cache.get_cached(&Scope::All, id).unwrap().version, 2);
    clock.advance(std::time::Duration::from_micros(1));
    assert_eq!(cache.get_cached(&Scope::All, id), None);
    assert_eq!(version(&cache, id, CACHED).await, 3);
}

#[tokio::test]
async fn how_old_the_answers_were_is_told() {
    let (cache, _, clock) = cache();
    let id = add(&cache, job()).await;
    version(&cache, id, CACHED).await;
    let (half, stats) = (SECOND / 2, cache.cache_stats());
    assert_eq!(
        (stats.aged, stats.staleness()),
        (0, std::time::Duration::ZERO),
        "it was read, not remembered"
    );
    version(&cache, id, CACHED).await;
    clock.advance(half);
    version(&cache, id, CACHED).await;
    clock.advance(half);
    assert!(cache.get_cached(&Scope::All, id).is_some());
    let stats = cache.cache_stats();
    assert_eq!((stats.aged, stats.age_max, stats.age_sum), (3, SECOND, SECOND + half));
    assert_eq!((stats.staleness(), stats.hits, stats.misses), (half, 3, 1));
    assert!((stats.hit_ratio() - 0.75).abs() < 1e-9);
    clock.advance(half);
    assert!(cache.get_cached(&Scope::All, id).is_none());
    assert_eq!(cache.cache_stats().aged, 3, "what was too old was no answer");
}

#[tokio::test]
async fn a_clock_that_goes_back_makes_nothing_young() {
    let (cache, store, clock) = cache();
    let id = add(&cache, job()).await;
    assert_eq!(version(&cache, id, CACHED).await, 1);
    cancel(&store, id).await;
    clock.set(clock.now().saturating_sub(HOUR));
    assert_eq!(version(&cache, id, CACHED).await, 2);
}

#[tokio::test]
async fn what_succeeded_is_known_for_longer() {
    let (cache, store, clock) = cache();
    let id = succeed(&store, job()).await;
    for _ in 0..2 {
        assert_eq!(cache.outputs(&Scope::All, vec![id]).await.unwrap(), [Some(output())]);
    }
    assert_eq!(cache.inner().reads(), 1);
    assert!(read(&cache, id, CACHED).await.is_some());
    clock.advance(HOUR);
    assert!(read(&cache, id, CACHED).await.is_some());
    assert_eq!(cache.outputs(&Scope::All, vec![id]).await.unwrap(), [Some(output())]);
    assert_eq!(cache.inner().reads(), 2);
    clock.advance(SECOND);
    assert!(read(&cache, id, CACHED).await.is_some());
    assert_eq!(cache.inner().reads(), 3);
}

#[tokio::test]
async fn an_output_that_is_read_again_is_known_again() {
    let (cache, store, clock) = cache();
    let id = succeed(&store, job()).await;
    let outputs = async || cache.outputs(&Scope::All, vec![id]).await.unwrap();
    // Only the output is known, then the whole record.
    for round in 0..2 {
        if round == 1 {
            read(&cache, id, CACHED).await;
        }
        let before = cache.inner().reads();
        for _ in 0..2 {
            assert_eq!(outputs().await, [Some(output())]);
            clock.advance(HOUR + SECOND);
            assert_eq!(outputs().await, [Some(output())]);
            assert_eq!(outputs().await, [Some(output())]);
        }
        assert_eq!(cache.inner().reads() - before, if round == 0 { 3 } else { 2 }, "round {round}");
    }
    assert!(cache.get_cached(&Scope::All, id).is_some(), "the record was kept");
    assert_eq!(cache.cache_stats().stale_avoided, 0);
}

#[tokio::test]
async fn an_output_is_newer_than_a_slow_read_of_its_job() {
    let (cache, store, _) = cache();
    let id = add(&store, job()).await;
    cache.inner().dawdles.store(true, Ordering::SeqCst);
    let mut slow = Box::pin(read(&cache, id, CACHED));
    assert!(poll(&mut slow).is_pending());
    let worker = owner(&store).await;
    let held = start(&store, &worker, id).await;
    let end = hodei_core::job::Finish::succeeded(output());
    tell(&store, &worker, &held, hodei_core::store::Move::Finished(Box::new(end))).await;
    assert_eq!(cache.outputs(&Scope::All, vec![id]).await.unwrap(), [Some(output())]);
    cache.inner().dawdles.store(false, Ordering::SeqCst);
    assert!(poll(&mut slow).is_ready());
    drop(slow);
    assert_eq!(cache.get_cached(&Scope::All, id), None, "what the slow reader brought was not taken");
    assert_eq!(
        (cache.outputs(&Scope::All, vec![id]).await.unwrap(), cache.inner().reads()),
        (vec![Some(output())], 2)
    );
}

#[tokio::test]
async fn of_two_readers_the_one_that_read_the_newer_version_wins() {
    let (cache, store, _) = cache();
    let id = add(&cache, job()).await;
    cache.inner().dawdles.store(true, Ordering::SeqCst);
    let mut slow = Box::pin(version(&cache, id, CACHED));
    assert_eq!(poll(&mut slow), Poll::Pending);
    cancel(&store, id).await;
    cache.inner().dawdles.store(false, Ordering::SeqCst);
    assert_eq!(version(&cache, id, CACHED).await, 2);
    assert_eq!(poll(&mut slow), Poll::Ready(1));
    drop(slow);
    assert_eq!(cache.get_cached(&Scope::All, id).unwrap().version, 2);
    assert_eq!(cache.cache_stats().stale_avoided, 1);
}

#[tokio::test]
async fn a_tail_of_the_change_log_hastens_what_age_would_do() {
    let (cache, store, _) = cache();
    let id = add(&cache, job()).await;
    assert_eq!(version(&cache, id, CACHED).await, 1);
    cancel(&store, id).await;
    let page = store.changes(&Scope::All, None, 10).await.unwrap();
    cache.follow(&page.changes[..1]);
    assert!(cache.get_cached(&Scope::All, id).is_none(), "a submission begins a job anew");
    assert_eq!(version(&cache, id, CACHED).await, 2);
    cache.follow(&page.changes[1..]);
    assert_eq!(cache.get_cached(&Scope::All, id).unwrap().version, 2, "what is known already stays");
    redrive(&store, id).await;
    let page = store.changes(&Scope::All, Some(page.next), 10).await.unwrap();
    cache.follow(&page.changes);
    assert_eq!(version(&cache, id, CACHED).await, 3);
}

#[tokio::test]
async fn what_another_process_removed_is_forgotten_when_it_is_missed() {
    let (cache, _, _) = cache();
    let id = add(&cache, job()).await;
    assert!(read(&cache, id, CACHED).await.is_some());
    let stranger = hodei_core::Tenant::new("stranger").unwrap();
    assert_eq!(cache.get_many(&stranger.into(), vec![id], Consistency::Latest).await.unwrap(), [None]);
    assert!(cache.get_cached(&Scope::All, id).is_some(), "a scope that cannot see it says nothing of it");
}
