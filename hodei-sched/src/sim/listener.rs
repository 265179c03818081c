//! A subscriber to everything that is committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hodei_core::Name;
use hodei_core::event::{Event, JobEvent};
use hodei_core::store::{Change, ChangeSink, Feed, JobStore};
use hodei_core::testkit::history::Recorder;

use super::door::Door;

/// Notes what it is told; now and then it is too slow, and is told that.
#[derive(Debug)]
pub(super) struct Listener {
    recorder: Recorder,
    name: Name,
    told: AtomicU64,
    /// Whether it is not told of what it misses: the planted bug.
    silent: bool,
    feed: Mutex<Option<Feed>>,
}

/// Of so many commits it misses one.
const MISSES_EVERY: u64 = 40;

impl Listener {
    pub(super) fn listen(door: &Door, silent: bool) -> Arc<Self> {
        let listener = Arc::new(Self {
            recorder: door.store().recorder().clone(),
            name: Name::literal("listener"),
            told: AtomicU64::new(0),
            silent,
            feed: Mutex::default(),
        });
        let feed = door.feed(Arc::<Self>::clone(&listener));
        *listener.feed.lock().unwrap_or_else(PoisonError::into_inner) = Some(feed);
        listener
    }
}

impl ChangeSink for Listener {
    fn committed(&self, changes: &[Change]) {
        // One thread: the order is that of the calls.
        if self.told.fetch_add(1, Ordering::Relaxed) % MISSES_EVERY == MISSES_EVERY - 1 {
            if !self.silent {
                self.recorder.lagged(&self.name);
            }
            return;
        }
        for change in changes {
            if let Event::Job(event) = Event::from(change) {
                self.observed(&event);
            }
        }
    }
}

impl Listener {
    fn observed(&self, event: &JobEvent) {
        self.recorder.observed(&self.name, event);
    }
}
