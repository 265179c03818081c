//! The bus over NATS.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_trait::async_trait;
use hodei_core::bus::{
    BusStats, Delivery, EventBus, EventFilter, SubscribeOptions, Subscription, SubscriptionStats,
};
use hodei_core::event::Event;
use hodei_core::store::Change;
use hodei_core::{Error, ErrorKind, Result};
use tokio::task::JoinHandle;

use super::inbox::{Inbox, Known, Progress};
use super::outbox::Outbox;
use super::wire::Sent;
use crate::bus::Bus;

/// How long a request to the server may take.
const REQUEST: Duration = Duration::from_secs(2);
/// The longest time between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// How to use a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatsOptions {
    /// The name of the stream, made when it is not there. Its subject is `<stream>.events`. Default: `hodei`.
    pub stream: String,
    /// How many events wait to be sent at most while the server is away. Default: 65,536.
    pub capacity: usize,
    /// How many bytes the stream keeps; the oldest messages go first. Default: 1 GiB. Looked at when the stream is made.
    pub max_bytes: i64,
    /// Where to begin to read. Default: behind what is there.
    pub start: Start,
}

/// Where to begin to read a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Behind what is there.
    #[default]
    Now,
    /// With the oldest message that is kept.
    Oldest,
    /// Behind a message: what [`NatsBus::place`] returned in an earlier life.
    After(u64),
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self { stream: "hodei".to_owned(), capacity: 1 << 16, max_bytes: 1 << 30, start: Start::Now }
    }
}

impl NatsOptions {
    /// Names the stream.
    #[must_use]
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.stream = name.into();
        self
    }

    /// Bounds how many events wait while the server is away.
    #[must_use]
    pub const fn capacity(mut self, events: usize) -> Self {
        self.capacity = events;
        self
    }

    /// Says where to begin.
    #[must_use]
    pub const fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }
}

/// The bus of several processes, over a JetStream stream: every process that connects to it hears what all of them publish,
/// itself included.
///
/// Events are delivered at least once by the server and once to subscribers: messages are told apart by their publisher
/// and number, transitions by (job, version), within the last 65,536 of them. The events of one publisher keep their order;
/// those of several come in the order in which the server took them. While the server is away, events wait in a bounded
/// buffer, and what finds no room there is told to every subscriber as [`Delivery::Lagged`]; that count is of all events,
/// whatever the filter.
///
/// A publisher that dies takes what is in its buffer with it. Where that matters, let a [`Tail`](crate::Tail) read the
/// change log of the store, which has it.
#[derive(Debug)]
pub struct NatsBus {
    outbox: Arc<Outbox>,
    local: Bus,
    progress: Arc<Progress>,
    tasks: [JoinHandle<()>; 2],
}

impl NatsBus {
    /// Connects to a server, `nats://host:port`, and makes the stream if it is not there.
    ///
    /// # Errors
    ///
    /// `Unavailable` when there is no server or it refuses.
    pub async fn connect(url: &str, options: NatsOptions) -> Result<Self> {
        let away = |error: async_nats::Error| {
            Error::new(ErrorKind::Unavailable, "nats.connect")
                .with("stream", &options.stream)
                .source_error(error)
        };
        let reconnect = |attempts: usize| {
            let doubled = Duration::from_millis(10).saturating_mul(1 << attempts.min(6));
            doubled.min(RECONNECT_MAX)
        };
        let client = ConnectOptions::new().reconnect_delay_callback(reconnect).connect(url).await;
        let client = client.map_err(|error| away(error.into()))?;
        // As unique as the subjects on which it receives replies.
        let publisher = client.new_inbox();
        let context = ContextBuilder::new().timeout(REQUEST).ack_timeout(REQUEST).build(client);
        let start = open(&context, &options).await.map_err(away)?;
        let progress = Arc::new(Progress::default());
        progress.place.store(start, Ordering::Relaxed);
        let (outbox, local) = (Outbox::new(options.capacity), Bus::new());
        let subject = format!("{}.events", options.stream);
        let send = Arc::clone(&outbox).send(context.clone(), subject, publisher);
        let inbox = Inbox {
            context,
            stream: options.stream,
            bus: local.clone(),
            progress: Arc::clone(&progress),
            known: Known::default(),
        };
        let tasks = [tokio::spawn(send), tokio::spawn(inbox.read())];
        Ok(Self { outbox, local, progress, tasks })
    }

    /// Returns the stream's number of the last message that was brought to the local subscribers.
    #[must_use]
    pub fn place(&self) -> u64 {
        self.progress.place.load(Ordering::Acquire)
    }

