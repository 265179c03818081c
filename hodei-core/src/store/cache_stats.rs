//! What a cache has done, as it is told with the rest of what a store has done.

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

    /// Adds what another cache has done.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            invalidated: self.invalidated + other.invalidated,
            stale_avoided: self.stale_avoided + other.stale_avoided,
            aged: self.aged + other.aged,
            age_sum: self.age_sum.saturating_add(other.age_sum),
            age_max: self.age_max.max(other.age_max),
            evicted: self.evicted + other.evicted,
            entries: self.entries + other.entries,
            bytes: self.bytes + other.bytes,
            tier_hits: self.tier_hits + other.tier_hits,
            tier_misses: self.tier_misses + other.tier_misses,
            tier_rejected: self.tier_rejected + other.tier_rejected,
            tier_failures: self.tier_failures + other.tier_failures,
            tier_skipped: self.tier_skipped + other.tier_skipped,
            tier_shut: self.tier_shut || other.tier_shut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_caches_the_sums_are_told_and_the_worst_age() {
        let second = Duration::from_secs(1);
        let one = CacheStats { hits: 3, aged: 1, age_sum: second, age_max: second, ..CacheStats::default() };
        let other = CacheStats { misses: 1, aged: 1, tier_shut: true, entries: 2, ..CacheStats::default() };
        let both = one.and(other);
        assert_eq!((both.hits, both.misses, both.aged, both.entries), (3, 1, 2, 2));
        assert_eq!((both.age_max, both.staleness(), both.tier_shut), (second, second / 2, true));
        assert_eq!(both, other.and(one));
    }
}
