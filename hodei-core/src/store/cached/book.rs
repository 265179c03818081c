//! What is under way: prunings, and writes whose outcome may stay unknown.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::records::Records;
use crate::error::{ErrorKind, Result};
use crate::store::Pruned;

/// Notes a write through the cache. Dropped before its end was told, or told of an end that may have been a commit all
/// the same, it makes everything unknown: the feed does not tell what became of such a commit.
#[derive(Debug)]
pub(super) struct Write<'a> {
    records: &'a Records,
    /// Whether the store commits as a whole or not at all.
    whole: bool,
    clear: bool,
}

impl<'a> Write<'a> {
    /// Begins one to a store that commits as a whole, or to one of parts, which answers with the failure of one of them while
    /// others may have committed.
    pub(super) fn begins(records: &'a Records, whole: bool) -> Self {
        Self { records, whole, clear: false }
    }

    /// Takes in how it ended.
    pub(super) fn ended<R>(self, result: Result<R>) -> Result<R> {
        self.ended_in_parts(result, |_| false)
    }

    /// Takes in how it ended, where a part of the store may have lost its reply: of what that committed nobody knows
    /// either.
    pub(super) fn ended_in_parts<R>(mut self, result: Result<R>, partial: impl Fn(&R) -> bool) -> Result<R> {
        // Of these it is certain that nothing was committed.
        let nothing = |kind| self.whole && matches!(kind, ErrorKind::Invalid | ErrorKind::Full);
        self.clear = result.as_ref().map_or_else(|error| nothing(error.kind()), |done| !partial(done));
        result
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        if !self.clear {
            self.records.new_era();
        }
    }
}

/// Notes a pruning, which no change tells of: while one is under way, nothing is certain to be there. Dropped before it
/// was told what went, it makes everything unknown.
#[derive(Debug)]
pub(super) struct Pruning<'a> {
    records: &'a Records,
    under_way: &'a AtomicUsize,
    /// Whether what was removed is known, and forgotten.
    told: bool,
}

impl<'a> Pruning<'a> {
    pub(super) fn begins(records: &'a Records, under_way: &'a AtomicUsize) -> Self {
        // SeqCst, here and where it is read: whoever begins to read after a pruning was acknowledged must see either
        // that it is under way or the era after it.
        under_way.fetch_add(1, Ordering::SeqCst);
        Self { records, under_way, told: false }
    }

    /// Takes in what was removed.
    pub(super) fn ended(mut self, pruned: &Pruned) {
        self.told = !pruned.partial && pruned.gone.len() as u64 == pruned.jobs;
        pruned.gone.iter().for_each(|(_, id)| self.records.forget(*id));
    }
}

impl Drop for Pruning<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.records.new_era();
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}
