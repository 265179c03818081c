//! The feeds of all shards as one.

use std::sync::{Arc, Mutex, PoisonError};

use super::super::{Change, ChangeSink, Feed, Feeds};
use super::store::ShardedStore;

/// Hears what the shards commit, and tells it on: one call after the other, although shards commit side by side.
///
/// A tenant's changes come in their order, since they come from one shard at a time: a shard that seals a slot has told
/// all that it committed there.
#[derive(Debug, Default)]
pub(super) struct Relay {
    feeds: Feeds,
    /// A std mutex, held while the sinks are told.
    turn: Mutex<()>,
}

impl ChangeSink for Relay {
    fn committed(&self, changes: &[Change]) {
        if self.feeds.is_empty() {
            return;
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.feeds.tell(changes);
        drop(turn);
    }
}

impl ShardedStore {
    /// Registers a sink; with the first one this store begins to listen to its shards.
    pub(super) fn feed_of_all(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        let (relay, mut ears) = self.relay();
        let feed = relay.feeds.register(sink);
        if ears.is_empty() {
            let hear = |shard: &Arc<dyn super::super::Shard>| shard.feed(Arc::<Relay>::clone(relay));
            ears.extend(self.shards().iter().map(hear));
        }
        feed
    }
}
