//! Reads of a job through the cache: by id from memory, by the async verb, and what a cold read costs.
//!
//! A hit by id must cost at most 150 ns.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hodei_benches::runtime;
use hodei_core::JobId;
use hodei_core::job::NewJob;
use hodei_core::store::{CachedStore, Consistency, JobStore, MemoryStore, Scope, SubmitOptions};
use hodei_core::testkit::typical_spec;

/// Jobs in the store, all of them in the cache.
const JOBS: usize = 10_000;
/// Ids of one call of the async verb.
const BATCH: usize = 100;
/// Any age: of a store that is exclusive the age does not matter.
const CACHED: Consistency = Consistency::Cached(Duration::ZERO);

fn cache(c: &mut Criterion) {
    let runtime = runtime();
    let (store, ids) = runtime.block_on(filled());
    let mut group = c.benchmark_group("cache");
    group.throughput(Throughput::Elements(1));
    group.bench_function("hit_by_id", |b| {
        b.iter_custom(|times| over(times, &ids, |id| store.get_cached(&Scope::All, id).is_some()));
    });
    group.bench_function("hit_by_id_two_threads", |b| {
        b.iter_custom(|times| {
            let read = || over(times, &ids, |id| store.get_cached(&Scope::All, id).is_some());
            std::thread::scope(|scope| {
                [scope.spawn(read), scope.spawn(read)].map(|thread| thread.join().expect("it ends"))
            })
            .into_iter()
            .max()
            .unwrap_or_default()
        });
    });
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("get_many_of_hits", |b| b.iter(|| runtime.block_on(get(&store, &ids, CACHED))));
    group.bench_function("get_many_of_the_store_inside", |b| {
        b.iter(|| runtime.block_on(get(store.inner(), &ids, Consistency::Latest)));
    });
    group.bench_function("get_many_of_misses", |b| {
        b.iter(|| {
            store.clear();
            runtime.block_on(get(&store, &ids, CACHED))
        });
    });
    group.finish();
}

/// A cache over a store of typical jobs, all of which it has read.
async fn filled() -> (CachedStore<MemoryStore>, Vec<JobId>) {
    let store = CachedStore::builder(MemoryStore::new()).bytes(256 << 20).build();
    let spec = Arc::new(typical_spec().build().expect("a valid spec"));
    let jobs: Vec<NewJob> = (0..JOBS).map(|_| NewJob::new(Arc::clone(&spec))).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    store.submit(jobs, SubmitOptions::each()).await.expect("the store takes them");
    store.get_many(&Scope::All, ids.clone(), CACHED).await.expect("the store answers");
    assert_eq!(store.cache_stats().entries, JOBS as u64, "all of them are in memory");
    (store, ids)
}

fn over(times: u64, ids: &[JobId], hit: impl Fn(JobId) -> bool) -> Duration {
    let mut hits = 0;
    let start = Instant::now();
    for id in ids.iter().cycle().take(usize::try_from(times).unwrap_or(usize::MAX)) {
        hits += u64::from(hit(black_box(*id)));
    }
    let took = start.elapsed();
    assert_eq!(hits, times, "every read was a hit");
    took
}

async fn get(store: &dyn JobStore, ids: &[JobId], consistency: Consistency) {
    let read = store.get_many(&Scope::All, ids[..BATCH].to_vec(), consistency).await;
    assert!(black_box(read).expect("the store answers").iter().all(Option::is_some));
}

criterion_group!(benches, cache);
criterion_main!(benches);
