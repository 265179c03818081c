//! What the unsafe pages of the ring pay: the same work in slots of safe Rust, on one thread.

use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hodei_benches::report::{Goal, Report, Unit};
use hodei_bus::ring::Ring;
use hodei_core::bus::SubscribeOptions;

use crate::Sizes;

/// Events in a batch: a page of the ring.
const PAGE: usize = 256;

type Event = [u64; 8];

/// Pages of cells that are written once, published by a length, as the ring does it.
fn safe(events: usize) -> f64 {
    let mut slots: Vec<OnceLock<Event>> = (0..PAGE).map(|_| OnceLock::new()).collect();
    let len = AtomicUsize::new(0);
    let start = Instant::now();
    let mut sum = 0;
    for round in 0..(events / PAGE) as u64 {
        for (slot, n) in slots.iter().zip(round..) {
            assert!(slot.set([n; 8]).is_ok(), "it is empty");
        }
        len.store(PAGE, Ordering::Release);
        for slot in &slots[..len.load(Ordering::Acquire)] {
            sum += slot.get().map_or(0, |event| event[3]);
        }
        for slot in &mut slots {
            slot.take();
        }
    }
    black_box(sum);
    events as f64 / start.elapsed().as_secs_f64()
}

/// The whole ring, with its lock, its gates and its wake-ups.
fn ring(events: usize) -> f64 {
    let ring: Ring<Event> = Ring::new(PAGE);
    let mut reader = ring.subscribe(SubscribeOptions { capacity: PAGE, ..SubscribeOptions::default() });
    let start = Instant::now();
    let mut sum = 0;
    for round in 0..events / PAGE {
        let mut batch = (round..round + PAGE).map(|n| [n as u64; 8]);
        assert_eq!(ring.try_publish_batch(&mut batch), PAGE);
        while let Some(batch) = reader.try_recv_batch(PAGE).expect("nothing is missed") {
            sum += batch.iter().map(|event| event[3]).sum::<u64>();
        }
    }
    black_box(sum);
    events as f64 / start.elapsed().as_secs_f64()
}

/// Measures both in turn.
pub(crate) fn figures(sizes: Sizes, report: &mut Report) {
    report.group("Pages: write, publish, read and empty, one thread, batches of 256");
    let (mut cells, mut ours) = (0.0_f64, 0.0_f64);
    for _ in 0..sizes.rounds {
        cells = cells.max(safe(4 * sizes.events));
        ours = ours.max(ring(4 * sizes.events));
    }
    report.show("slots of std::sync::OnceLock, nothing else", cells, Unit::PerSecond);
    report.show("the ring, all of it", ours, Unit::PerSecond);
    report.judge("ring / safe slots", ours / cells, Unit::Times, Goal::AtLeast(1.2));
}
