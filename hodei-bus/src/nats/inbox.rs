//! Messages on their way to local subscribers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::context::Context;
use futures_util::StreamExt as _;
use hodei_core::JobId;
use hodei_core::event::Event;

use super::wire::{Message, Sent};
use crate::bus::Bus;

/// How long it waits before it asks the server again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long without any message it asks for a new consumer, in case the old one is gone.
const SILENCE: Duration = Duration::from_secs(5);
/// How many transitions are remembered at least, to tell repetitions.
const MEMORY: usize = 1 << 16;
/// How many publishers are remembered at most.
const PUBLISHERS: usize = 4_096;

/// How far the stream was read, and what was missed on the way.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The stream's number of the last message that was taken in.
    pub(crate) place: AtomicU64,
    /// Events, or messages where nobody knows how many events they had, that no local subscriber gets.
    pub(crate) missed: AtomicU64,
}

/// Reads the stream into a local bus until it is dropped.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) context: Context,
    pub(crate) stream: String,
    pub(crate) bus: Bus,
    pub(crate) progress: Arc<Progress>,
    pub(crate) known: Known,
}

/// What was taken in before.
#[derive(Debug, Default)]
pub(crate) struct Known {
    publishers: HashMap<String, u64>,
    now: HashSet<(JobId, u32)>,
    before: HashSet<(JobId, u32)>,
}

impl Known {
    /// Says whether a message is new, and remembers it.
    fn message(&mut self, message: &Message) -> bool {
        if let Some(last) = self.publishers.get_mut(&message.publisher) {
            let new = message.number > *last;
            *last = message.number.max(*last);
            return new;
        }
        if self.publishers.len() >= PUBLISHERS {
            // Their transitions are still known, and the server tells recent repetitions itself.
            self.publishers.clear();
        }
        self.publishers.insert(message.publisher.clone(), message.number);
        true
    }

    /// Says whether a transition is new, and remembers it. Other events have no number and are new.
    fn event(&mut self, sent: &Sent) -> bool {
        let Event::Job(event) = &sent.event else { return true };
        let key = (event.job, event.version);
        if self.before.contains(&key) || !self.now.insert(key) {
            return false;
        }
        if self.now.len() >= MEMORY {
            self.before = std::mem::take(&mut self.now);
        }
        true
    }
}

impl Inbox {
    /// Reads on wherever it was, whatever happens to the connection and to the server.
    pub(crate) async fn read(mut self) {
        loop {
            // An error is a server that is away or a consumer that is gone: the stream keeps what comes meanwhile.
            let _ = self.read_on().await;
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn read_on(&mut self) -> Result<(), async_nats::Error> {
        let stream = self.context.get_stream(&self.stream).await?;
        let place = self.progress.place.load(Ordering::Relaxed);
        let (first, last) =
            (stream.cached_info().state.first_sequence, stream.cached_info().state.last_sequence);
        if last < place {
            // Another stream of that name: what it has is all new.
            self.skip_to(0);
            self.miss(1);
        } else if first > place + 1 {
            self.skip_to(first - 1);
        }
        let start_sequence = self.progress.place.load(Ordering::Relaxed) + 1;
        let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence };
        let consumer =
            stream.create_consumer(OrderedConfig { deliver_policy, ..OrderedConfig::default() }).await?;
        let mut messages = consumer.messages().await?;
        while let Ok(Some(message)) = tokio::time::timeout(SILENCE, messages.next()).await {
            let message = message?;
            let sequence = message.info()?.stream_sequence;
            let expected = self.progress.place.load(Ordering::Relaxed) + 1;
            if sequence < expected {
                continue;
            }
            if sequence > expected {
                self.skip_to(sequence - 1);
            }
            self.take_in(&message.payload).await;
            self.progress.place.store(sequence, Ordering::Release);
        }
        Ok(())
    }

    /// Goes on behind messages that the stream no longer keeps.
    fn skip_to(&self, place: u64) {
        let before = self.progress.place.swap(place, Ordering::Release);
        self.miss(place.saturating_sub(before));
    }

    /// Tells every subscriber of a gap.
    fn miss(&self, count: u64) {
        if count > 0 {
            self.progress.missed.fetch_add(count, Ordering::Release);
            self.bus.rouse();
        }
    }

    async fn take_in(&mut self, payload: &[u8]) {
        let Ok(mut message) = serde_json::from_slice::<Message>(payload) else {
            // Not ours, or of a version that knows more: told as a gap.
            self.miss(1);
            return;
        };
        if !self.known.message(&message) {
            return;
        }
        self.miss(message.missed);
        message.events.retain(|sent| self.known.event(sent));
        self.bus.relay(&message.events).await;
    }
}
