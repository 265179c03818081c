//! Jobs on the embedded store: concurrent submissions, and a drain through the whole engine, every transition durable.
//! Beside them the raw loop of the same run: a put of 300 bytes per job, 500 per synced commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hodei_benches::{Node, jobs, preload, runtime};
use hodei_core::store::{JobStore, Store, SubmitOptions};
use hodei_store_redb::RedbStore;
use redb::{Database, TableDefinition};

/// Jobs of one run.
const JOBS: usize = 100_000;
/// Concurrent callers that submit one job at a time.
const CALLERS: usize = 256;
/// Jobs that each caller submits.
const EACH: usize = 40;

fn embedded(c: &mut Criterion) {
    let mut group = c.benchmark_group("redb");
    group.sample_size(10);
    group.throughput(Throughput::Elements((CALLERS * EACH) as u64));
    group.bench_function("submit_256_callers", |b| {
        let runtime = runtime();
        b.iter_custom(|times| (0..times).map(|_| runtime.block_on(concurrent_submit())).sum());
    });
    group.throughput(Throughput::Elements(JOBS as u64));
    group.bench_function("drain", |b| {
        let runtime = runtime();
        b.iter_custom(|times| (0..times).map(|_| runtime.block_on(drain())).sum());
    });
    group.bench_function("raw_put_loop", |b| b.iter_custom(|times| (0..times).map(|_| raw_puts()).sum()));
    group.finish();
}

async fn concurrent_submit() -> Duration {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(RedbStore::open(directory.path().join("bench.redb")).expect("a store"));
    let mut batches: Vec<Vec<_>> = (0..CALLERS).map(|_| jobs(EACH)).collect();
    let start = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for batch in batches.drain(..) {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            for job in batch {
                store.submit(vec![job], SubmitOptions::each()).await.expect("submitted");
            }
        });
    }
    while callers.join_next().await.is_some() {}
    start.elapsed()
}

async fn drain() -> Duration {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(RedbStore::open(directory.path().join("bench.redb")).expect("a store"));
    preload(&*store, JOBS).await;
    let start = Instant::now();
    let node = Node::start(Arc::clone(&store) as Arc<dyn Store>).await;
    node.succeeded(JOBS).await;
    let took = start.elapsed();
    node.end().await;
    took
}

/// The limit of the machine: one table, ordered keys, 300 bytes, 500 per synced commit.
fn raw_puts() -> Duration {
    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("raw");
    let directory = tempfile::tempdir().expect("a directory");
    let database = Database::create(directory.path().join("raw.redb")).expect("a database");
    let start = Instant::now();
    for batch in 0..JOBS / 500 {
        let write = database.begin_write().expect("a transaction");
        {
            let mut table = write.open_table(TABLE).expect("a table");
            for n in 0..500 {
                table.insert((batch * 500 + n) as u64, [7_u8; 300].as_slice()).expect("a put");
            }
        }
        write.commit().expect("a commit");
    }
    start.elapsed()
}

criterion_group!(benches, embedded);
criterion_main!(benches);
