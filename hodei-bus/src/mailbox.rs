//! What waits for one subscriber that does not read the ring, and what happens when it is full.
//!
//! Who hears only some events has a queue of its own: on the ring it would have to step over everything else, and
//! publishers would wait for it to do so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use hodei_core::bus::{Delivery, Overflow, SubscribeOptions, SubscriptionStats};
use hodei_core::event::Event;

use crate::ring::How;

/// The deliveries that wait for one subscriber.
#[derive(Debug)]
pub(crate) struct Mailbox {
    overflow: Overflow,
    capacity: usize,
    /// A std mutex, held for a push or for taking what is there.
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    /// What waits, each with its number on the bus.
    waiting: VecDeque<(u64, Delivery)>,
    /// How many of `waiting` are events.
    events: usize,
    /// It was too slow; so many events were missed since.
    cut_off: Option<u64>,
    /// It was full, and has not read on since.
    overrun: bool,
    closed: bool,
    sleeper: Option<Waker>,
    stats: SubscriptionStats,
}

/// What was taken out of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Deliveries.
    pub(crate) count: usize,
    /// How many of them are events.
    pub(crate) events: usize,
    /// Whether a publisher may have waited for it.
    pub(crate) freed: bool,
    /// Whether nothing will come any more.
    pub(crate) over: bool,
}

impl Mailbox {
    pub(crate) fn new(overflow: Overflow, capacity: usize) -> Arc<Self> {
        Arc::new(Self { overflow, capacity: capacity.max(1), inside: Mutex::default() })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many more events publishers may bring; any number when they need not ask.
    pub(crate) fn room(&self) -> usize {
        if self.room_is_asked_for() { self.capacity.saturating_sub(self.inside().events) } else { usize::MAX }
    }

    pub(crate) fn makes_fail(&self) -> bool {
        self.overflow == Overflow::Fail
    }

    /// Says whether it holds up what is published like this.
    pub(crate) fn holds_up(&self, how: How) -> bool {
        match how {
            How::Part | How::Whole => self.room_is_asked_for(),
            // Who was waited for in vain and has not read on is not waited for again.
            How::Relay(_) => self.overflow == Overflow::Block && !self.inside().overrun,
            How::Force => false,
        }
    }

    pub(crate) fn options(&self) -> SubscribeOptions {
        SubscribeOptions { overflow: self.overflow, capacity: self.capacity }
    }

    /// Adds a wanted event, or does what the policy says. Returns how many events were missed by it, and whom to wake.
    pub(crate) fn push(&self, number: u64, event: Event) -> (u64, Option<Waker>) {
        let mut inside = self.inside();
        let missed = if let Some(missed) = &mut inside.cut_off {
            *missed += 1;
            1
        } else if inside.events < self.capacity {
            inside.push(number, event);
            0
        } else {
            match self.overflow {
                Overflow::DropOldest => {
                    inside.drop_oldest();
                    inside.push(number, event);
                }
                Overflow::Block | Overflow::Fail | Overflow::DropNewest => {
                    inside.overrun = true;
                    inside.gap_at_the_end(number, 1);
                }
                Overflow::Disconnect => inside.cut_off = Some(1),
            }
            1
        };
        inside.stats.missed += missed;
        (missed, inside.sleeper.take())
    }

    /// Adds a gap of events that were missed elsewhere, and returns whom to wake.
    pub(crate) fn gap(&self, number: u64, missed: u64) -> Option<Waker> {
        let mut inside = self.inside();
        inside.stats.missed += missed;
        match &mut inside.cut_off {
            Some(all) => *all += missed,
            None => inside.gap_at_the_end(number, missed),
        }
        inside.sleeper.take()
    }

    /// Moves up to `max` deliveries behind those in `into`; with a waker, leaves it there when there are none.
    pub(crate) fn take(&self, into: &mut Vec<Delivery>, max: usize, waker: Option<&Waker>) -> Taken {
        let mut inside = self.inside();
        let before = inside.events;
        let mut count = max.max(1).min(inside.waiting.len());
        let from = into.len();
        into.extend(inside.waiting.drain(..count).map(|(_, delivery)| delivery));
        let events = into[from..].iter().filter(|delivery| matches!(delivery, Delivery::Event(_))).count();
        inside.events -= events;
        inside.overrun &= events == 0;
        inside.stats.delivered += events as u64;
        if let Some(missed) = inside.cut_off
            && !inside.closed
            && inside.waiting.is_empty()
            && count < max.max(1)
        {
            into.push(Delivery::Disconnected { missed });
            inside.closed = true;
            count += 1;
        }
        let sleeper = if count == 0 { waker.cloned() } else { None };
        let old = std::mem::replace(&mut inside.sleeper, sleeper);
        let freed = self.room_is_asked_for() && events > 0 && before >= self.capacity;
        let over = count == 0 && inside.closed;
        drop(inside);
        // Outside the lock: with the last waker of a task goes the task, whatever it holds.
        drop(old);
        Taken { count, events, freed, over }
    }

    /// Returns the number of the oldest that waits.
    #[cfg(feature = "nats")]
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.inside().waiting.front().map(|(number, _)| *number)
    }

    fn room_is_asked_for(&self) -> bool {
        matches!(self.overflow, Overflow::Block | Overflow::Fail)
    }

    /// Nothing will come any more.
    pub(crate) fn close(&self) {
        let sleeper = {
            let mut inside = self.inside();
            inside.closed = true;
            inside.sleeper.take()
        };
        sleeper.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn blocked(&self, time: Duration) {
        self.inside().stats.blocked += time;
    }

    pub(crate) fn stats(&self) -> SubscriptionStats {
        let inside = self.inside();
        SubscriptionStats { depth: inside.events as u64, ..inside.stats }
    }
}

impl Inside {
    fn push(&mut self, number: u64, event: Event) {
        self.waiting.push_back((number, Delivery::Event(event)));
        self.events += 1;
    }

    /// Drops the oldest event and counts it in a gap where it was.
    fn drop_oldest(&mut self) {
        let mut all = 1;
        // Gaps before it become one with it.
        let number = loop {
            match self.waiting.pop_front() {
                Some((_, Delivery::Lagged { missed })) => all += missed,
                Some((number, _)) => break number,
                None => return,
            }
        };
        self.events -= 1;
        self.waiting.push_front((number, Delivery::Lagged { missed: all }));
    }

    fn gap_at_the_end(&mut self, number: u64, more: u64) {
        if let Some((_, Delivery::Lagged { missed })) = self.waiting.back_mut() {
            *missed += more;
        } else {
            self.waiting.push_back((number, Delivery::Lagged { missed: more }));
        }
    }
}
