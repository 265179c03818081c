//! Pipelines at the door: a chain of a million steps is built, a cycle of a million is refused with its path.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hodei_core::job::JobSpec;
use hodei_core::pipeline::{Pipeline, PipelineBuilder, PipelineLimits, Step};

/// Steps of one pipeline.
const STEPS: usize = 1_000_000;

fn dag(c: &mut Criterion) {
    let mut group = c.benchmark_group("dag");
    group.throughput(Throughput::Elements(STEPS as u64)).sample_size(10);
    group.bench_function("chain_of_a_million", |b| {
        b.iter_custom(|times| (0..times).map(|_| build(STEPS, &chain)).sum());
    });
    group.bench_function("cycle_of_a_million", |b| {
        b.iter_custom(|times| (0..times).map(|_| refuse(STEPS)).sum());
    });
    group.bench_function("fan_out_and_in", |b| {
        // A thousand layers of a thousand steps, each of which needs two of the layer before.
        b.iter_custom(|times| (0..times).map(|_| build(STEPS, &layers)).sum());
    });
    group.finish();
}

fn chain(step: usize) -> Vec<usize> {
    step.checked_sub(1).into_iter().collect()
}

fn layers(step: usize) -> Vec<usize> {
    let (layer, place) = (step / 1_000, step % 1_000);
    let before = |place: usize| (layer - 1) * 1_000 + place % 1_000;
    if layer == 0 { Vec::new() } else { vec![before(place), before(place + 1)] }
}

fn pipeline(steps: usize, needs: &dyn Fn(usize) -> Vec<usize>) -> PipelineBuilder {
    (0..steps).fold(Pipeline::builder("bench"), |pipeline, n| {
        let step = Step::new(format!("s{n}"), JobSpec::command(["true"]));
        pipeline.step(needs(n).into_iter().fold(step, |step, need| step.needs(format!("s{need}"))))
    })
}

fn build(steps: usize, needs: &dyn Fn(usize) -> Vec<usize>) -> Duration {
    let builder = pipeline(steps, needs);
    let start = Instant::now();
    let built = builder.build_within(&PipelineLimits::default().steps(steps));
    let took = start.elapsed();
    assert_eq!(built.expect("a valid pipeline").jobs().len(), steps);
    took
}

fn refuse(steps: usize) -> Duration {
    let builder = pipeline(steps, &|n| vec![(n + steps - 1) % steps]);
    let start = Instant::now();
    let refused = builder.build_within(&PipelineLimits::default().steps(steps));
    let took = start.elapsed();
    assert!(refused.expect_err("a cycle").to_string().contains("cycle: s0 -> s1"));
    took
}

criterion_group!(benches, dag);
criterion_main!(benches);
