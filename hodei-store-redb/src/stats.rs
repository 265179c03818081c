//! Counting what the store does.

use std::sync::atomic::{AtomicU64, Ordering};

use hodei_core::store::StoreStats;

/// What one transaction read and wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) read: u64,
    pub(crate) written: u64,
    pub(crate) bytes: u64,
}

/// What the store did since it was opened. The counters order nothing: relaxed is enough.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    commits: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
    bytes: AtomicU64,
}

impl Stats {
    /// Counts a commit, which is always synced.
    pub(crate) fn committed(&self, tally: Tally) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.written.fetch_add(tally.written, Ordering::Relaxed);
        self.bytes.fetch_add(tally.bytes, Ordering::Relaxed);
        self.read(tally.read);
    }

    /// Counts rows that were read.
    pub(crate) fn read(&self, rows: u64) {
        self.read.fetch_add(rows, Ordering::Relaxed);
    }

    /// Returns the counts.
    pub(crate) fn snapshot(&self) -> StoreStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            commits: get(&self.commits),
            syncs: get(&self.commits),
            rows_written: get(&self.written),
            rows_read: get(&self.read),
            bytes_written: get(&self.bytes),
            cache: None,
        }
    }
}
