//! The bus over NATS.

use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectErrorKind;
use async_nats::jetstream::context::ContextBuilder;
use async_trait::async_trait;
use hodei_core::bus::{BusStats, EventBus, EventFilter, SubscribeOptions, Subscription};
use hodei_core::event::Event;
use hodei_core::store::Change;
use hodei_core::{Error, ErrorKind, Result};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::task::coop::consume_budget;

use super::inbox::{Inbox, Known};
use super::options::{NatsOptions, Start};
use super::outbox::{Outbox, Sender};
use super::place::{Place, Progress};
use super::stream::Source;
use super::wire::Sent;
use crate::bus::Bus;

/// How long a request to the server may take.
const REQUEST: Duration = Duration::from_secs(2);
/// The longest time between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// The bus of several processes, over a JetStream stream: every process that connects to it hears what all of them publish,
/// itself included.
///
/// Events are delivered at least once by the server and once to subscribers: messages are told apart by their publisher
/// and number, transitions by (job, version), within the last 65,536 of them. The events of one publisher keep their order;
/// those of several come in the order in which the server took them. While the server is away, events wait in a bounded
/// buffer, and what finds no room there is told to every subscriber as
/// [`Delivery::Lagged`](hodei_core::bus::Delivery::Lagged), where it was missed; that count is of all events, whatever the
/// filter. A stream that is gone is made anew, and that may have lost events is told as a gap of one.
///
/// A publisher that dies takes what is in its buffer with it. Where that matters, let a [`Tail`](crate::Tail) read the
/// change log of the store, which has it.
#[derive(Debug)]
pub struct NatsBus {
    outbox: Arc<Outbox>,
    local: Bus,
    progress: Arc<Progress>,
    /// Told when somebody has subscribed.
    heard: Arc<Notify>,
    tasks: [JoinHandle<()>; 2],
}

impl NatsBus {
    /// Connects to a server, `nats://host:port`, and makes the stream if it is not there.
    ///
    /// # Errors
    ///
    /// `Unavailable` when there is no server, or when it makes no stream; `Unauthenticated` when it does not know who asks,
    /// `Config` when no encrypted connection comes about, `Invalid` for a login that is no text.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have made the stream, and nothing of it goes on.
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
        let client = options.connection()?.reconnect_delay_callback(reconnect).connect(url).await;
        let client = client.map_err(|error| match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                Error::new(ErrorKind::Unauthenticated, "nats.connect").source_error(error)
            }
            ConnectErrorKind::Tls => Error::new(ErrorKind::Config, "nats.connect").source_error(error),
            _ => away(error.into()),
        })?;
        // As unique as the subjects on which it receives replies.
        let publisher = client.new_inbox();
        let context = ContextBuilder::new().timeout(REQUEST).ack_timeout(REQUEST).build(client.clone());
        let source = Source::new(context, &options);
        let progress = Arc::new(Progress::default());
        let gap = progress.begin(options.start, &source.open().await.map_err(away)?);
        let (outbox, local, heard) = (Outbox::new(options.capacity), Bus::new(), Arc::new(Notify::new()));
        let sender = Sender { client, source: source.clone(), publisher };
        let inbox = Inbox {
            source,
            bus: local.clone(),
            progress: Arc::clone(&progress),
            known: Known::default(),
            wait: options.wait,
        };
        let listened = (options.start != Start::Now).then(|| Arc::clone(&heard));
        let tasks = [tokio::spawn(Arc::clone(&outbox).send(sender)), tokio::spawn(inbox.read(listened, gap))];
        Ok(Self { outbox, local, progress, heard, tasks })
    }

    /// Returns up to where everything was taken by all local subscribers: to begin there once more, keep it after handling
    /// what was taken.
    ///
    /// # Performance
    ///
    /// O(subscribers + messages since the last call).
    #[must_use]
    pub fn place(&self) -> Place {
        self.progress.taken(&self.local)
    }

    /// Waits until the server has acknowledged everything that was published here.
    ///
    /// # Errors
    ///
    /// `Timeout` when it takes longer than `wait`; what the server said last is in its context.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn flush(&self, wait: Duration) -> Result<()> {
        let empty = self.outbox.room.until(|| if self.outbox.counts().1 == 0 { Ok(()) } else { Err(()) });
        let in_time = tokio::time::timeout(wait, empty).await;
        in_time.map_err(|_| self.outbox.late("nats.flush").with("unsent", self.outbox.counts().1))
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

#[async_trait]
impl EventBus for NatsBus {
    async fn publish(&self, mut events: Vec<Event>, wait: Duration) -> Result<()> {
        self.publish_from(&mut events, wait).await
    }

    /// Publishes into the buffer; [`NatsBus::flush`] waits for the server.
    async fn publish_from(&self, events: &mut Vec<Event>, wait: Duration) -> Result<()> {
        consume_budget().await;
        let room = self.outbox.room.until(|| {
            let taken = self.outbox.take(events.len(), false, |n| events[..n].iter().map(Sent::from));
            events.drain(..taken);
            if events.is_empty() { Ok(()) } else { Err(()) }
        });
        let in_time = tokio::time::timeout(wait, room).await;
        in_time.map_err(|_| self.outbox.late("bus.publish").with("unpublished", events.len()))
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
        let subscription = self.local.subscribe(filter, options);
        self.heard.notify_one();
        subscription
    }

    /// `published` counts what went into the buffer of this process, the others what came out of the stream.
    fn stats(&self) -> BusStats {
        BusStats { published: self.outbox.counts().0, ..self.local.stats() }
    }
}
