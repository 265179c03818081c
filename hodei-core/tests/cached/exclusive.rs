//! Before a store that only this process writes to: everything in memory is as fresh as the last acknowledged commit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use hodei_core::job::{Cause, Finish, Parent, Priority, Requires, State};
use hodei_core::store::{
    CachedStore, Consistency, Coordination, Exchange, JobStore, Lane, LatestReads, MemoryStore, Move, Pick,
    Retention, Scope, Store, Transition,
};
use hodei_core::testkit::fault::{Faults, Faulty};
use hodei_core::testkit::history::{Recorder, RecordingStore};
use hodei_core::{ErrorKind, JobId, ManualClock, Name, Tenant};

use crate::scripted::Scripted;
use crate::world::*;

type Cache = CachedStore<Scripted>;

/// A cache, the store below it by another handle, and its clock.
fn cache() -> (Cache, MemoryStore, Arc<ManualClock>) {
    let (store, clock) = memory();
    let cache = CachedStore::builder(Scripted::exclusive(store.clone())).build();
    (cache, store, clock)
}

fn cached_version(cache: &Cache, id: JobId) -> Option<u32> {
    cache.get_cached(&Scope::All, id).map(|job| job.version)
}

#[tokio::test]
async fn what_was_read_is_known_until_it_changes_by_whomever() {
    let (cache, store, _) = cache();
    let id = add(&cache, job()).await;
    assert_eq!(cached_version(&cache, id), None);
    assert_eq!(version(&cache, id, CACHED).await, 1);
    assert_eq!((version(&cache, id, CACHED).await, cache.inner().reads()), (1, 1));
    cancel(&cache, id).await;
    assert_eq!(cached_version(&cache, id), None);
    assert_eq!(version(&cache, id, CACHED).await, 2);
    redrive(&store, id).await;
    assert_eq!((version(&cache, id, CACHED).await, cache.inner().reads()), (3, 3));
    let stats = cache.cache_stats();
    assert_eq!((stats.hits, stats.misses, stats.invalidated, stats.entries), (1, 5, 2, 1));
}

/// Whoever holds the store as any other one reads there how good the cache is, whatever stands between.
#[tokio::test]
async fn what_the_cache_does_is_told_with_what_the_store_does() {
    let (cache, below, _) = cache();
    let store: Arc<dyn Store> =
        Arc::new(RecordingStore::new(Faulty::new(cache, Faults::new()), Recorder::new()));
    let id = add(&*store, job()).await;
    for _ in 0..4 {
        assert_eq!(version(&*store, id, CACHED).await, 1);
    }
    let stats = store.stats();
    let cache = stats.cache.expect("there is one");
    assert_eq!((cache.hits, cache.misses, cache.entries, cache.staleness()), (3, 1, 1, Duration::ZERO));
    assert!((cache.hit_ratio() - 0.75).abs() < 1e-9);
    assert_eq!((stats.commits, below.stats().cache), (below.stats().commits, None));
}

/// The race that the module's documentation draws.
#[tokio::test]
async fn a_slow_reader_does_not_bring_back_what_a_writer_has_replaced() {
    let (cache, _, _) = cache();
    let id = add(&cache, job()).await;
    for consistency in [CACHED, Consistency::Latest] {
        let before = read(&cache, id, Consistency::Latest).await.unwrap().version;
        cache.clear();
        cache.inner().dawdles.store(true, Ordering::SeqCst);
        let mut reader = Box::pin(version(&cache, id, consistency));
        assert_eq!(poll(&mut reader), Poll::Pending);
        cancel(&cache, id).await;
        redrive(&cache, id).await;
        cache.inner().dawdles.store(false, Ordering::SeqCst);
        assert_eq!(poll(&mut reader), Poll::Ready(before), "it began before the writes");
        drop(reader);
        assert_eq!(cached_version(&cache, id), None, "what it read is not kept");
        assert_eq!(version(&cache, id, CACHED).await, before + 2);
    }
    assert_eq!(cache.cache_stats().stale_avoided, 2);
}

#[tokio::test]
async fn a_reader_that_a_pruning_overtook_brings_nothing_back() {
    let (cache, _, clock) = cache();
    let id = succeed(&cache, job()).await;
    let lead = owner(&cache).await;
    clock.advance(2 * Retention::KEYS_MIN);
    let term = cache.take_term(&Name::literal("prune"), &lead, HOUR).await.unwrap().unwrap();
    cache.inner().dawdles.store(true, Ordering::SeqCst);
    let mut reader = Box::pin(read(&cache, id, CACHED));
    assert!(poll(&mut reader).is_pending());
    let keep = Retention { jobs: Retention::KEYS_MIN, changes: 100, ..Retention::default() };
    assert_eq!(cache.prune(&term, keep, 10).await.unwrap().jobs, 1);
    cache.inner().dawdles.store(false, Ordering::SeqCst);
    assert!(matches!(poll(&mut reader), Poll::Ready(Some(_))));
    drop(reader);
    assert_eq!(cache.get_cached(&Scope::All, id), None);
    assert_eq!(read(&cache, id, CACHED).await, None);
}

