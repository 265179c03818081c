//! What a ring has done, counted where it costs its publishers and readers nothing.

use crate::sync::{AtomicU64, Ordering, Padded};

/// How many counters readers share; two that share one may pass its cache line to and fro.
const STRIPES: usize = 8;

/// After how many events a publisher that always finds room takes from the budget of its task: a power of two.
pub(crate) const BUDGETED: u64 = 256;

/// The sums over all subscribers, also those that are gone.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Events published when nobody was there to read them. They were not stored, and the head of the ring is short of them.
    unheard: AtomicU64,
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
    /// Counts events that nobody reads. Only under the lock of the publishers: nobody else writes meanwhile.
    pub(crate) fn unheard(&self, events: u64) {
        let unheard = self.unheard.load(Ordering::Relaxed);
        self.unheard.store(unheard + events, Ordering::Relaxed);
    }

    /// How many events have been published, be they stored or not.
    #[inline]
    pub(crate) fn published(&self, head: u64) -> u64 {
        head + self.unheard.load(Ordering::Relaxed)
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

    pub(crate) fn sums(&self, head: u64) -> Sums {
        Sums {
            published: self.published(head),
            taken: self.taken.iter().map(|stripe| stripe.load(Ordering::Relaxed)).sum(),
            missed: self.missed.load(Ordering::Relaxed),
            subscribers: self.subscribers.load(Ordering::Relaxed),
        }
    }
}
