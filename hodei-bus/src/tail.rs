//! The change log of a store, published: what turns the bus of a node into that of the cluster.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use hodei_core::bus::{BusStats, EventBus, EventFilter, SubscribeOptions, Subscription};
use hodei_core::event::Event;
use hodei_core::store::{Change, Consistency, Cursor, JobStore, Scope};
use hodei_core::{ErrorKind, Result};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::bus::Bus;
use crate::ring::Queues;

/// How many changes are read at once.
const PAGE: usize = 1_000;

/// How a log is tailed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailOptions {
    /// Where to begin. Default: at the end of the log.
    pub after: Option<Cursor>,
    /// After how long without a sign it looks at the log again, for commits of nodes that no wake-up tells of. Default:
    /// 100 ms.
    pub interval: Duration,
    /// How long a page waits for blocking subscribers that are full; then they get a gap. Default: 30 s.
    pub wait: Duration,
}

impl Default for TailOptions {
    fn default() -> Self {
        Self { after: None, interval: Duration::from_millis(100), wait: Duration::from_secs(30) }
    }
}

/// Publishes the change log of a store on a bus, in its order and without a gap, until it is dropped.
///
/// Hand [`Tail::bus`] to the orchestrator instead of the bus: what the node commits itself then comes from the log as well,
/// among the commits of all other nodes and in one order. Blocking subscribers hold up the tail for [`TailOptions::wait`], and no
/// store. Where retention is faster than the tail, every subscriber is told of a gap, of one event since nobody knows of how
/// many.
#[derive(Debug)]
pub struct Tail {
    bus: Tailed,
    place: watch::Receiver<Option<Cursor>>,
    task: JoinHandle<()>,
}

/// A bus whose transitions come from the log alone; what a node tells of its own commits is a sign to look there.
#[derive(Clone, Debug)]
pub struct Tailed {
    bus: Bus,
    sign: Arc<Notify>,
}

impl Tail {
    /// Begins to publish.
    ///
    /// # Errors
    ///
    /// What the store says when it is asked for the end of its log.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing has begun before it returns.
    pub async fn start(bus: Bus, store: Arc<dyn JobStore>, options: TailOptions) -> Result<Self> {
        let after = match options.after {
            Some(cursor) => cursor,
            None => store.changes_end().await?,
        };
        let sign = Arc::new(Notify::new());
        let (told, place) = watch::channel(Some(after.clone()));
        let TailOptions { interval, wait, .. } = options;
        let run = Run { bus: bus.clone(), store, sign: Arc::clone(&sign), interval, wait, told };
        let task = tokio::spawn(run.until_dropped(after));
        Ok(Self { bus: Tailed { bus, sign }, place, task })
    }

    /// Returns the bus to be given to the orchestrator of this node.
    #[must_use]
    pub fn bus(&self) -> Tailed {
        self.bus.clone()
    }

    /// Returns up to where the log has been published; nothing once retention has removed what would follow, and the tail
    /// has gone on at the end of the log.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.place.borrow().clone()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Run {
    bus: Bus,
    store: Arc<dyn JobStore>,
    sign: Arc<Notify>,
    interval: Duration,
    wait: Duration,
    told: watch::Sender<Option<Cursor>>,
}

impl Run {
    async fn until_dropped(self, mut after: Cursor) {
        let mut wakeups = self.store.wakeups();
        loop {
            match self.publish(&mut after).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::CursorExpired => {
                    // What was removed is lost to the bus.
                    self.told.send_replace(None);
                    if let Ok(end) = self.store.changes_end().await {
                        after = end;
                        self.bus.gap(1);
                    }
                }
                // The store is away: the log keeps what happens.
                Err(_) => {}
            }
            tokio::select! {
                () = self.sign.notified() => {}
                Some(_) = wakeups.next() => {}
                () = tokio::time::sleep(self.interval) => {}
            }
        }
    }

    /// Publishes a page; says whether there may be more.
    async fn publish(&self, after: &mut Cursor) -> Result<bool> {
        let mut page = self.store.changes(&Scope::All, Some(after.clone()), PAGE).await?;
        let more = page.next != *after;
        let unknown = page.changes.iter().any(|change| change.queue.is_none());
        let mut queues = if unknown { Queues::Unknown } else { Queues::Known };
        let mut done = 0;
        while done < page.changes.len() {
            let relayed = self.bus.relay(&page.changes[done..], queues, self.wait).await;
            done += relayed.done;
            if relayed.asks {
                self.find_queues(&mut page.changes[done..]).await;
                queues = Queues::Known;
            }
        }
        *after = page.next;
        if more {
            self.told.send_replace(Some(after.clone()));
        }
        Ok(more)
    }

    /// Looks up the queues of jobs whose changes do not tell. A job that is no longer kept has none.
    async fn find_queues(&self, changes: &mut [Change]) {
        let unknown: Vec<_> =
            changes.iter().filter(|change| change.queue.is_none()).map(|change| change.job).collect();
        // A queue never changes: any age will do.
        let jobs = loop {
            let asked = self.store.get_many(&Scope::All, unknown.clone(), Consistency::Cached(Duration::MAX));
            match asked.await {
                Ok(jobs) => break jobs,
                // The store is away: the log waits as well.
                Err(_) => tokio::time::sleep(self.interval).await,
            }
        };
        let unknown = changes.iter_mut().filter(|change| change.queue.is_none());
        for (change, job) in unknown.zip(jobs) {
            change.queue = job.map(|job| job.spec.queue().clone());
        }
    }
}

#[async_trait]
impl EventBus for Tailed {
    async fn publish(&self, events: Vec<Event>, wait: Duration) -> Result<()> {
        self.bus.publish(events, wait).await
    }

    async fn publish_from(&self, events: &mut Vec<Event>, wait: Duration) -> Result<()> {
        self.bus.publish_from(events, wait).await
    }

    fn try_publish(&self, events: &[Event]) -> Result<()> {
        self.bus.try_publish(events)
    }

    fn publish_or_gap(&self, events: &[Event]) {
        self.bus.publish_or_gap(events);
    }

    /// The log has them.
    fn publish_changes(&self, _: &[Change]) {
        self.sign.notify_one();
    }

    fn subscribe(&self, filter: EventFilter, options: SubscribeOptions) -> Box<dyn Subscription> {
        self.bus.subscribe(filter, options)
    }

    fn stats(&self) -> BusStats {
        self.bus.stats()
    }
}