#[tokio::test]
async fn what_was_pruned_is_gone_and_what_was_not_is_still_known() {
    let (cache, _, clock) = cache();
    let id = succeed(&cache, job()).await;
    clock.advance(2 * Retention::KEYS_MIN);
    let kept = succeed(&cache, job()).await;
    let lead = owner(&cache).await;
    let term = cache.take_term(&Name::literal("prune"), &lead, HOUR).await.unwrap().unwrap();
    for id in [id, kept] {
        assert!(read(&cache, id, Consistency::Latest).await.is_some());
        assert!(cache.get_cached(&Scope::All, id).is_some());
    }
    let keep = Retention { jobs: Retention::KEYS_MIN, changes: 100, ..Retention::default() };
    assert_eq!(cache.prune(&term, keep, 10).await.unwrap().jobs, 1);
    assert!(cache.get_cached(&Scope::All, kept).is_some(), "it was not touched");
    for consistency in [Consistency::Latest, CACHED] {
        assert_eq!(read(&cache, id, consistency).await, None);
        assert!(read(&cache, kept, consistency).await.is_some());
    }
    assert_eq!(cache.outputs(&Scope::All, vec![id, kept]).await.unwrap(), [None, Some(output())]);
}

#[tokio::test]
async fn latest_comes_from_memory_only_where_nothing_can_have_changed() {
    let (cache, _, _) = cache();
    let done = succeed(&cache, job()).await;
    let open = add(&cache, job()).await;
    let reads = async |id| {
        let before = cache.inner().reads();
        read(&cache, id, Consistency::Latest).await;
        cache.inner().reads() - before
    };
    assert_eq!((reads(done).await, reads(done).await), (1, 0));
    assert_eq!((reads(open).await, reads(open).await), (1, 1));
    cancel(&cache, open).await;
    assert_eq!((reads(open).await, reads(open).await), (1, 1), "a job that was cancelled can be redriven");
}

#[tokio::test]
async fn latest_may_mean_what_was_acknowledged() {
    let (store, _) = memory();
    let cache = CachedStore::builder(Scripted::exclusive(store)).latest(LatestReads::Acknowledged).build();
    let id = add(&cache, job()).await;
    for expected in [1, 1] {
        assert_eq!(version(&cache, id, Consistency::Latest).await, expected);
    }
    cancel(&cache, id).await;
    assert_eq!((version(&cache, id, Consistency::Latest).await, cache.inner().reads()), (2, 2));
}

#[tokio::test]
async fn after_a_write_of_unknown_outcome_nothing_is_known() {
    let (store, _) = memory();
    let cache = CachedStore::builder(Scripted::quiet(store)).build();
    let id = add(&cache, job()).await;
    assert_eq!(version(&cache, id, CACHED).await, 1);
    cache.inner().loses_replies.store(true, Ordering::SeqCst);
    let error = cache.request_cancel(&Scope::All, vec![id]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    assert_eq!(cached_version(&cache, id), None);
    assert_eq!(version(&cache, id, CACHED).await, 2);
}

/// That a running job is asked to stop is no change, so nobody hears of it from the feed.
#[tokio::test]
async fn after_a_part_of_the_store_has_failed_nothing_is_known_of_the_others() {
    let (store, _) = memory();
    let cache = CachedStore::builder(Scripted::parted(store)).build();
    let worker = owner(&cache).await;
    let id = add(&cache, job()).await;
    let lane = Lane::of(&read(&cache, id, CACHED).await.unwrap());
    let picks = vec![Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n: 1 }];
    let claim = Exchange { owner: worker.clone(), transitions: Vec::new(), picks };
    let epoch = cache.exchange(claim).await.unwrap().claimed[0].job.epoch;
    let begin = Transition { job: id, epoch, step: Move::Started { lease: None } };
    let begin = Exchange { owner: worker, transitions: vec![begin], picks: Vec::new() };
    cache.exchange(begin).await.unwrap();
    assert!(!read(&cache, id, CACHED).await.unwrap().cancel_requested);
    cache.inner().fails_partly.store(true, Ordering::SeqCst);
    let error = cache.request_cancel(&Scope::All, vec![id]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(read(&cache, id, CACHED).await.unwrap().cancel_requested);
}

#[tokio::test]
async fn after_an_answer_that_lacks_a_part_of_the_store_nothing_is_known() {
    let (store, clock) = memory();
    let cache = CachedStore::builder(Scripted::quiet(store)).build();
    let worker = owner(&cache).await;
    let [old, id] = [add(&cache, job()).await, add(&cache, job()).await];
    cancel(&cache, old).await;
    assert_eq!(version(&cache, id, CACHED).await, 1);
    cache.inner().loses_replies.store(true, Ordering::SeqCst);
    let lane = Lane::of(&read(&cache, id, CACHED).await.unwrap());
    let picks = vec![Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n: 1 }];
    let claim = Exchange { owner: worker, transitions: Vec::new(), picks };
    assert_eq!(cache.exchange(claim).await.unwrap().claimed, []);
    assert_eq!(cached_version(&cache, id), None);
    assert_eq!(version(&cache, id, CACHED).await, 2);
    clock.advance(2 * Retention::KEYS_MIN);
    let lead = owner(&cache).await;
    let term = cache.take_term(&Name::literal("d"), &lead, HOUR).await.unwrap().unwrap();
    assert_eq!(cache.reap(&term, 3, 10).await.unwrap().changes, []);
    assert_eq!(cached_version(&cache, id), None);
    assert_eq!(version(&cache, id, CACHED).await, 3);
    assert_eq!(version(&cache, old, CACHED).await, 2);
    let keep = Retention { jobs: Retention::KEYS_MIN, ..Retention::default() };
    assert_eq!(cache.prune(&term, keep, 10).await.unwrap().jobs, 0);
    assert_eq!(cached_version(&cache, old), None);
    assert_eq!(read(&cache, old, CACHED).await, None);
}

