//! The feeds of all shards as one.

use std::sync::{Arc, Mutex, PoisonError};

use super::super::{Change, ChangeSink, Feed, Feeds, Shard};
use super::seat::Seat;
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
            let there = self.shards().iter().filter_map(Seat::taken);
            ears.extend(there.map(|shard| shard.feed(Arc::<Relay>::clone(relay))));
        }
        feed
    }

    /// Lets a shard take its seat, heard by whoever listens; `false` when another one has taken it.
    ///
    /// Both happen under the lock of the ears: a sink that is registered meanwhile hears the shard from here or from there.
    pub(super) fn seat(&self, place: usize, shard: &Arc<dyn Shard>) -> bool {
        let (relay, mut ears) = self.relay();
        let seat = &self.shards()[place];
        if seat.taken().is_some() {
            return false;
        }
        if !ears.is_empty() {
            ears.push(shard.feed(Arc::<Relay>::clone(relay)));
        }
        seat.take(Arc::clone(shard))
    }
}
