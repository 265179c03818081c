//! A stream of events without gaps: live from the bus, and from the change log whenever the bus has missed something.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use hodei_core::bus::{Delivery, EventBus, EventFilter, Overflow, SubscribeOptions, Subscription};
use hodei_core::event::Event;
use hodei_core::store::{Change, Cursor, JobStore, Scope};
use hodei_core::{JobId, Result};

/// How many events may wait on the bus before the log takes over.
const CAPACITY: usize = 1_024;
/// After how many events the place in the log is brought up. No less than `CAPACITY`: see [`Seen`].
const STRIDE: usize = 4 * CAPACITY;
/// How many changes are read at once.
const PAGE: usize = 512;

/// Every transition of a scope once, each job's in the order of its versions, however slow the reader is.
///
/// It begins in the change log at a cursor and goes over to the bus when it has caught up. When the bus tells of a gap, or a
/// version is missing, it reads on in the log from the last place that it is sure of, leaves out what it has returned
/// already, and goes back to the bus. So nobody waits for it, and it waits for the log only when it was slow.
///
/// Progress and workers are in no log: their events come while they are live and are missed when they are not.
///
/// It is only as complete as the log: where a store records ends alone, nothing else is read back.
#[derive(Debug)]
pub struct Follow {
    store: Arc<dyn JobStore>,
    scope: Scope,
    live: Box<dyn Subscription>,
    /// What came from the bus and is to be returned after what the log has first.
    held: VecDeque<Delivery>,
    /// Everything before it was returned, and what was returned from it on is in `seen`.
    place: Option<Cursor>,
    seen: Seen,
    /// Whether it reads the log just now.
    behind: bool,
    /// Whether the log was read to its end since the last event of a job came from the bus: a version that is missing now is
    /// not in the log.
    read_up: bool,
}

/// The last version returned of each job, as far back as it matters: two spans of at least `STRIDE` returned events.
///
/// What comes from the bus a second time, after the log, was waiting there when the log ended, so it is among the last
/// `CAPACITY` events that the log had.
#[derive(Debug, Default)]
struct Seen {
    now: HashMap<JobId, u32>,
    before: HashMap<JobId, u32>,
    count: usize,
}

impl Seen {
    fn version(&self, job: JobId) -> Option<u32> {
        self.now.get(&job).or_else(|| self.before.get(&job)).copied()
    }

    fn covers(&self, change: &Change) -> bool {
        self.version(change.job).is_some_and(|version| version >= change.version)
    }

    fn note(&mut self, job: JobId, version: u32) {
        self.now.insert(job, version);
        self.count += 1;
    }

    fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
        self.count = 0;
    }
}

impl Follow {
    /// Follows a scope from a cursor on that was kept from before, or from the oldest change that is kept.
    ///
    /// The bus must carry what this store commits.
    #[must_use]
    pub fn new(bus: &dyn EventBus, store: Arc<dyn JobStore>, scope: Scope, after: Option<Cursor>) -> Self {
        let filter = match &scope {
            Scope::Tenant(tenant) => EventFilter::all().tenant(tenant.clone()),
            Scope::All => EventFilter::all(),
        };
        // Before the log is read: what comes in between is in both.
        let options = SubscribeOptions { overflow: Overflow::DropOldest, capacity: CAPACITY };
        let live = bus.subscribe(filter, options);
        let (held, seen) = (VecDeque::new(), Seen::default());
        Self { store, scope, live, held, place: after, seen, behind: true, read_up: false }
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
                continue;
            }
            if self.seen.count >= STRIDE {
                self.settle().await?;
                if self.behind {
                    continue;
                }
                self.seen.turn();
            }
            if self.held.is_empty() {
                self.held.extend(self.live.recv(max).await);
                if self.held.is_empty() {
                    return Ok(Vec::new());
                }
            }
            let events = self.hear(max);
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// Returns the place from which another one goes on without a gap or a repetition.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn cursor(&mut self) -> Result<Option<Cursor>> {
        self.settle().await?;
        Ok(self.place.clone())
    }

    /// Reads the log, leaving out what was returned already.
    async fn read(&mut self, max: usize) -> Result<Vec<Event>> {
        let page = self.store.changes(&self.scope, self.place.clone(), max).await?;
        // A page may be empty without being the last; the last gives its own cursor back.
        if page.changes.is_empty() && self.place.as_ref() == Some(&page.next) {
            (self.behind, self.read_up) = (false, true);
            return Ok(Vec::new());
        }
        self.place = Some(page.next);
        let mut events = Vec::with_capacity(page.changes.len());
        for change in &page.changes {
            if !self.seen.covers(change) {
                self.seen.note(change.job, change.version);
                events.push(Event::from(change));
            }
        }
        if self.seen.count >= STRIDE {
            self.seen.turn();
        }
        Ok(events)
    }

    /// Takes what came from the bus, up to a gap.
    fn hear(&mut self, max: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < max {
            let Some(delivery) = self.held.pop_front() else { break };
            match delivery {
                Delivery::Event(Event::Job(event)) => {
                    let known = self.seen.version(event.job);
                    if known.is_some_and(|version| version >= event.version) {
                        continue;
                    }
                    let gap = known.is_some_and(|version| version + 1 != event.version);
                    if gap && !self.read_up {
                        // The log first, then this once more.
                        self.held.push_front(Delivery::Event(Event::Job(event)));
                        self.behind = true;
                        break;
                    }
                    self.read_up = false;
                    self.seen.note(event.job, event.version);
                    events.push(Event::Job(event));
                }
                Delivery::Event(other) => events.push(other),
                Delivery::Lagged { .. } | Delivery::Disconnected { .. } => {
                    self.behind = true;
                    break;
                }
            }
        }
        events
    }

    /// Moves the place up to where everything was returned.
    async fn settle(&mut self) -> Result<()> {
        let mut limit = PAGE;
        loop {
            let page = self.store.changes(&self.scope, self.place.clone(), limit).await?;
            let returned = page.changes.iter().take_while(|change| self.seen.covers(change)).count();
            let end = page.changes.is_empty() && self.place.as_ref() == Some(&page.next);
            if returned == page.changes.len() {
                self.place = Some(page.next);
                if end {
                    return Ok(());
                }
            } else if page.changes[returned..].iter().any(|change| self.seen.covers(change)) {
                // The bus has left one out and told a later one: it is read back.
                self.behind = true;
                return Ok(());
            } else if returned == 0 {
                return Ok(());
            } else {
                limit = returned;
            }
        }
    }
}
