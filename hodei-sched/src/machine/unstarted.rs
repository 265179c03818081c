//! What was claimed and has no slot: it goes back to the store, where another node may take it.
//!
//! More is claimed than there is room for, since slots come free while the store answers. When runs become longer, or ask for more
//! than was known when they were claimed, what was claimed ahead would wait here however many slots are free elsewhere.

use hodei_core::Timestamp;
use hodei_core::job::Priority;

use super::buffer::Waiting;
use super::placement::Room;
use super::scheduler::Scheduler;
use crate::queue::ClassId;

/// How fast what waits here is handed out.
#[derive(Debug)]
pub(super) struct Pace {
    /// Since when it is counted; nothing waited just before.
    since: Timestamp,
    /// How many jobs were handed out since.
    begun: usize,
}

impl Pace {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { since: now, begun: 0 }
    }

    /// A job that waited has been handed out.
    pub(super) fn begins(&mut self) {
        self.begun += 1;
    }
}

impl Scheduler {
    /// When what waits here is looked through for what has waited for too long.
    pub(super) fn unstarted_at(&self) -> Option<Timestamp> {
        let waits = !self.buffer.is_empty() && self.failures == 0;
        waits.then(|| self.pace.since.saturating_add(self.config.claim_wait))
    }

    /// Gives back what has waited for [`claim_wait`](super::SchedulerConfig::claim_wait), but for as many jobs as were handed out
    /// in that time: so many will be in the next, too. The least urgent go first, and of those the newest.
    pub(super) fn return_unstarted(&mut self, now: Timestamp) {
        if self.buffer.is_empty() || self.failures > 0 {
            self.pace = Pace::new(now);
            return;
        }
        if self.unstarted_at().is_none_or(|at| now < at) {
            return;
        }
        let begun = std::mem::replace(&mut self.pace, Pace::new(now)).begun;
        let Some(more) = self.buffer.len().checked_sub(begun).filter(|more| *more > 0) else { return };
        // For one of these room is being made, and it would be claimed again at once.
        let makes_room = self.config.preempt.is_some() || self.fleet.open_slots() > 0;
        let spared = self.fleet.held().map(|(class, _)| class).filter(|_| makes_room);
        let wait = self.config.claim_wait;
        let old = |waiting: &Waiting| waiting.came.saturating_add(wait) <= now;
        let returned = self.buffer.take_least(more, old, spared);
        if returned.is_empty() {
            return;
        }
        // As much is claimed ahead as has begun lately, not as ended before.
        self.ended_lately = self.ended_lately.min(u32::try_from(begun / 2).unwrap_or(u32::MAX));
        self.return_all(returned);
    }

    /// Gives back what wants more than was known when it was claimed, and so finds no room: but for one of each class, and for
    /// what is claimed ahead.
    pub(super) fn return_roomless(&mut self) {
        let larger = self.memory.take_larger();
        if larger.is_empty() {
            return;
        }
        let mut waiting: Vec<(ClassId, u32, Priority)> = self.buffer.waiting().collect();
        waiting.sort_unstable_by_key(|(_, _, level)| std::cmp::Reverse(*level));
        let mut room = Room::of(&self.fleet);
        let mut ahead = self.ahead();
        let mut more: Vec<(ClassId, u32)> = larger.into_iter().map(|class| (class, 0)).collect();
        for (class, n, level) in waiting {
            let left = n - room.take(class, level, n);
            let stays = left.min(ahead);
            ahead -= stays;
            if let Some((_, more)) = more.iter_mut().find(|(of, _)| *of == class) {
                *more += left - stays;
            }
        }
        for (class, more) in more {
            let returned =
                self.buffer.take_least(more as usize, |waiting| waiting.class == class, Some(class));
            self.return_all(returned);
        }
    }

    fn return_all(&mut self, returned: Vec<Waiting>) {
        for waiting in returned {
            self.fleet.discount(waiting.class);
            self.give_back(&waiting.claimed.job);
        }
    }
}
