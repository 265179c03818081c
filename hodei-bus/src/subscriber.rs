//! A subscriber's end of the bus.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use async_trait::async_trait;
use hodei_core::bus::{Delivery, Subscription, SubscriptionStats};
use hodei_core::event::Event;
use tokio::task::coop::poll_proceed;

use crate::bus::Shared;
use crate::mailbox::Mailbox;
use crate::ring::{self, Missed};
use crate::topic::Slot;

/// Takes deliveries from the ring or out of its mailbox; dropping it takes it off the bus.
#[derive(Debug)]
pub(crate) enum Subscriber {
    Ring(Reader),
    Mailbox(Owner),
}

#[derive(Debug)]
pub(crate) struct Reader {
    of: ring::Subscriber<Event>,
    over: bool,
}

#[derive(Debug)]
pub(crate) struct Owner {
    slot: Slot,
    mailbox: Arc<Mailbox>,
    bus: Weak<Shared>,
}

impl Subscriber {
    pub(crate) fn on_ring(of: ring::Subscriber<Event>) -> Self {
        Self::Ring(Reader { of, over: false })
    }

    pub(crate) fn with_mailbox(slot: Slot, mailbox: Arc<Mailbox>, bus: Weak<Shared>) -> Self {
        Self::Mailbox(Owner { slot, mailbox, bus })
    }
}

impl Reader {
    /// Takes what is there.
    fn take(&mut self, into: &mut Vec<Delivery>, max: usize) -> usize {
        let before = into.len();
        while !self.over && into.len() - before < max.max(1) {
            let missed = match self.of.try_recv_batch(max.max(1) - (into.len() - before)) {
                Ok(Some(batch)) => {
                    into.extend(batch.iter().cloned().map(Delivery::Event));
                    continue;
                }
                Ok(None) => break,
                Err(missed) => missed,
            };
            self.miss(missed, into);
        }
        into.len() - before
    }

    fn miss(&mut self, missed: Missed, into: &mut Vec<Delivery>) {
        match missed {
            Missed::Lagged(missed) => into.push(Delivery::Lagged { missed }),
            Missed::Disconnected(missed) => {
                into.push(Delivery::Disconnected { missed });
                self.over = true;
            }
            Missed::Closed => self.over = true,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, into: &mut Vec<Delivery>, max: usize) -> Poll<usize> {
        self.of.keep_away();
        loop {
            let taken = self.take(into, max);
            if taken > 0 || self.over {
                return Poll::Ready(taken);
            }
            match self.of.poll_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(missed)) => {
                    let before = into.len();
                    self.miss(missed, into);
                    return Poll::Ready(into.len() - before);
                }
            }
        }
    }
}

impl Owner {
    fn take(&self, into: &mut Vec<Delivery>, max: usize, waker: Option<&Waker>) -> Poll<usize> {
        let taken = self.mailbox.take(into, max, waker);
        if taken.count > 0 {
            self.bus.upgrade().into_iter().for_each(|bus| bus.took(taken));
        }
        if taken.count == 0 && !taken.over { Poll::Pending } else { Poll::Ready(taken.count) }
    }
}

#[async_trait]
impl Subscription for Subscriber {
    fn poll_recv(&mut self, context: &mut Context<'_>, into: &mut Vec<Delivery>, max: usize) -> Poll<usize> {
        // Who always finds deliveries lets other tasks run as well.
        let turn = ready!(poll_proceed(context));
        let taken = match self {
            Self::Ring(reader) => reader.poll(context, into, max),
            Self::Mailbox(owner) => owner.take(into, max, Some(context.waker())),
        };
        if taken.is_ready() {
            turn.made_progress();
        }
        taken
    }

    fn try_recv(&mut self, max: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        match self {
            Self::Ring(reader) => {
                reader.take(&mut taken, max);
            }
            Self::Mailbox(owner) => {
                let _ = owner.take(&mut taken, max, None);
            }
        }
        taken
    }

    fn stats(&self) -> SubscriptionStats {
        match self {
            Self::Ring(reader) => reader.of.stats(),
            Self::Mailbox(owner) => owner.mailbox.stats(),
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.bus.upgrade().into_iter().for_each(|bus| bus.part(self.slot));
    }
}
