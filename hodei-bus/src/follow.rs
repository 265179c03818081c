//! A stream of events without gaps: the transitions from the change log, and the bus to say when to look there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::Result;
use hodei_core::bus::{Delivery, EventBus, EventFilter, Overflow, SubscribeOptions, Subscription};
use hodei_core::event::Event;
use hodei_core::store::{Cursor, JobStore, Scope};
use tokio::time::{Instant, sleep_until};

/// How many events may wait on the bus: all of them are but one sign to look at the log.
const CAPACITY: usize = 1_024;
/// How many changes are read at once.
const PAGE: usize = 512;
/// How soon it looks at the log again after a sign: what the bus has told may become readable a moment later.
const SOON: Duration = Duration::from_millis(1);

/// Every transition of a scope once, in the order of the change log, however slow the reader is.
///
/// Transitions are taken from the log alone, from a cursor on: the bus only says when there may be more. So it does not matter
/// in which order the bus tells of the commits of several nodes, what it drops, and what it never hears. After a sign, or when
/// there was none for a while, it looks at the log: at first again after a millisecond, then ever less often, since a
/// transition that is on the bus already may not be readable yet. Nobody waits for a follower.
///
/// Progress and workers are in no log: their events come from the bus while they are live, after the transitions that were
/// committed before them, and are missed when they are not.
///
/// It is as complete as the log: where a store records ends alone, it follows ends alone.
#[derive(Debug)]
pub struct Follow {
    store: Arc<dyn JobStore>,
    scope: Scope,
    live: Box<dyn Subscription>,
    /// What the bus had beside transitions, to be returned when the log was read.
    held: VecDeque<Event>,
    /// Everything before it was returned.
    place: Option<Cursor>,
    /// Whether the log may have more.
    behind: bool,
    /// Whether the bus is gone.
    over: bool,
    every: Duration,
    /// How long it waits before it looks again, and until when.
    pause: Duration,
    again: Instant,
}

impl Follow {
    /// Follows a scope from a cursor on that was kept from before, or from the oldest change that is kept.
    ///
    /// Must be called within a tokio runtime that has timers.
    #[must_use]
    pub fn new(bus: &dyn EventBus, store: Arc<dyn JobStore>, scope: Scope, after: Option<Cursor>) -> Self {
        let filter = match &scope {
            Scope::Tenant(tenant) => EventFilter::all().tenant(tenant.clone()),
            Scope::All => EventFilter::all(),
        };
        let options = SubscribeOptions { overflow: Overflow::DropOldest, capacity: CAPACITY };
        Self {
            store,
            scope,
            live: bus.subscribe(filter, options),
            held: VecDeque::new(),
            place: after,
            behind: true,
            over: false,
            every: Duration::from_secs(1),
            pause: SOON,
            again: Instant::now(),
        }
    }

    /// Sets how often it looks at the log without a sign, for commits that the bus never hears of. Default: 1 s.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = interval.max(SOON);
        self
    }

    /// Waits for events and returns up to `max`, at least one; none once the bus is gone and everything was returned.
    ///
    /// # Errors
    ///
    /// `CursorExpired` when retention has removed what would follow: begin anew, and look at the jobs themselves. Else
    /// what the store says; the next call tries again.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the place moves on only when events are returned.
    pub async fn next(&mut self, max: usize) -> Result<Vec<Event>> {
        let max = max.clamp(1, PAGE);
        loop {
            if self.behind {
                let events = self.read(max).await?;
                if !events.is_empty() {
                    return Ok(events);
                }
            } else if !self.held.is_empty() {
                let n = max.min(self.held.len());
                return Ok(self.held.drain(..n).collect());
            } else if self.over {
                return Ok(Vec::new());
            } else {
                self.listen().await;
            }
        }
    }

    /// Returns the place from which another one goes on without a gap or a repetition of transitions; nothing before any was
    /// read from the oldest on.
    #[must_use]
    pub fn cursor(&self) -> Option<&Cursor> {
        self.place.as_ref()
    }

    /// Reads on in the log.
    async fn read(&mut self, max: usize) -> Result<Vec<Event>> {
        let page = self.store.changes(&self.scope, self.place.clone(), max).await?;
        // A page may be empty without being the last; the last gives its own cursor back.
        self.behind = !page.changes.is_empty() || self.place.as_ref() != Some(&page.next);
        self.place = Some(page.next);
        Ok(page.changes.iter().map(Event::from).collect())
    }

    /// Waits for the bus, or for the time to look again without it.
    async fn listen(&mut self) {
        tokio::select! {
            deliveries = self.live.recv(CAPACITY) => {
                self.over = deliveries.is_empty();
                let mut told = self.over;
                for delivery in deliveries {
                    match delivery {
                        Delivery::Event(Event::Job(_)) => told = true,
                        Delivery::Event(other) => self.held.push_back(other),
                        Delivery::Lagged { .. } | Delivery::Disconnected { .. } => told = true,
                    }
                }
                if told {
                    self.behind = true;
                    self.pause = SOON;
                    self.again = Instant::now() + self.pause;
                }
            }
            () = sleep_until(self.again) => {
                self.behind = true;
                self.pause = self.every.min(self.pause * 2);
                self.again = Instant::now() + self.pause;
            }
        }
    }
}
