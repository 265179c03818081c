//! Counting what the cache does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::store::CacheStats;

/// The counters behind [`CacheStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) invalidated: AtomicU64,
    pub(super) stale_avoided: AtomicU64,
    pub(super) evicted: AtomicU64,
    aged: AtomicU64,
    age_sum: AtomicU64,
    age_max: AtomicU64,
}

impl Counters {
    /// Counts an answer that was read so long ago.
    pub(super) fn answered(&self, age: Duration) {
        let micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        // Relaxed: figures that order nothing.
        self.aged.fetch_add(1, Ordering::Relaxed);
        self.age_sum.fetch_add(micros, Ordering::Relaxed);
        self.age_max.fetch_max(micros, Ordering::Relaxed);
    }

    /// Adds how old answers were.
    pub(super) fn ages(&self, stats: CacheStats) -> CacheStats {
        let micros = |counter: &AtomicU64| Duration::from_micros(counter.load(Ordering::Relaxed));
        let aged = self.aged.load(Ordering::Relaxed);
        CacheStats { aged, age_sum: micros(&self.age_sum), age_max: micros(&self.age_max), ..stats }
    }
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, n: usize) {
    // Relaxed: a figure that orders nothing.
    counter.fetch_add(n as u64, Ordering::Relaxed);
}
