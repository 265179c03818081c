//! Jobs through the whole engine in memory: submit → Succeeded, no-op handlers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hodei_benches::{BATCH, Node, jobs, runtime};
use hodei_core::store::{MemoryStore, SubmitOptions};

/// Jobs of one run.
const JOBS: usize = 100_000;

fn memory(c: &mut Criterion) {
    let mut group = c.benchmark_group("memory");
    group.throughput(Throughput::Elements(JOBS as u64)).sample_size(10);
    group.bench_function("submit_to_succeeded", |b| {
        let runtime = runtime();
        b.iter_custom(|times| (0..times).map(|_| runtime.block_on(submit_to_succeeded())).sum());
    });
    group.finish();
}

async fn submit_to_succeeded() -> Duration {
    let node = Node::start(Arc::new(MemoryStore::new())).await;
    let jobs = jobs(JOBS);
    let start = Instant::now();
    let mut jobs = jobs.into_iter();
    loop {
        let batch: Vec<_> = jobs.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        node.hodei.submit_many(batch, SubmitOptions::each()).await.expect("submitted");
    }
    node.succeeded(JOBS).await;
    let took = start.elapsed();
    node.end().await;
    took
}

criterion_group!(benches, memory);
criterion_main!(benches);
