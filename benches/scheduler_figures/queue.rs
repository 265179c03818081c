//! The queue: its speed beside other queues', how long a submitter waits, and how it grows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hodei_benches::report::{Goal, Report, Unit};
use hodei_sched::queue::{Handle, Intake};

use crate::Sizes;
use crate::rivals::{Expected, Fair, Heaped, LEVELS, Ours, Rival, Skipping};

/// What one verb cost.
type Cost = fn(&Costs) -> f64;

/// How many jobs a batch has.
const BATCH: usize = 100;

/// A rate for each queue, the best of the rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    owned: f64,
    locked: f64,
    heap: f64,
    skip: f64,
}

pub(crate) fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    report.group(&format!("push + pop, {} waiting, {LEVELS} levels, pairs", sizes.preload));
    for threads in [1, 2] {
        for batch in [1, BATCH] {
            let what = format!("{threads} threads, {}", if batch == 1 { "single" } else { "batches of 100" });
            let mut best = Rates::default();
            for _ in 0..sizes.rounds {
                best.owned = best.owned.max(owned(sizes, threads, batch)?);
                best.locked = best.locked.max(pairs(&Ours::default(), sizes, threads, batch)?);
                best.heap = best.heap.max(pairs(&Heaped::default(), sizes, threads, batch)?);
                best.skip = best.skip.max(pairs(&Skipping::default(), sizes, threads, batch)?);
            }
            report.show(&format!("{what}: Mutex<BinaryHeap>"), best.heap, Unit::PerSecond);
            report.show(&format!("{what}: crossbeam SkipMap"), best.skip, Unit::PerSecond);
            report.show(&format!("{what}: ReadyQueue shared behind a lock"), best.locked, Unit::PerSecond);
            report.show("  as a multiple of the heap", best.locked / best.heap, Unit::Times);
            report.show(&format!("{what}: ReadyQueue, an owner each"), best.owned, Unit::PerSecond);
            report.judge(
                "  as a multiple of the heap",
                best.owned / best.heap,
                Unit::Times,
                Goal::AtLeast(2.0),
            );
        }
    }
    Ok(())
}

pub(crate) fn verbs(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    waits(sizes, report);
    grows(sizes, report)
}

/// Numbers that are the same in each run (SplitMix64).
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn level(&mut self) -> u8 {
        u8::try_from(self.next() % u64::from(LEVELS)).unwrap_or(0)
    }
}

/// Pushes and pops from several threads at once, and returns the pairs per second.
fn pairs(queue: &dyn Rival, sizes: Sizes, threads: usize, batch: usize) -> Result<f64, String> {
    let mut draw = Draw(7);
    let jobs: Vec<(u8, u64)> = (0..sizes.preload as u64).map(|job| (draw.level(), job)).collect();
    queue.push(&jobs);
    let each = sizes.pairs / threads / batch;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut draw = Draw(thread as u64);
                let mut jobs = vec![(0, 0); batch];
                for _ in 0..each {
                    jobs.iter_mut().for_each(|job| *job = (draw.level(), draw.next()));
                    queue.push(&jobs);
                    assert_eq!(queue.pop(batch), batch, "as many wait as at the beginning");
                }
            });
        }
    });
    let took = start.elapsed();
    if queue.inversions().is_some_and(|n| n > 0) {
        return Err(format!("{:?} jobs came out before more urgent ones", queue.inversions()));
    }
    let pairs = each * batch * threads;
    Ok(pairs as f64 / took.as_secs_f64())
}

