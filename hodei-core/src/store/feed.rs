//! Being told what was committed, in the order of the commits.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::change::Change;

/// Whoever wants to be told what a store commits; see [`JobStore::feed`](super::JobStore::feed).
///
/// It is called between a commit and its reply, one call after the other: it must be quick, must not block, and must
/// not call the store. One that panics is told nothing more.
pub trait ChangeSink: Send + Sync + fmt::Debug {
    /// Takes in every change of one commit, or of several that became durable together, in their order; be they
    /// recorded or not.
    fn committed(&self, changes: &[Change]);
}

const _: fn(&dyn ChangeSink) = |_| ();

/// Keeps a [`ChangeSink`] registered. Once it is dropped the sink is told nothing more, but for a call that another
/// thread is in the middle of.
#[derive(Debug)]
#[must_use = "dropping it ends the feed"]
pub struct Feed {
    of: Weak<Sinks>,
    entry: Arc<Entry>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.entry.open.store(false, Ordering::Release);
        if let Some(sinks) = self.of.upgrade() {
            sinks.change(|entries| entries.retain(|entry| !Arc::ptr_eq(entry, &self.entry)));
        }
    }
}

/// The sinks of a store, which it tells after each commit. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Feeds(Arc<Sinks>);

#[derive(Debug, Default)]
struct Sinks {
    /// How many there are: without any, a store need not even lock.
    count: AtomicUsize,
    /// A std mutex, held for a copy of the pointer: no sink is called under it, so a sink may end its own feed.
    entries: Mutex<Arc<[Arc<Entry>]>>,
}

#[derive(Debug)]
struct Entry {
    open: AtomicBool,
    sink: Arc<dyn ChangeSink>,
}

impl Sinks {
    fn entries(&self) -> MutexGuard<'_, Arc<[Arc<Entry>]>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Entry>>)) {
        let mut entries = self.entries();
        let mut changed = entries.to_vec();
        change(&mut changed);
        // Release: a verb that comes after a registration sees that there is somebody to tell.
        self.count.store(changed.len(), Ordering::Release);
        *entries = changed.into();
    }
}

impl Feeds {
    /// Makes a list without sinks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sink, until the returned guard is dropped.
    pub fn register(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        let entry = Arc::new(Entry { open: AtomicBool::new(true), sink });
        self.0.change(|entries| entries.push(Arc::clone(&entry)));
        Feed { of: Arc::downgrade(&self.0), entry }
    }

    /// Says whether nobody wants to be told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }

    /// Tells every sink. The caller sees to it that calls come one after the other, in the order of the commits.
    pub fn tell(&self, changes: &[Change]) {
        if changes.is_empty() || self.is_empty() {
            return;
        }
        let entries = Arc::clone(&self.0.entries());
        for entry in entries.iter().filter(|entry| entry.open.load(Ordering::Acquire)) {
            // What is committed stands, and its caller is answered, whatever a sink does.
            if catch_unwind(AssertUnwindSafe(|| entry.sink.committed(changes))).is_err() {
                entry.open.store(false, Ordering::Release);
                self.0.change(|entries| entries.retain(|known| !Arc::ptr_eq(known, entry)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobSpec, NewJob, rules};
    use crate::time::Timestamp;

    #[derive(Debug, Default)]
    struct Count(AtomicUsize);

    impl ChangeSink for Count {
        fn committed(&self, changes: &[Change]) {
            assert!(changes.len() < 3, "more than this sink bears");
            self.0.fetch_add(changes.len(), Ordering::Relaxed);
        }
    }

    fn change() -> Change {
        rules::admit(NewJob::new(JobSpec::command(["true"]).build().unwrap()), Timestamp::EPOCH).1
    }

    #[test]
    fn every_sink_is_told_until_its_feed_is_dropped() {
        let feeds = Feeds::new();
        let (a, b) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let told = || (a.0.load(Ordering::Relaxed), b.0.load(Ordering::Relaxed));
        let first = feeds.register(Arc::<Count>::clone(&a));
        feeds.tell(&[change()]);
        let second = feeds.register(Arc::<Count>::clone(&b));
        feeds.tell(&[change(), change()]);
        assert_eq!(told(), (3, 2));
        drop(first);
        feeds.tell(&[change()]);
        drop(second);
        feeds.tell(&[change()]);
        assert_eq!((told(), feeds.is_empty()), ((3, 3), true));
    }

    #[test]
    fn a_sink_that_panics_takes_nobody_with_it() {
        let feeds = Feeds::new();
        let weak = Arc::new(Count::default());
        let _feed = feeds.register(Arc::<Count>::clone(&weak));
        feeds.tell(&[change(), change(), change()]);
        feeds.tell(&[change()]);
        assert_eq!((weak.0.load(Ordering::Relaxed), feeds.is_empty()), (0, true));
    }

    #[test]
    fn a_feed_may_outlive_its_store() {
        let feeds = Feeds::new();
        let feed = feeds.register(Arc::new(Count::default()));
        drop(feeds);
        drop(feed);
    }
}
