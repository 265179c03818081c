//! What the unsafe pages of the ring pay: the same ring with slots of safe Rust, a publisher and a reader on a thread each.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Instant;

use hodei_benches::report::{Goal, Report, Unit};
use hodei_bus::ring::Ring;
use hodei_core::bus::SubscribeOptions;

use crate::Sizes;

/// Events in a page, and in a batch.
const PAGE: usize = 256;
/// How many pages there are.
const PAGES: usize = 32;
const CAPACITY: usize = PAGE * PAGES;

type Event = [u64; 8];

/// A page of cells that are written once, published by a length.
struct Page {
    len: AtomicUsize,
    slots: Box<[OnceLock<Event>]>,
}

/// The safe ring: pages under a reference count, filled again by whoever holds the last reference. It has neither the lock of
/// several publishers nor their gates, and wakes nobody.
struct Safe {
    shelf: [Mutex<Option<Arc<Page>>>; PAGES],
    head: AtomicU64,
    cursor: AtomicU64,
}

impl Safe {
    fn place(&self, page: u64) -> &Mutex<Option<Arc<Page>>> {
        &self.shelf[usize::try_from(page).expect("few") % PAGES]
    }

    /// Publishes whole pages.
    fn publish(&self, pages: u64) {
        for page in 0..pages {
            while page - self.cursor.load(Ordering::Acquire) >= PAGES as u64 {
                thread::yield_now();
            }
            let old = self.place(page).lock().expect("nobody panics").take();
            let mut old = old.unwrap_or_else(|| {
                let slots = (0..PAGE).map(|_| OnceLock::new()).collect();
                Arc::new(Page { len: AtomicUsize::new(0), slots })
            });
            let empty = Arc::get_mut(&mut old).expect("its reader has gone on");
            for slot in &mut empty.slots {
                slot.take();
            }
            *empty.len.get_mut() = 0;
            for (slot, n) in old.slots.iter().zip(page..) {
                assert!(slot.set([n; 8]).is_ok(), "it is empty");
            }
            old.len.store(PAGE, Ordering::Release);
            *self.place(page).lock().expect("nobody panics") = Some(old);
            self.head.store(page + 1, Ordering::Release);
        }
    }

    fn read(&self, pages: u64) -> u64 {
        let mut sum = 0;
        for number in 0..pages {
            while self.head.load(Ordering::Acquire) <= number {
                thread::yield_now();
            }
            let page = self.place(number).lock().expect("nobody panics").clone().expect("it is published");
            let len = page.len.load(Ordering::Acquire);
            sum += page.slots[..len].iter().map(|slot| slot.get().map_or(0, |event| event[3])).sum::<u64>();
            drop(page);
            self.cursor.store(number + 1, Ordering::Release);
        }
        sum
    }
}

fn safe(pages: u64) -> f64 {
    let ring = Safe {
        shelf: std::array::from_fn(|_| Mutex::new(None)),
        head: AtomicU64::new(0),
        cursor: AtomicU64::new(0),
    };
    timed(pages, || ring.publish(pages), || ring.read(pages))
}

/// The whole ring, with its lock, its gates and its wake-ups.
fn ours(pages: u64) -> f64 {
    let ring: Ring<Event> = Ring::new(CAPACITY);
    let mut reader = ring.subscribe(SubscribeOptions { capacity: CAPACITY, ..SubscribeOptions::default() });
    let publish = || {
        for page in 0..pages {
            let mut batch = (0..PAGE).map(|n| [page + n as u64; 8]);
            while batch.len() > 0 {
                if ring.try_publish_batch(&mut batch) == 0 {
                    thread::yield_now();
                }
            }
        }
    };
    let read = move || {
        let (mut sum, mut count) = (0, 0);
        while count < pages * PAGE as u64 {
            match reader.try_recv_batch(PAGE).expect("nothing is missed") {
                Some(batch) => {
                    count += batch.len() as u64;
                    sum += batch.iter().map(|event| event[3]).sum::<u64>();
                }
                None => thread::yield_now(),
            }
        }
        sum
    };
    timed(pages, publish, read)
}

/// Events per second through a publisher and a reader.
fn timed(pages: u64, publish: impl FnOnce() + Send, read: impl FnOnce() -> u64 + Send) -> f64 {
    let start = Instant::now();
    let sum = thread::scope(|scope| {
        scope.spawn(publish);
        scope.spawn(read).join().expect("it reads everything")
    });
    let seconds = start.elapsed().as_secs_f64();
    let page = PAGE as u64;
    assert_eq!(black_box(sum), (0..pages).map(|n| n * page + page * (page - 1) / 2).sum::<u64>());
    (pages * page) as f64 / seconds
}

/// Measures both in turn.
pub(crate) fn figures(sizes: Sizes, report: &mut Report) {
    report.group("Pages, a publisher and a reader on a thread each, batches of 256");
    let pages = (4 * sizes.events / PAGE) as u64;
    let mut best = [0.0_f64; 2];
    for _ in 0..sizes.rounds {
        best = [best[0].max(safe(pages)), best[1].max(ours(pages))];
    }
    report.show("slots of std::sync::OnceLock, without lock, gates and wake-ups", best[0], Unit::PerSecond);
    report.show("the ring, all of it", best[1], Unit::PerSecond);
    report.judge("ring / safe slots", best[1] / best[0], Unit::Times, Goal::AtLeast(1.2));
}