/// As dispatchers have it: each thread owns a queue, and what one submits goes to all of them in turn through their
/// intakes. With one thread nothing is submitted from elsewhere.
fn owned(sizes: Sizes, threads: usize, batch: usize) -> Result<f64, String> {
    let intakes: Vec<Intake<(u8, u64)>> = (0..threads).map(|_| Intake::new(usize::MAX)).collect();
    let each = sizes.pairs / threads / batch;
    let barrier = std::sync::Barrier::new(threads + 1);
    let (start, inversions) = std::thread::scope(|scope| {
        let owners: Vec<_> = (0..threads)
            .map(|thread| {
                let (intakes, barrier) = (&intakes, &barrier);
                scope.spawn(move || {
                    let (mut fair, mut draw, mut expected) = (Fair::new(), Draw(7), Expected::default());
                    for job in 0..(sizes.preload / threads) as u64 {
                        let level = draw.level();
                        fair.push(level, job);
                        expected.pushed(level);
                    }
                    let mut draw = Draw(thread as u64);
                    let mut out = Vec::with_capacity(batch);
                    barrier.wait();
                    for turn in 0..each {
                        if threads == 1 {
                            for _ in 0..batch {
                                let level = draw.level();
                                fair.push(level, draw.next());
                                expected.pushed(level);
                            }
                        } else {
                            let to = &intakes[(thread + turn) % threads];
                            let mut jobs = std::iter::repeat_with(|| (draw.level(), draw.next()));
                            drop(to.push_batch(&mut jobs.by_ref().take(batch)));
                        }
                        let mut taken = 0;
                        while taken < batch {
                            // One that has run ahead of the others waits until they send more.
                            if threads > 1 {
                                intakes[thread].drain(4_096, |(level, job)| {
                                    fair.push(level, job);
                                    expected.pushed(level);
                                });
                            }
                            fair.advance();
                            if batch == 1 {
                                out.extend(fair.queue.pop());
                            } else {
                                fair.queue.pop_batch(batch - taken, &mut out);
                            }
                            taken += out.len();
                            if out.is_empty() {
                                std::thread::yield_now();
                            }
                            out.drain(..).for_each(|popped| expected.popped(popped.level.level()));
                        }
                    }
                    expected.inversions
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        let inversions: u64 = owners.into_iter().map(|owner| owner.join().expect("it ends")).sum();
        (start.elapsed(), inversions)
    });
    if inversions > 0 {
        return Err(format!("{inversions} jobs came out before more urgent ones"));
    }
    Ok((each * batch * threads) as f64 / start.as_secs_f64())
}

/// How long a submitter waits while a dispatcher pops.
fn waits(sizes: Sizes, report: &mut Report) {
    report.group("one submission while a dispatcher pops in batches of 100");
    let (mut intake, mut heap, mut ours) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..sizes.rounds {
        intake = intake.min(through_intake(sizes));
        heap = heap.min(through_lock(sizes, &Heaped::default()));
        ours = ours.min(through_lock(sizes, &Ours::default()));
    }
    report.show("p99.9 through Mutex<BinaryHeap>", heap, Unit::Micros);
    report.show("p99.9 through a lock around ReadyQueue", ours, Unit::Micros);
    report.show("p99.9 through the intake", intake, Unit::Micros);
    report.judge("  the heap's as a multiple of it", heap / intake, Unit::Times, Goal::AtLeast(5.0));
}

/// The time within which 99.9 % of the submissions were made, in microseconds.
fn submissions(sizes: Sizes, mut submit: impl FnMut(u8, u64)) -> f64 {
    let mut draw = Draw(3);
    let mut times: Vec<Duration> = Vec::with_capacity(sizes.pairs / 4);
    for job in 0..(sizes.pairs / 4) as u64 {
        let level = draw.level();
        let start = Instant::now();
        submit(level, job);
        times.push(start.elapsed());
        // Less than the dispatcher can take, so that the queue neither grows nor runs dry.
        std::iter::repeat_with(std::hint::spin_loop).take(20).for_each(drop);
    }
    times.sort_unstable();
    times[times.len() * 999 / 1_000].as_secs_f64() * 1e6
}

fn through_intake(sizes: Sizes) -> f64 {
    let intake = Intake::new(usize::MAX);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut fair = Fair::new();
            let mut out = Vec::with_capacity(BATCH);
            let mut draw = Draw(7);
            (0..sizes.preload as u64).for_each(|job| {
                fair.push(draw.level(), job);
            });
            let mut came = 0;
            while !done.load(Ordering::Relaxed) {
                came += intake.drain(4_096, |(level, job)| {
                    fair.push(level, job);
                });
                if came >= BATCH {
                    out.clear();
                    came -= fair.queue.pop_batch(BATCH, &mut out);
                }
            }
        });
        let p999 = submissions(sizes, |level, job| drop(intake.push((level, job))));
        done.store(true, Ordering::Relaxed);
        p999
    })
}