#[tokio::test]
async fn what_moves_without_a_change_is_never_told_wrong() {
    let (cache, _, _) = cache();
    let worker = owner(&cache).await;
    let [first, second] = [add(&cache, job()).await, add(&cache, job()).await];
    let parents = [first, second].map(|id| Parent { id, requires: Requires::Ended });
    let child = add(&cache, job().after(parents)).await;
    assert_eq!(read(&cache, child, CACHED).await.unwrap().waits_for, 2);
    cancel(&cache, second).await;
    assert_eq!(read(&cache, child, CACHED).await.unwrap().waits_for, 1);
    let held = start(&cache, &worker, first).await;
    assert!(!read(&cache, first, CACHED).await.unwrap().cancel_requested);
    cancel(&cache, first).await;
    assert!(read(&cache, first, CACHED).await.unwrap().cancel_requested);
    tell(&cache, &worker, &held, Move::Finished(Box::new(Finish::cancelled()))).await;
    let child = read(&cache, child, CACHED).await.unwrap();
    assert_eq!((child.state, child.cause), (State::Pending, Cause::ParentsSettled));
}

#[tokio::test]
async fn claims_and_transitions_neither_read_nor_fill_the_memory() {
    let (cache, _, _) = cache();
    let id = succeed(&cache, job()).await;
    let stats = cache.cache_stats();
    assert_eq!((stats.hits, stats.misses), (0, 1), "one read looked for the lane");
    assert_eq!((stats.entries, cached_version(&cache, id)), (0, None));
}

#[tokio::test]
async fn outputs_of_jobs_that_succeeded_are_known_and_stay_their_tenants() {
    let (cache, _, _) = cache();
    let (acme, other) = (Tenant::new("acme").unwrap(), Tenant::new("other").unwrap());
    let new = hodei_core::job::NewJob::of(acme.clone(), job().spec);
    let id = succeed(&cache, new).await;
    cache.clear();
    let outputs = async |scope: Scope| cache.outputs(&scope, vec![id]).await.unwrap().remove(0);
    assert_eq!(outputs(Scope::All).await, Some(output()));
    assert_eq!(
        (outputs(Scope::All).await, cache.inner().reads()),
        (Some(output()), 2),
        "it came from memory"
    );
    assert_eq!(outputs(other.clone().into()).await, None);
    assert_eq!(outputs(acme.clone().into()).await, Some(output()));
    assert_eq!((outputs(acme.clone().into()).await, cache.inner().reads()), (Some(output()), 4));
    assert!(cache.get_many(&acme.into(), vec![id], CACHED).await.unwrap()[0].is_some());
    assert_eq!(cache.get_many(&other.clone().into(), vec![id], CACHED).await.unwrap(), [None]);
    assert_eq!(cache.get_cached(&other.into(), id), None);
}

#[tokio::test]
async fn the_bytes_are_bounded() {
    let (store, _) = memory();
    let cache = CachedStore::builder(store).bytes(64 * 1024).build();
    let mut ids = Vec::new();
    for n in 0..200 {
        let spec = hodei_core::job::JobSpec::command(["true"]).label("l", "x".repeat(n));
        ids.push(add(&cache, hodei_core::job::NewJob::new(spec.build().unwrap())).await);
    }
    for _ in 0..3 {
        let read =
            cache.get_many(&Scope::All, ids.clone(), Consistency::Cached(Duration::ZERO)).await.unwrap();
        assert!(read.iter().zip(&ids).all(|(job, id)| job.as_ref().is_some_and(|job| job.id == *id)));
    }
    let stats = cache.cache_stats();
    assert!(stats.bytes <= 64 * 1024 && stats.entries > 10 && stats.evicted > 100, "{stats:?}");
    assert!(stats.hits + stats.misses == 600 && stats.hit_ratio() < 1.0);
    cache.clear();
    assert_eq!((cache.cache_stats().entries, cache.cache_stats().bytes), (0, 0));
}
