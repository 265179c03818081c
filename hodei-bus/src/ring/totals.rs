//! What a ring has done, counted where it costs its publishers and readers nothing.

use tokio::task::coop::consume_budget;

use crate::sync::{AtomicU64, Ordering, Padded};

/// How many counters readers share; two that share one may pass its cache line to and fro.
const STRIPES: usize = 8;

/// After how many events a publisher that always finds room takes from the budget of its task: a power of two.
const TURN: u64 = 256;

/// The sums over all subscribers, also those that are gone.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Events published, be they stored or not. Written under the lock of the publishers.
    published: Padded<AtomicU64>,
    /// Events taken, told by each reader in steps.
    taken: [Padded<AtomicU64>; STRIPES],
    missed: AtomicU64,
    subscribers: AtomicU64,
}

/// The sums at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) published: u64,
    pub(crate) taken: u64,
    pub(crate) missed: u64,
    pub(crate) subscribers: u64,
}

impl Totals {
    /// Counts events. Only under the lock of the publishers: nobody else writes meanwhile.
    #[inline]
    pub(crate) fn published(&self, events: u64) {
        let published = self.published.load(Ordering::Relaxed);
        self.published.store(published + events, Ordering::Relaxed);
    }

    /// Lets other tasks run now and then: who always finds room never waits. Only before something is published, so that who
    /// is dropped meanwhile has published nothing.
    #[inline]
    pub(crate) async fn give_way(&self) {
        if self.published.load(Ordering::Relaxed).is_multiple_of(TURN) {
            consume_budget().await;
        }
    }

    /// Counts events that the reader of a ticket has taken.
    pub(crate) fn taken(&self, ticket: u64, events: u64) {
        let stripe = usize::try_from(ticket % STRIPES as u64).unwrap_or(0);
        self.taken[stripe].fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn missed(&self, events: u64) {
        self.missed.fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn joined(&self) {
        self.subscribers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn parted(&self) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn sums(&self) -> Sums {
        Sums {
            published: self.published.load(Ordering::Relaxed),
            taken: self.taken.iter().map(|stripe| stripe.load(Ordering::Relaxed)).sum(),
            missed: self.missed.load(Ordering::Relaxed),
            subscribers: self.subscribers.load(Ordering::Relaxed),
        }
    }
}
