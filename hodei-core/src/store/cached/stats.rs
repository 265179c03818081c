//! What a cache has done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a cache has done since it was made. Reading it costs the same however much the cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Records and outputs that were answered from memory.
    pub hits: u64,
    /// Records and outputs that were not.
    pub misses: u64,
    /// Records that a write made wrong and that were therefore removed.
    pub invalidated: u64,
    /// Reads that a write, or a newer read, had overtaken: what they brought was not taken.
    pub stale_avoided: u64,
    /// Answers from memory that another process may have overtaken meanwhile, as it was allowed: none of an exclusive
    /// store.
    pub aged: u64,
    /// How long before they were given such answers had been read, all together.
    pub age_sum: Duration,
    /// How long before the oldest of them.
    pub age_max: Duration,
    /// Records that had to make room, those that were larger than all the room included.
    pub evicted: u64,
    /// How many records there are.
    pub entries: u64,
    /// How many bytes they take, what they share counted for each.
    pub bytes: u64,
    /// Records that the second tier had.
    pub tier_hits: u64,
    /// Records that it did not have.
    pub tier_misses: u64,
    /// Rows of it that were none of ours: damaged, made up, too old.
    pub tier_rejected: u64,
    /// Visits to it that failed or took too long.
    pub tier_failures: u64,
    /// Visits that were left out because of that, or because the time of their call was spent.
    pub tier_skipped: u64,
    /// Whether it is being left alone.
    pub tier_shut: bool,
}

impl CacheStats {
    /// Returns the share of hits, 0 to 1; 0 where nothing was asked for.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn hit_ratio(&self) -> f64 {
        let asked = self.hits + self.misses;
        if asked == 0 { 0.0 } else { self.hits as f64 / asked as f64 }
    }

    /// Returns how old the answers were that may have been overtaken, on average; zero where there was none.
    #[must_use]
    pub fn staleness(&self) -> Duration {
        let mean = self.age_sum.as_micros().checked_div(u128::from(self.aged)).unwrap_or(0);
        Duration::from_micros(u64::try_from(mean).unwrap_or(u64::MAX))
    }
}

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
