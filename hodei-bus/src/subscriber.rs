//! A subscriber's end of the bus.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use event_listener::Event as Bell;
use hodei_core::bus::{Delivery, Subscription};

use crate::bus::Shared;

/// Takes deliveries out of its mailbox; dropping it takes the mailbox off the bus.
#[derive(Debug)]
pub(crate) struct Subscriber {
    id: u64,
    bus: Weak<Shared>,
    bell: Arc<Bell>,
}

impl Subscriber {
    pub(crate) fn new(id: u64, bus: Weak<Shared>, bell: Arc<Bell>) -> Self {
        Self { id, bus, bell }
    }

    /// Takes what is there; nothing at all when the bus is gone.
    fn take(&self, max: usize) -> Option<Vec<Delivery>> {
        let bus = self.bus.upgrade()?;
        let mut boxes = bus.boxes();
        let (mailbox, _) = boxes.open.get_mut(&self.id)?;
        let blocked = mailbox.blocks(1);
        let taken = mailbox.take(max.max(1));
        let freed = blocked && !mailbox.blocks(mailbox.capacity() / 4);
        let events = taken.iter().filter(|delivery| matches!(delivery, Delivery::Event(_))).count();
        boxes.stats.delivered += events as u64;
        drop(boxes);
        if freed || (blocked && !taken.is_empty()) {
            bus.room.notify(usize::MAX);
        }
        Some(taken)
    }
}

#[async_trait]
impl Subscription for Subscriber {
    async fn recv(&mut self, max: usize) -> Vec<Delivery> {
        loop {
            let rung = self.bell.listen();
            match self.take(max) {
                None => return Vec::new(),
                Some(taken) if !taken.is_empty() => return taken,
                Some(_) => rung.await,
            }
        }
    }

    fn try_recv(&mut self, max: usize) -> Vec<Delivery> {
        self.take(max).unwrap_or_default()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let Some(bus) = self.bus.upgrade() else { return };
        let mailbox = bus.boxes().open.remove(&self.id);
        // Its events are dropped outside the lock; publishers that waited for it go on.
        drop(mailbox);
        bus.room.notify(usize::MAX);
    }
}
