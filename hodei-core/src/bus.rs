//! The port of the bus: the fast path by which everyone learns of what happened.
//!
//! The truth is the store's change log; a subscriber that was too slow is told what it missed and reads it there.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::event::{Event, EventKind};
use crate::id::{JobId, Tenant};

/// Which events a subscriber wants. What is not set lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    kinds: Option<u16>,
    tenant: Option<Tenant>,
    jobs: Option<Vec<JobId>>,
}

impl EventFilter {
    /// Lets everything through.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Lets a kind through, beside those named before.
    #[must_use]
    pub fn kind(mut self, kind: EventKind) -> Self {
        self.kinds = Some(self.kinds.unwrap_or(0) | 1 << (kind as u16));
        self
    }

    /// Lets one tenant's events through, and nobody else's.
    #[must_use]
    pub fn tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Lets a job's events through, beside those named before.
    #[must_use]
    pub fn job(mut self, job: JobId) -> Self {
        let jobs = self.jobs.get_or_insert_default();
        if let Err(place) = jobs.binary_search(&job) {
            jobs.insert(place, job);
        }
        self
    }

    /// Says whether an event passes.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.kinds.is_none_or(|kinds| kinds & 1 << (event.kind() as u16) != 0)
            && self.tenant.as_ref().is_none_or(|tenant| event.tenant() == Some(tenant))
            && self
                .jobs
                .as_ref()
                .is_none_or(|jobs| event.job().is_some_and(|job| jobs.binary_search(&job).is_ok()))
    }
}

/// What happens when a subscriber is slower than the publishers. Never silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// [`EventBus::publish`] waits for it, [`EventBus::try_publish`] refuses, [`EventBus::publish_or_gap`] leaves a
    /// gap that it is told of.
    #[default]
    Block,
    /// The oldest events it has not read are dropped, and it is told how many.
    DropOldest,
    /// New events are dropped until it has read on, and it is told how many.
    DropNewest,
    /// It is cut off: it reads what is there, then it is told that it was disconnected.
    Disconnect,
}

/// How to subscribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// What happens when the subscriber is too slow. Default: block.
    pub overflow: Overflow,
    /// How many events wait for the subscriber at most. Default: 1,024.
    pub capacity: usize,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self { overflow: Overflow::Block, capacity: 1_024 }
    }
}

/// What a subscriber receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// An event.
    Event(Event),
    /// So many events that passed the filter were missed here.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// It was too slow and was cut off; nothing follows.
    Disconnected {
        /// How many events it missed until then.
        missed: u64,
    },
}

/// What a bus has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusStats {
    /// Events published.
    pub published: u64,
    /// Events taken by subscribers.
    pub delivered: u64,
    /// Events that subscribers missed and were told of.
    pub missed: u64,
    /// Subscribers now.
    pub subscribers: u64,
}

/// The bus.
///
/// Every subscriber sees the events of one publisher in the order of their publication. Events published before a
/// subscription are not seen by it.
#[async_trait]
pub trait EventBus: Send + Sync + fmt::Debug {
    /// Publishes events in order and waits for blocking subscribers that are full.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: when dropped, some of the batch may have been published.
    ///
    /// # Errors
    ///
    /// `Timeout` when a blocking subscriber stayed full for longer than `wait`; the rest was not published.
    async fn publish(&self, events: Vec<Event>, wait: Duration) -> Result<()>;

    /// Publishes all the events, or none when a blocking subscriber has no room for them.
    ///
    /// # Errors
    ///
    /// `Full` when nothing was published.
    fn try_publish(&self, events: &[Event]) -> Result<()>;

    /// Publishes without ever waiting: a blocking subscriber that is full misses events and is told how many.
    fn publish_or_gap(&self, events: &[Event]);

    /// Subscribes from now on; dropping the subscription ends it.
    fn subscribe(&self, filter: EventFilter, options: SubscribeOptions) -> Box<dyn Subscription>;

    /// Returns what the bus has done.
    fn stats(&self) -> BusStats;
}

/// A subscriber's end of the bus.
#[async_trait]
pub trait Subscription: Send + fmt::Debug {
    /// Waits for deliveries and returns up to `max` of them, at least one; none once the bus is gone.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is taken before it returns.
    async fn recv(&mut self, max: usize) -> Vec<Delivery>;

    /// Returns what is there, up to `max`, without waiting.
    fn try_recv(&mut self, max: usize) -> Vec<Delivery>;
}

/// A bus without subscribers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullBus;

#[async_trait]
impl EventBus for NullBus {
    async fn publish(&self, _events: Vec<Event>, _wait: Duration) -> Result<()> {
        Ok(())
    }

    fn try_publish(&self, _events: &[Event]) -> Result<()> {
        Ok(())
    }

    fn publish_or_gap(&self, _events: &[Event]) {}

    fn subscribe(&self, _filter: EventFilter, _options: SubscribeOptions) -> Box<dyn Subscription> {
        Box::new(NullSubscription)
    }

    fn stats(&self) -> BusStats {
        BusStats::default()
    }
}

#[derive(Debug)]
struct NullSubscription;

#[async_trait]
impl Subscription for NullSubscription {
    async fn recv(&mut self, _max: usize) -> Vec<Delivery> {
        Vec::new()
    }

    fn try_recv(&mut self, _max: usize) -> Vec<Delivery> {
        Vec::new()
    }
}

const _: fn(&dyn EventBus, &dyn Subscription) = |_, _| ();
