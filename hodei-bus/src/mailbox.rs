//! What waits for one subscriber that does not read the ring, and what happens when it is full.
//!
//! Who hears only some events has a queue of its own: on the ring it would have to step over everything else, and
//! publishers would wait for it to do so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use hodei_core::bus::{Delivery, Overflow, SubscriptionStats};
use hodei_core::event::Event;

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
    waiting: VecDeque<Delivery>,
    /// How many of `waiting` are events.
    events: usize,
    cut_off: bool,
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
    /// Whether there is room again for a publisher that found none.
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

    /// Adds a wanted event, or does what the policy says. Returns how many events were missed by it, and whom to wake.
    pub(crate) fn push(&self, event: Event) -> (u64, Option<Waker>) {
        let mut inside = self.inside();
        if inside.cut_off {
            return (0, None);
        }
        let missed = if inside.events < self.capacity {
            inside.push(event);
            0
        } else {
            match self.overflow {
                Overflow::DropOldest => {
                    inside.drop_oldest();
                    inside.push(event);
                }
                Overflow::Block | Overflow::Fail | Overflow::DropNewest => inside.gap_at_the_end(),
                Overflow::Disconnect => {
                    inside.waiting.push_back(Delivery::Disconnected { missed: 1 });
                    inside.cut_off = true;
                }
            }
            1
        };
        inside.stats.missed += missed;
        (missed, inside.sleeper.take())
    }

    /// Moves up to `max` deliveries behind those in `into`; with a waker, leaves it there when there are none.
    pub(crate) fn take(&self, into: &mut Vec<Delivery>, max: usize, waker: Option<&Waker>) -> Taken {
        let mut inside = self.inside();
        let before = inside.events;
        let count = max.max(1).min(inside.waiting.len());
        let from = into.len();
        into.extend(inside.waiting.drain(..count));
        let events = into[from..].iter().filter(|delivery| matches!(delivery, Delivery::Event(_))).count();
        inside.events -= events;
        inside.stats.delivered += events as u64;
        let sleeper = if count == 0 { waker.cloned() } else { None };
        let old = std::mem::replace(&mut inside.sleeper, sleeper);
        let blocks = self.room_is_asked_for();
        // In steps: each one lets publishers that wait run for a while.
        let line = self.capacity - (self.capacity / 4).max(1);
        let freed = blocks && events > 0 && (inside.events == 0 || before > line && inside.events <= line);
        let over = count == 0 && (inside.closed || inside.cut_off);
        drop(inside);
        // Outside the lock: with the last waker of a task goes the task, whatever it holds.
        drop(old);
        Taken { count, events, freed, over }
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

    /// Wakes whoever sleeps, for no delivery.
    #[cfg(feature = "nats")]
    pub(crate) fn rouse(&self) {
        let sleeper = self.inside().sleeper.take();
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
    fn push(&mut self, event: Event) {
        self.waiting.push_back(Delivery::Event(event));
        self.events += 1;
    }

    /// Drops the oldest event and counts it in a gap where it was.
    fn drop_oldest(&mut self) {
        let missed = match self.waiting.pop_front() {
            Some(Delivery::Lagged { missed }) => {
                self.waiting.pop_front();
                missed + 1
            }
            _ => 1,
        };
        self.events -= 1;
        self.waiting.push_front(Delivery::Lagged { missed });
    }

    fn gap_at_the_end(&mut self) {
        if let Some(Delivery::Lagged { missed }) = self.waiting.back_mut() {
            *missed += 1;
        } else {
            self.waiting.push_back(Delivery::Lagged { missed: 1 });
        }
    }
}