fn through_lock(sizes: Sizes, queue: &dyn Rival) -> f64 {
    let mut draw = Draw(7);
    let jobs: Vec<(u8, u64)> = (0..sizes.preload as u64).map(|job| (draw.level(), job)).collect();
    queue.push(&jobs);
    let done = AtomicBool::new(false);
    let submitted = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut popped = 0;
            while !done.load(Ordering::Relaxed) {
                // Once as many came, so that as many wait as before.
                let came = submitted.load(Ordering::Relaxed) - popped;
                popped += if came >= BATCH { queue.pop(BATCH) } else { 0 };
            }
        });
        let p999 = submissions(sizes, |level, job| {
            queue.push(&[(level, job)]);
            submitted.fetch_add(1, Ordering::Relaxed);
        });
        done.store(true, Ordering::Relaxed);
        p999
    })
}

/// What each verb costs in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Costs {
    push: f64,
    cancel: f64,
    pop: f64,
}

/// Ten times as many jobs cost about the same each.
fn grows(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let (small, large) = (sizes.preload, sizes.preload * 10);
    report.group(&format!("each verb at {small} and at {large} jobs"));
    let mut best = [Costs { push: f64::MAX, cancel: f64::MAX, pop: f64::MAX }; 2];
    for _ in 0..sizes.rounds {
        for (best, n) in best.iter_mut().zip([small, large]) {
            let costs = costs(n)?;
            best.push = best.push.min(costs.push);
            best.cancel = best.cancel.min(costs.cancel);
            best.pop = best.pop.min(costs.pop);
        }
    }
    let verbs: [(&str, Cost); 3] =
        [("push", |costs| costs.push), ("cancel", |costs| costs.cancel), ("pop", |costs| costs.pop)];
    for (verb, of) in verbs {
        let [small, large] = [of(&best[0]), of(&best[1])];
        report.show(&format!("{verb} at the smaller size, ns"), small, Unit::Plain);
        report.show(&format!("{verb} at the larger size, ns"), large, Unit::Plain);
        report.judge("  as a multiple", large / small, Unit::Times, Goal::AtMost(2.5));
    }
    Ok(())
}

/// Pushes so many jobs, cancels every other one in no order, and pops the rest.
fn costs(n: usize) -> Result<Costs, String> {
    let (mut fair, mut draw) = (Fair::new(), Draw(5));
    let nanos = |start: Instant, n: usize| start.elapsed().as_secs_f64() * 1e9 / n as f64;
    let mut handles: Vec<Handle> = Vec::with_capacity(n);
    let start = Instant::now();
    handles.extend((0..n as u64).map(|job| fair.push(draw.level(), job)));
    let push = nanos(start, n);
    for place in (1..n).rev() {
        handles.swap(place, usize::try_from(draw.next() % (place as u64 + 1)).unwrap_or(0));
    }
    let half = n / 2;
    let start = Instant::now();
    let cancelled = handles[..half].iter().filter_map(|handle| fair.queue.remove(*handle)).count();
    let cancel = nanos(start, half);
    let start = Instant::now();
    let popped = std::iter::from_fn(|| fair.queue.pop()).count();
    let pop = nanos(start, popped.max(1));
    if cancelled != half || popped != n - half {
        return Err(format!("of {n} jobs {cancelled} were cancelled and {popped} popped"));
    }
    Ok(Costs { push, cancel, pop })
}