    /// Waits until the server has acknowledged everything that was published here.
    ///
    /// # Errors
    ///
    /// `Timeout` when it takes longer than `wait`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn flush(&self, wait: Duration) -> Result<()> {
        let empty = self.outbox.room.until(|| (self.outbox.counts().1 == 0).then_some(()));
        match tokio::time::timeout(wait, empty).await {
            Ok(_) => Ok(()),
            Err(_) => {
                Err(Error::new(ErrorKind::Timeout, "nats.flush").with("unsent", self.outbox.counts().1))
            }
        }
    }

    /// Puts into the outbox what there is room for, and counts the rest.
    fn force(&self, count: usize, sent: impl Fn(usize) -> Sent) {
        let taken = self.outbox.take(count, false, |n| (0..n).map(&sent));
        if taken < count {
            self.outbox.miss(count - taken);
        }
    }
}

impl Drop for NatsBus {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Makes the stream if it is not there, and returns the number of the message behind which to begin.
async fn open(context: &Context, options: &NatsOptions) -> Result<u64, async_nats::Error> {
    let config = Config {
        name: options.stream.clone(),
        subjects: vec![format!("{}.events", options.stream)],
        max_bytes: options.max_bytes,
        discard: DiscardPolicy::Old,
        ..Config::default()
    };
    let stream = context.get_or_create_stream(config).await?;
    let state = &stream.cached_info().state;
    Ok(match options.start {
        Start::Now => state.last_sequence,
        Start::Oldest => state.first_sequence.saturating_sub(1),
        Start::After(place) => place,
    })
}

#[async_trait]
impl EventBus for NatsBus {
    async fn publish(&self, mut events: Vec<Event>, wait: Duration) -> Result<()> {
        self.publish_from(&mut events, wait).await
    }

    /// Publishes into the buffer; [`NatsBus::flush`] waits for the server.
    async fn publish_from(&self, events: &mut Vec<Event>, wait: Duration) -> Result<()> {
        let room = self.outbox.room.until(|| {
            let taken = self.outbox.take(events.len(), false, |n| events[..n].iter().map(Sent::from));
            events.drain(..taken);
            events.is_empty().then_some(())
        });
        match tokio::time::timeout(wait, room).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "bus.publish").with("unpublished", events.len())),
        }
    }

    fn try_publish(&self, events: &[Event]) -> Result<()> {
        let taken = self.outbox.take(events.len(), true, |n| events[..n].iter().map(Sent::from));
        if taken == events.len() { Ok(()) } else { Err(Error::new(ErrorKind::Full, "bus.try_publish")) }
    }

    fn publish_or_gap(&self, events: &[Event]) {
        self.force(events.len(), |index| Sent::from(&events[index]));
    }

    fn publish_changes(&self, changes: &[Change]) {
        self.force(changes.len(), |index| Sent::from(&changes[index]));
    }

    fn subscribe(&self, filter: EventFilter, options: SubscribeOptions) -> Box<dyn Subscription> {
        Box::new(Remote {
            known: self.progress.missed.load(Ordering::Acquire),
            local: self.local.subscribe(filter, options),
            progress: Arc::clone(&self.progress),
        })
    }

    /// `published` counts what went into the buffer of this process, the others what came out of the stream.
    fn stats(&self) -> BusStats {
        BusStats { published: self.outbox.counts().0, ..self.local.stats() }
    }
}

/// A local subscription that also tells what was missed on the way to this process.
#[derive(Debug)]
struct Remote {
    local: Box<dyn Subscription>,
    progress: Arc<Progress>,
    /// How many missed events it was told of.
    known: u64,
}

impl Remote {
    fn gap(&mut self) -> Option<Delivery> {
        let missed = self.progress.missed.load(Ordering::Acquire) - self.known;
        self.known += missed;
        (missed > 0).then_some(Delivery::Lagged { missed })
    }
}

#[async_trait]
impl Subscription for Remote {
    fn poll_recv(&mut self, task: &mut Task<'_>, into: &mut Vec<Delivery>, max: usize) -> Poll<usize> {
        if let Some(gap) = self.gap() {
            into.push(gap);
            return Poll::Ready(1);
        }
        self.local.poll_recv(task, into, max)
    }

    fn try_recv(&mut self, max: usize) -> Vec<Delivery> {
        match self.gap() {
            Some(gap) => vec![gap],
            None => self.local.try_recv(max),
        }
    }

    fn stats(&self) -> SubscriptionStats {
        self.local.stats()
    }
}
