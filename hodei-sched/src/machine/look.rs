//! What the store has that is more urgent than what was claimed ahead.
//!
//! What waits here was the most urgent when it was claimed. Something more urgent may have come since: the store rings, and
//! is looked at. From then on nothing that waits here is handed out before it is known whether it still comes first, so
//! that a slot which comes free does not go to the lesser one.

use std::time::Duration;

use hodei_core::Timestamp;
use hodei_core::job::Priority;

use super::picks::Head;
use super::scheduler::Scheduler;

/// How often the store is looked at at most while jobs wait here.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// A store that does not answer for as long holds nothing up any more.
const PATIENCE: Duration = Duration::from_millis(100);
/// However long looks take, nothing is held up for more than about a ninth of the time.
const REST: u32 = 8;
/// So much of what is more urgent is claimed at least, where there is so much.
const URGENT_MIN: u64 = 16;

/// A look that what waits here waits for.
#[derive(Debug)]
pub(super) struct Look {
    /// Since when it waits.
    since: Option<Timestamp>,
    /// Until when it waits at the latest.
    until: Option<Timestamp>,
    /// Whether the store was asked for its lanes since.
    asked: bool,
    /// Nothing waits for another one before this.
    again: Timestamp,
    /// Whether there may be more that is more urgent behind what was claimed.
    goes_on: bool,
}

impl Look {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { since: None, until: None, asked: false, again: now, goes_on: false }
    }

    /// When what waits is handed out, whatever the store says.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Whether the store is asked at once.
    pub(super) fn is_pressing(&self) -> bool {
        self.goes_on || self.since.is_some()
    }

    /// What is more urgent is claimed, and the store may have more of it behind that.
    pub(super) fn goes_on(&mut self, now: Timestamp) {
        if self.since.is_none() && now >= self.again {
            (self.since, self.until) = (Some(now), Some(now.saturating_add(PATIENCE)));
        }
        (self.goes_on, self.asked) = (true, self.since.is_some());
    }

    /// The store is asked for its lanes.
    pub(super) fn asks(&mut self) {
        (self.goes_on, self.asked) = (false, self.since.is_some());
    }

    /// It is known what is more urgent, and that is here; or it cannot be known.
    pub(super) fn is_over(&mut self, now: Timestamp) {
        if let Some(since) = self.since.take() {
            let took = now.saturating_since(since);
            self.again = now.saturating_add(LOOK.max(took * REST));
        }
        (self.until, self.asked) = (None, false);
    }

    /// As [`Look::is_over`], when an exchange is over: one that was under way before says nothing.
    pub(super) fn has_claimed(&mut self, now: Timestamp) {
        if self.asked {
            self.is_over(now);
        }
    }
}

impl Scheduler {
    /// When the store is to be looked at, as things stand.
    pub(super) fn look_at(&self) -> Option<Timestamp> {
        let looks = self.lanes_stale && !self.buffer.is_empty() && !self.draining;
        looks.then(|| self.last_ask.saturating_add(LOOK))
    }

    /// Has what waits here wait for a look, where one is due.
    pub(super) fn note_look(&mut self, now: Timestamp) {
        let is_due = self.look_at().is_some_and(|at| at <= now) && now >= self.look.again;
        if is_due && self.look.since.is_none() && self.failures == 0 {
            self.look.since = Some(now);
            self.look.until = Some(now.saturating_add(PATIENCE));
        }
    }

    /// Whether what waits here is not handed out yet, because it may not come first any more. Asks the store, where it can be
    /// asked.
    pub(super) fn looks_first(&mut self, now: Timestamp) -> bool {
        if self.look.since.is_some() {
            self.ask_store(now);
        }
        self.look.until = self.look.until.filter(|until| *until > now);
        self.look.until.is_some()
    }

    /// Adds what is more urgent than what waits here, for all slots that will come free: it comes first when they do. What
    /// waits stays claimed, and comes behind it. While there is room for more, that is done only in the place of jobs that ask
    /// the same, and of those that came to a lower level where some of them, the lowest of level `stuck`, find no room: as many as
    /// there are such jobs. What has merely waited is no more urgent than they are, which wait as well.
    pub(super) fn add_urgent(&self, wanted: &mut [u32], stuck: Option<Priority>) {
        let lowest = self.buffer.waiting().map(|(_, _, level)| level).min();
        let Some(lowest) = lowest.filter(|_| !self.draining && self.arrived.is_empty()) else { return };
        let most = (u64::from(self.ahead()) + self.fleet.open_slots()).max(URGENT_MIN);
        let is_full = !self.wants_work();
        let urgent = self.heads.iter().zip(wanted).take_while(|(head, _)| head.level > lowest);
        // How many of the level that was looked at last come before, here and among what is asked for.
        let (mut at, mut here, mut asked) = (None, 0_u64, 0_u64);
        for (Head { head, class, level, .. }, wanted) in urgent {
            if at != Some(*level) {
                (at, here) = (Some(*level), self.buffer.at_least(*level));
            }
            asked += u64::from(*wanted);
            let is_before = stuck.is_some_and(|lowest| lowest < head.level);
            let instead = match (is_full, is_before) {
                (true, _) => u64::MAX,
                (false, true) => {
                    let lesser = (self.buffer.len() as u64).saturating_sub(here);
                    lesser.saturating_sub(here + asked).max(self.buffer.below(*class, *level))
                }
                (false, false) => self.buffer.below(*class, *level),
            };
            let more = head.depth.saturating_sub(u64::from(*wanted));
            let more = more.min(most.saturating_sub(here + asked)).min(instead);
            if self.fleet.is_able(*class) {
                *wanted = wanted.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
                asked += more;
            }
        }
    }
}
