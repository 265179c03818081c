//! The bus: publishers on one side, mailboxes on the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use event_listener::Event as Bell;
use hodei_core::bus::{BusStats, EventBus, EventFilter, SubscribeOptions, Subscription};
use hodei_core::event::Event;
use hodei_core::{Error, ErrorKind, Result};

use crate::mailbox::Mailbox;
use crate::subscriber::Subscriber;

/// An event bus within one process. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Bus(Arc<Shared>);

/// What the bus and its subscribers share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// One std mutex over all mailboxes, held for a batch: it is what keeps the order of each publisher, and of all
    /// of them, the same for everyone.
    boxes: Mutex<Boxes>,
    /// Rung when a mailbox that blocked has room again.
    pub(crate) room: Bell,
}

#[derive(Debug, Default)]
pub(crate) struct Boxes {
    next: u64,
    pub(crate) open: BTreeMap<u64, (Mailbox, Arc<Bell>)>,
    pub(crate) stats: BusStats,
}

impl Shared {
    pub(crate) fn boxes(&self) -> MutexGuard<'_, Boxes> {
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bus {
    /// Makes a bus without subscribers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Boxes {
    /// Whether some subscriber has no room for all the events that it wants.
    fn blocked(&self, events: &[Event]) -> bool {
        self.open.values().any(|(mailbox, _)| {
            mailbox.blocks(0) || mailbox.blocks(events.iter().filter(|event| mailbox.wants(event)).count())
        })
    }

    /// How many of the events every blocking subscriber has room for.
    fn fitting(&self, events: &[Event]) -> usize {
        let fits = |mailbox: &Mailbox| {
            let mut wanted = 0;
            let full = events.iter().position(|event| {
                wanted += usize::from(mailbox.wants(event));
                mailbox.blocks(wanted)
            });
            full.unwrap_or(events.len())
        };
        self.open.values().map(|(mailbox, _)| fits(mailbox)).min().unwrap_or(events.len())
    }

    fn deliver(&mut self, events: &[Event]) {
        self.stats.published += events.len() as u64;
        for (mailbox, bell) in self.open.values_mut() {
            let was_empty = mailbox.is_empty();
            for event in events.iter() {
                if mailbox.wants(event) {
                    self.stats.missed += mailbox.push(event);
                }
            }
            if was_empty && !mailbox.is_empty() {
                bell.notify(usize::MAX);
            }
        }
    }
}

#[async_trait]
impl EventBus for Bus {
    async fn publish(&self, events: Vec<Event>, wait: Duration) -> Result<()> {
        let mut rest = &events[..];
        let deadline = tokio::time::Instant::now() + wait;
        while !rest.is_empty() {
            let room = self.0.room.listen();
            let fitting = {
                let mut boxes = self.0.boxes();
                let fitting = boxes.fitting(rest);
                boxes.deliver(&rest[..fitting]);
                fitting
            };
            rest = &rest[fitting..];
            if !rest.is_empty() && fitting == 0 && tokio::time::timeout_at(deadline, room).await.is_err() {
                return Err(Error::new(ErrorKind::Timeout, "bus.publish").with("unpublished", rest.len()));
            }
        }
        Ok(())
    }

    fn try_publish(&self, events: &[Event]) -> Result<()> {
        let mut boxes = self.0.boxes();
        if boxes.blocked(events) {
            return Err(Error::new(ErrorKind::Full, "bus.try_publish"));
        }
        boxes.deliver(events);
        Ok(())
    }

    fn publish_or_gap(&self, events: &[Event]) {
        self.0.boxes().deliver(events);
    }

    fn subscribe(&self, filter: EventFilter, options: SubscribeOptions) -> Box<dyn Subscription> {
        let mailbox = Mailbox::new(filter, options.overflow, options.capacity);
        let bell = Arc::new(Bell::new());
        let mut boxes = self.0.boxes();
        boxes.next += 1;
        let id = boxes.next;
        boxes.open.insert(id, (mailbox, Arc::clone(&bell)));
        drop(boxes);
        Box::new(Subscriber::new(id, Arc::downgrade(&self.0), bell))
    }

    fn stats(&self) -> BusStats {
        let boxes = self.0.boxes();
        BusStats { subscribers: boxes.open.len() as u64, ..boxes.stats }
    }
}

impl Drop for Shared {
    /// Whoever waits for events learns that none will come.
    fn drop(&mut self) {
        let boxes = self.boxes.get_mut().unwrap_or_else(PoisonError::into_inner);
        boxes.open.values().for_each(|(_, bell)| {
            bell.notify(usize::MAX);
        });
    }
}
