//! How long until a subscriber that sleeps is awake: one event every 100 µs from a thread of its own.
//!
//! That thread keeps one of two processors busy, and the only worker of the runtime has the other: a second worker would take
//! turns with the publisher, and what is measured then is how long the system lets one of them run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hodei_benches::report::{Goal, Report, Unit, percentile};
use hodei_bus::ring::Ring;
use hodei_core::bus::SubscribeOptions;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, broadcast};

const EVERY: Duration = Duration::from_micros(100);
/// Into how many a round is cut: one stall by others on the machine, of some milliseconds, is one percent of half a second.
const PARTS: usize = 5;

/// Publishes stamps in time.
fn tick(start: Instant, events: usize, mut publish: impl FnMut(u64)) {
    for n in 1..=events {
        let due = EVERY * u32::try_from(n).expect("few");
        while start.elapsed() < due {
            std::hint::spin_loop();
        }
        publish(now(start));
    }
}

fn now(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).expect("a short time")
}

/// A runtime with one worker.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// The floor: one atomic, which counts the stamps that were written, and one `Notify`. Each stamp counts, also those that are
/// seen together: else a stall would count once here, and for each event of a bus that loses none.
fn floor(events: usize) -> Vec<u64> {
    let start = Instant::now();
    let stamps: Box<[AtomicU64]> = (0..events).map(|_| AtomicU64::new(0)).collect();
    let shared = Arc::new((AtomicUsize::new(0), Notify::new(), stamps));
    let hearer = Arc::clone(&shared);
    let runtime = runtime();
    let hearing = runtime.spawn(async move {
        let mut times = Vec::with_capacity(events);
        while times.len() < events {
            hearer.1.notified().await;
            let written = hearer.0.load(Ordering::Acquire);
            for stamp in &hearer.2[times.len()..written] {
                times.push(now(start) - stamp.load(Ordering::Relaxed));
            }
        }
        times
    });
    let mut written = 0;
    tick(start, events, |stamp| {
        shared.2[written].store(stamp, Ordering::Relaxed);
        written += 1;
        shared.0.store(written, Ordering::Release);
        shared.1.notify_one();
    });
    runtime.block_on(hearing).expect("it ends")
}

fn ring(events: usize) -> Vec<u64> {
    let start = Instant::now();
    let ring: Ring<[u64; 8]> = Ring::new(1_024);
    let mut reader = ring.subscribe(SubscribeOptions::default());
    let runtime = runtime();
    let hearing = runtime.spawn(async move {
        let mut times = Vec::with_capacity(events);
        while times.len() < events {
            let event = reader.recv().await.expect("nothing is missed");
            times.push(now(start) - event[0]);
        }
        times
    });
    tick(start, events, |stamp| ring.try_publish([stamp; 8]).expect("there is room"));
    runtime.block_on(hearing).expect("it ends")
}

fn tokio_broadcast(events: usize) -> Vec<u64> {
    let start = Instant::now();
    let (sender, mut reader) = broadcast::channel::<[u64; 8]>(1_024);
    let runtime = runtime();
    let hearing = runtime.spawn(async move {
        let mut times = Vec::with_capacity(events);
        while times.len() < events {
            let event = reader.recv().await.expect("nothing is missed");
            times.push(now(start) - event[0]);
        }
        times
    });
    tick(start, events, |stamp| {
        sender.send([stamp; 8]).expect("it is heard");
    });
    runtime.block_on(hearing).expect("it ends")
}

/// The median and the 99th percentile in µs.
fn percentiles(mut times: Vec<u64>) -> [f64; 2] {
    [50, 99].map(|percent| percentile(&mut times, percent).map_or(f64::NAN, |time| time as f64 / 1e3))
}

/// The best of each over the rounds: what others on the machine do only adds.
fn best(rounds: [&dyn Fn() -> Vec<u64>; 3], times: usize) -> [[f64; 2]; 3] {
    let mut best = [[f64::MAX; 2]; 3];
    for _ in 0..times {
        for (bus, round) in rounds.iter().enumerate() {
            let found = percentiles(round());
            best[bus] = std::array::from_fn(|index| best[bus][index].min(found[index]));
        }
    }
    best
}

/// Measures the floor, the ring and tokio's broadcast in turn.
pub(crate) fn figures(events: usize, rounds: usize, report: &mut Report) {
    let events = (events / PARTS).max(1);
    report.group("Publish to a sleeping subscriber awake, 10 k events/s");
    let measured: [&dyn Fn() -> Vec<u64>; 3] =
        [&|| floor(events), &|| ring(events), &|| tokio_broadcast(events)];
    let [floor, ring, tokio] = best(measured, rounds * PARTS);
    report.show("atomic and Notify, p50", floor[0], Unit::Micros);
    report.show("atomic and Notify, p99", floor[1], Unit::Micros);
    report.show("tokio broadcast, p50", tokio[0], Unit::Micros);
    report.show("tokio broadcast, p99", tokio[1], Unit::Micros);
    report.judge("ring, p50", ring[0], Unit::Micros, Goal::AtMost(20.0));
    report.judge("ring, p99", ring[1], Unit::Micros, Goal::AtMost(100.0));
    report.judge("ring / floor, p50", ring[0] / floor[0], Unit::Times, Goal::AtMost(1.1));
    report.show("ring / floor, p99", ring[1] / floor[1], Unit::Times);
}
