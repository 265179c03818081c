//! The port of the bus: the fast path by which everyone learns of what happened.
//!
//! The truth is the store's change log; a subscriber that was too slow is told what it missed and reads it there.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::event::{Event, EventKind, Keys};
use crate::id::{JobId, Name, PipelineId, Tenant};
use crate::store::Change;

/// Which events a subscriber wants. What is not set lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    kinds: Option<u16>,
    tenant: Option<Tenant>,
    queue: Option<Name>,
    pipeline: Option<PipelineId>,
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

    /// Lets the events of one queue's jobs through, and no others.
    ///
    /// Events carry no queue: it is known of those that come from [`EventBus::publish_changes`] while they happen. Of what
    /// other nodes commit to a shared store it is not; there a bus is needed that tails the change log and looks it up.
    #[must_use]
    pub fn queue(mut self, queue: Name) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Lets the events of one pipeline's steps through, and no others.
    ///
    /// Events carry no pipeline: it is known of those that come from [`EventBus::publish_changes`].
    #[must_use]
    pub fn pipeline(mut self, pipeline: PipelineId) -> Self {
        self.pipeline = Some(pipeline);
        self
    }

    /// Says whether an event passes, by what it carries itself.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.passes(&event.keys())
    }

    /// Says whether an event with these keys passes.
    #[must_use]
    pub fn passes(&self, keys: &Keys<'_>) -> bool {
        self.kinds.is_none_or(|kinds| kinds & 1 << (keys.kind as u16) != 0)
            && self.tenant.as_ref().is_none_or(|tenant| keys.tenant == Some(tenant))
            && self.queue.as_ref().is_none_or(|queue| keys.queue == Some(queue))
            && self.pipeline.is_none_or(|pipeline| keys.pipeline == Some(pipeline))
            && self
                .jobs
                .as_ref()
                .is_none_or(|jobs| keys.job.is_some_and(|job| jobs.binary_search(&job).is_ok()))
    }

    /// Says whether it names a queue.
    #[must_use]
    pub fn names_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// Returns the tenant that it names.
    #[must_use]
    pub fn tenant_named(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// Returns the kinds that it names: bit n stands for the kind of that number.
    #[must_use]
    pub fn kinds(&self) -> Option<u16> {
        self.kinds
    }

    /// Says whether everything passes.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the narrowest thing that it names, for a bus that finds its subscribers by it.
    #[must_use]
    pub fn narrowest(&self) -> Narrowest<'_> {
        if let Some(jobs) = &self.jobs {
            Narrowest::Jobs(jobs)
        } else if let Some(pipeline) = self.pipeline {
            Narrowest::Pipeline(pipeline)
        } else if let Some(queue) = &self.queue {
            Narrowest::Queue(queue)
        } else if let Some(tenant) = &self.tenant {
            Narrowest::Tenant(tenant)
        } else if let Some(kinds) = self.kinds {
            Narrowest::Kinds(kinds)
        } else {
            Narrowest::All
        }
    }
}

/// The narrowest thing that a filter names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrowest<'a> {
    /// These jobs.
    Jobs(&'a [JobId]),
    /// The steps of this pipeline.
    Pipeline(PipelineId),
    /// The jobs of this queue, whoever they belong to.
    Queue(&'a Name),
    /// This tenant's events.
    Tenant(&'a Tenant),
    /// These kinds: bit n stands for the kind of that number.
    Kinds(u16),
    /// Nothing: everything passes.
    All,
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
    /// [`EventBus::publish`] and [`EventBus::try_publish`] fail with `Full` as long as it is full;
    /// [`EventBus::publish_or_gap`] leaves a gap.
    Fail,
}

/// How to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// How long publishers have waited for room, all together.
    pub blocked: Duration,
}

/// What one subscription has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionStats {
    /// Events it has taken.
    pub delivered: u64,
    /// Events it missed and was told of.
    pub missed: u64,
    /// Events that wait for it.
    pub depth: u64,
    /// How long publishers have waited for it.
    pub blocked: Duration,
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
    /// `Timeout` when a blocking subscriber stayed full for longer than `wait`, `Full` when one that makes publishers
    /// fail is full; the rest was not published.
    async fn publish(&self, events: Vec<Event>, wait: Duration) -> Result<()>;

    /// As [`EventBus::publish`], but takes out of `events` what it has published and leaves the rest there.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: when dropped, what is left in `events` was not published.
    ///
    /// # Errors
    ///
    /// `Timeout` when a blocking subscriber stayed full for longer than `wait`, `Full` when one that makes publishers
    /// fail is full.
    async fn publish_from(&self, events: &mut Vec<Event>, wait: Duration) -> Result<()>;

    /// Publishes all the events, or none when a blocking subscriber has no room for them.
    ///
    /// # Errors
    ///
    /// `Full` when nothing was published.
    fn try_publish(&self, events: &[Event]) -> Result<()>;

    /// Publishes without ever waiting: a blocking subscriber that is full misses events and is told how many.
    fn publish_or_gap(&self, events: &[Event]);

    /// Publishes transitions that a store has committed, as [`EventBus::publish_or_gap`] does. A change knows its pipeline
    /// and, as it happens, its queue, so filters by them see it.
    fn publish_changes(&self, changes: &[Change]);

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
    async fn recv(&mut self, max: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        poll_fn(|context| self.poll_recv(context, &mut taken, max)).await;
        taken
    }

    /// As [`Subscription::recv`], but puts the deliveries behind those in `into` and returns how many they are; 0 once
    /// the bus is gone or the subscription was disconnected. Nothing is taken when it is pending.
    ///
    /// # Performance
    ///
    /// Allocates nothing once `into` has room for `max`.
    fn poll_recv(&mut self, context: &mut Context<'_>, into: &mut Vec<Delivery>, max: usize) -> Poll<usize>;

    /// Returns what is there, up to `max`, without waiting.
    fn try_recv(&mut self, max: usize) -> Vec<Delivery>;

    /// Returns what it has done so far.
    fn stats(&self) -> SubscriptionStats;
}

/// A bus without subscribers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullBus;

#[async_trait]
impl EventBus for NullBus {
    async fn publish(&self, _events: Vec<Event>, _wait: Duration) -> Result<()> {
        Ok(())
    }

    async fn publish_from(&self, events: &mut Vec<Event>, _wait: Duration) -> Result<()> {
        events.clear();
        Ok(())
    }

    fn try_publish(&self, _events: &[Event]) -> Result<()> {
        Ok(())
    }

    fn publish_or_gap(&self, _events: &[Event]) {}

    fn publish_changes(&self, _changes: &[Change]) {}

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
    fn poll_recv(&mut self, _: &mut Context<'_>, _: &mut Vec<Delivery>, _: usize) -> Poll<usize> {
        Poll::Ready(0)
    }

    fn try_recv(&mut self, _max: usize) -> Vec<Delivery> {
        Vec::new()
    }

    fn stats(&self) -> SubscriptionStats {
        SubscriptionStats::default()
    }
}

const _: fn(&dyn EventBus, &dyn Subscription) = |_, _| ();
