//! What waits for one subscriber, and what happens when it is full.

use std::collections::VecDeque;

use hodei_core::bus::{Delivery, EventFilter, Overflow};
use hodei_core::event::Event;

/// The deliveries that wait for one subscriber.
#[derive(Debug)]
pub(crate) struct Mailbox {
    filter: EventFilter,
    overflow: Overflow,
    capacity: usize,
    waiting: VecDeque<Delivery>,
    /// How many of `waiting` are events.
    events: usize,
    cut_off: bool,
}

impl Mailbox {
    pub(crate) fn new(filter: EventFilter, overflow: Overflow, capacity: usize) -> Self {
        Self {
            filter,
            overflow,
            capacity: capacity.max(1),
            waiting: VecDeque::new(),
            events: 0,
            cut_off: false,
        }
    }

    pub(crate) fn wants(&self, event: &Event) -> bool {
        !self.cut_off && self.filter.matches(event)
    }

    /// Whether a publisher has to wait before this many more wanted events.
    pub(crate) fn blocks(&self, more: usize) -> bool {
        self.overflow == Overflow::Block && !self.cut_off && self.events + more > self.capacity
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds a wanted event, or does what the policy says; returns how many events were missed by it.
    pub(crate) fn push(&mut self, event: &Event) -> u64 {
        if self.events < self.capacity {
            self.waiting.push_back(Delivery::Event(event.clone()));
            self.events += 1;
            return 0;
        }
        match self.overflow {
            Overflow::DropOldest => {
                self.drop_oldest();
                self.waiting.push_back(Delivery::Event(event.clone()));
                self.events += 1;
            }
            Overflow::Block | Overflow::DropNewest => self.gap_at_the_end(),
            Overflow::Disconnect => {
                self.waiting.push_back(Delivery::Disconnected { missed: 1 });
                self.cut_off = true;
            }
        }
        1
    }

    /// Takes up to `max` deliveries.
    pub(crate) fn take(&mut self, max: usize) -> Vec<Delivery> {
        let taken: Vec<Delivery> = self.waiting.drain(..max.min(self.waiting.len())).collect();
        self.events -= taken.iter().filter(|delivery| matches!(delivery, Delivery::Event(_))).count();
        taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
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
