//! Messages on their way to local subscribers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use futures_util::StreamExt as _;
use hodei_core::JobId;
use hodei_core::event::Event;
use tokio::sync::Notify;

use super::place::Progress;
use super::stream::Source;
use super::wire::{Message, Sent};
use crate::bus::Bus;
use crate::ring::Queues;

/// How long it waits before it asks the server again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long without any message it looks whether the stream has more, in case the consumer is gone.
const SILENCE: Duration = Duration::from_secs(5);
/// How often the server says that it has nothing; without it the consumer is gone.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// After what time the server forgets a consumer that nobody asks.
const INACTIVE: Duration = Duration::from_secs(30);
/// How many transitions are remembered at least, to tell repetitions.
const MEMORY: usize = 1 << 16;
/// How many publishers are remembered at most.
const PUBLISHERS: usize = 4_096;

/// Reads the stream into a local bus until it is dropped.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) source: Source,
    pub(crate) bus: Bus,
    pub(crate) progress: Arc<Progress>,
    pub(crate) known: Known,
    /// How long a message waits for local subscribers that block.
    pub(crate) wait: Duration,
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
    /// Reads on wherever it was, whatever happens to the connection and to the server; first it waits until somebody listens,
    /// if it is to, and tells of a gap before the beginning.
    pub(crate) async fn read(mut self, listened: Option<Arc<Notify>>, gap: u64) {
        if let Some(listened) = listened {
            listened.notified().await;
        }
        self.bus.gap(gap);
        loop {
            // An error is a server that is away or a consumer that is gone: the stream keeps what comes meanwhile.
            let _ = self.read_on().await;
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn read_on(&mut self) -> Result<(), async_nats::Error> {
        let stream = self.source.open().await?;
        self.bus.gap(self.progress.resume(&stream));
        let config = Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.progress.next() },
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..Config::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let mut messages = consumer.stream().heartbeat(HEARTBEAT).messages().await?;
        let mut first = true;
        loop {
            let message = match tokio::time::timeout(SILENCE, messages.next()).await {
                Ok(Some(message)) => message?,
                Ok(None) => return Ok(()),
                Err(_) if self.progress.is_at_the_end_of(&self.source.open().await?) => continue,
                Err(_) => return Ok(()),
            };
            let sequence = message.info()?.stream_sequence;
            let Some(skipped) = sequence.checked_sub(self.progress.next()) else { continue };
            if skipped > 0 && !std::mem::take(&mut first) {
                // Lost on the way, or no longer kept: a new consumer shows which.
                return Ok(());
            }
            first = false;
            self.bus.gap(skipped);
            self.take_in(&message.payload).await;
            self.progress.read(sequence, &self.bus);
        }
    }

    async fn take_in(&mut self, payload: &[u8]) {
        let Ok(mut message) = serde_json::from_slice::<Message>(payload) else {
            // Not ours, or of a version that knows more: told as a gap.
            self.bus.gap(1);
            return;
        };
        if !self.known.message(&message) {
            return;
        }
        self.bus.gap(message.missed);
        message.events.retain(|sent| self.known.event(sent));
        self.bus.relay(&message.events, Queues::Known, self.wait).await;
    }
}
