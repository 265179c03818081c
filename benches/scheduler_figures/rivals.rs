//! Queues by priority, ours and others', behind one door.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_skiplist::SkipMap;
use hodei_core::Timestamp;
use hodei_core::job::Priority;
use hodei_sched::queue::{Ageing, ClassId, LaneId, ReadyQueue};
use parking_lot::Mutex;

/// How many levels the jobs have.
pub(crate) const LEVELS: u8 = 8;
/// How many tenants share, where a queue knows any.
pub(crate) const TENANTS: usize = 8;

/// A queue that several threads push to and pop from.
pub(crate) trait Rival: Sync {
    /// Adds jobs: their levels and numbers.
    fn push(&self, jobs: &[(u8, u64)]);
    /// Takes up to so many jobs out, and returns how many there were.
    fn pop(&self, n: usize) -> usize;
    /// How many jobs came out although a more urgent one was there; nobody knows it of a queue without a lock.
    fn inversions(&self) -> Option<u64>;
}

/// What should come out next, counted beside the queue under its lock.
#[derive(Default)]
pub(crate) struct Expected {
    depths: [u64; LEVELS as usize],
    /// The levels that have jobs.
    there: u32,
    pub(crate) inversions: u64,
}

impl Expected {
    pub(crate) fn pushed(&mut self, level: u8) {
        self.depths[usize::from(level)] += 1;
        self.there |= 1 << level;
    }

    pub(crate) fn popped(&mut self, level: u8) {
        self.inversions += u64::from(self.there >> level > 1);
        let depth = &mut self.depths[usize::from(level)];
        *depth -= 1;
        self.there &= !(u32::from(*depth == 0) << level);
    }
}

type Heap = BinaryHeap<(u8, Reverse<u64>, u64)>;

/// A heap behind a lock: no cancelling, no ageing, no delays, no shares.
#[derive(Default)]
pub(crate) struct Heaped(Mutex<(Heap, u64, Expected)>);

impl Rival for Heaped {
    fn push(&self, jobs: &[(u8, u64)]) {
        let (heap, next, expected) = &mut *self.0.lock();
        for (level, job) in jobs {
            *next += 1;
            heap.push((*level, Reverse(*next), *job));
            expected.pushed(*level);
        }
    }

    fn pop(&self, n: usize) -> usize {
        let (heap, _, expected) = &mut *self.0.lock();
        let popped = std::iter::from_fn(|| heap.pop()).take(n);
        popped.map(|(level, ..)| expected.popped(level)).count()
    }

    fn inversions(&self) -> Option<u64> {
        Some(self.0.lock().2.inversions)
    }
}

/// A lock-free ordered map: no ageing, no delays, no shares.
#[derive(Default)]
pub(crate) struct Skipping {
    map: SkipMap<(Reverse<u8>, u64), u64>,
    next: AtomicU64,
}

impl Rival for Skipping {
    fn push(&self, jobs: &[(u8, u64)]) {
        for (level, job) in jobs {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            self.map.insert((Reverse(*level), next), *job);
        }
    }

    fn pop(&self, n: usize) -> usize {
        (0..n).map_while(|_| self.map.pop_front()).count()
    }

    fn inversions(&self) -> Option<u64> {
        None
    }
}

/// Our queue behind a lock, with everything in place: cancelling, ageing, delays, shares of tenants. Nothing is cancelled while pairs
/// are measured, and nothing delayed is due by then; what cancelling costs is a figure of its own.
pub(crate) struct Ours(Mutex<(Fair, Expected)>);

/// Our queue with the lanes of its tenants.
pub(crate) struct Fair {
    pub(crate) queue: ReadyQueue<u64>,
    pub(crate) lanes: Vec<LaneId>,
    now: i64,
}

impl Fair {
    pub(crate) fn new() -> Self {
        let ageing = Ageing { every: Duration::from_secs(60), ceiling: Priority::MAX };
        let mut queue = ReadyQueue::new(Some(ageing));
        let lanes = (1..)
            .take(TENANTS)
            .map(|weight| {
                let share = queue.open_share(None, weight);
                queue.open_lane(share, ClassId(0), 1)
            })
            .collect();
        let mut fair = Self { queue, lanes, now: 0 };
        for n in 0..1_000 {
            let due = Timestamp::from_micros(1_000_000_000_000 + i64::from(n));
            fair.queue.push_delayed(u64::MAX, fair.lanes[0], Priority::MIN, due);
        }
        fair
    }

    pub(crate) fn push(&mut self, level: u8, job: u64) -> hodei_sched::queue::Handle {
        self.now += 1;
        let lane = self.lanes[usize::try_from(job).unwrap_or(0) % TENANTS];
        let level = Priority::new(level).unwrap_or_default();
        self.queue.push(job, lane, level, Timestamp::from_micros(self.now))
    }

    pub(crate) fn advance(&mut self) {
        self.queue.advance(Timestamp::from_micros(self.now));
    }
}

impl Default for Ours {
    fn default() -> Self {
        Self(Mutex::new((Fair::new(), Expected::default())))
    }
}

impl Rival for Ours {
    fn push(&self, jobs: &[(u8, u64)]) {
        let (fair, expected) = &mut *self.0.lock();
        for (level, job) in jobs {
            fair.push(*level, *job);
            expected.pushed(*level);
        }
        fair.advance();
    }

    fn pop(&self, n: usize) -> usize {
        let (fair, expected) = &mut *self.0.lock();
        let popped = std::iter::from_fn(|| fair.queue.pop()).take(n);
        popped.map(|popped| expected.popped(popped.level.level())).count()
    }

    fn inversions(&self) -> Option<u64> {
        Some(self.0.lock().1.inversions)
    }
}
