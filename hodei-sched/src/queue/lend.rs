//! How dispatchers help each other out.
//!
//! Each dispatcher owns its queue alone, so nobody takes from it unasked: one that has nothing to do asks the one with
//! the most work, which hands over a batch of its most urgent jobs at its next turn (private deques with requests:
//! Acar, Charguéraud and Rainey 2013). Asking is one compare-and-swap, handing over one push; nobody waits for
//! anybody. A job is with exactly one dispatcher, or in the batch between two.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use crossbeam_utils::CachePadded;

use super::intake::Intake;
use super::sync::{AtomicUsize, Ordering};

/// Nobody asks.
const NOBODY: usize = 0;
/// How many batches wait for a dispatcher at most; one comes for each time that it asks.
const BATCHES_MAX: usize = 64;

/// What reaches a dispatcher from the others.
#[derive(Debug, PartialEq, Eq)]
pub enum Parcel<T> {
    /// Somebody has nothing to do and room for so many jobs: hand over, or say that there is nothing.
    Asked(usize, usize),
    /// What was asked for, most urgent first; perhaps nothing.
    Given(usize, Vec<T>),
}

/// What a seat shows to the others.
struct Place<T> {
    /// Who asks, plus one.
    asked: AtomicUsize,
    /// How many jobs could be handed over, about.
    backlog: AtomicUsize,
    parcels: Intake<Parcel<T>>,
}

/// The seat of a dispatcher among those of its process.
pub struct Seat<T> {
    number: usize,
    places: Arc<[CachePadded<Place<T>>]>,
    /// Whom it has asked without an answer yet.
    waits_for: Option<usize>,
    asked: u64,
    conflicts: u64,
}

impl<T> fmt::Debug for Seat<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, waits_for, asked, conflicts, .. } = self;
        f.debug_struct("Seat")
            .field("number", number)
            .field("of", &self.places.len())
            .field("waits_for", waits_for)
            .field("asked", asked)
            .field("conflicts", conflicts)
            .finish_non_exhaustive()
    }
}

/// Makes the seats of so many dispatchers.
#[must_use]
pub fn seats<T>(n: usize) -> Vec<Seat<T>> {
    let place = || Place {
        asked: AtomicUsize::new(NOBODY),
        backlog: AtomicUsize::new(0),
        parcels: Intake::new(BATCHES_MAX.max(2 * n)),
    };
    let places: Arc<[_]> = std::iter::repeat_with(|| CachePadded::new(place())).take(n).collect();
    let seat = |number| Seat { number, places: Arc::clone(&places), waits_for: None, asked: 0, conflicts: 0 };
    (0..n).map(seat).collect()
}

impl<T> Seat<T> {
    /// Which seat it is, from 0.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// Shows how many jobs could be handed over.
    pub fn show(&self, backlog: usize) {
        let place = &self.places[self.number].backlog;
        // Whoever reads an old number asks in vain, or a turn later.
        if place.load(Ordering::Relaxed) != backlog {
            place.store(backlog, Ordering::Relaxed);
        }
    }

    /// Asks the dispatcher that shows the most for up to `room` jobs; `false` when nobody shows two jobs or more, when an answer
    /// is still to come, or when somebody else asks that one just now. One that has gone answers nobody, and is waited for no more.
    pub fn ask(&mut self, room: usize) -> bool {
        self.waits_for = self.waits_for.filter(|other| !self.places[*other].parcels.is_closed());
        if self.waits_for.is_some() {
            return false;
        }
        let others = (0..self.places.len()).filter(|other| *other != self.number);
        let shown = others.map(|other| (self.places[other].backlog.load(Ordering::Relaxed), other));
        let Some((backlog, other)) = shown.max() else { return false };
        if backlog < 2 {
            return false;
        }
        self.asked += 1;
        let theirs = &self.places[other];
        // The parcel that follows carries everything; the flag only keeps others from asking too.
        let free =
            theirs.asked.compare_exchange(NOBODY, self.number + 1, Ordering::Relaxed, Ordering::Relaxed);
        if free.is_err() || theirs.parcels.push(Parcel::Asked(self.number, room)).is_err() {
            if free.is_ok() {
                // Nobody would answer, and nobody else could ask.
                theirs.asked.store(NOBODY, Ordering::Relaxed);
            }
            self.conflicts += 1;
            return false;
        }
        self.waits_for = Some(other);
        true
    }

    /// Hands jobs over to whoever asked; no jobs say that there are none. They come back when the other is gone.
    pub fn give(&self, to: usize, jobs: Vec<T>) -> Vec<T> {
        let refused = self.places[to].parcels.push(Parcel::Given(self.number, jobs));
        self.places[self.number].asked.store(NOBODY, Ordering::Relaxed);
        match refused {
            Ok(()) => Vec::new(),
            Err(super::Refused::Full(parcel) | super::Refused::Closed(parcel)) => match parcel {
                Parcel::Given(_, jobs) => jobs,
                Parcel::Asked(..) => Vec::new(),
            },
        }
    }

    /// Takes the next parcel.
    pub fn take(&mut self) -> Option<Parcel<T>> {
        let parcel = self.places[self.number].parcels.pop()?;
        if matches!(parcel, Parcel::Given(from, _) if self.waits_for == Some(from)) {
            self.waits_for = None;
        }
        Some(parcel)
    }

    /// Whether an answer is still to come.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.waits_for.is_some()
    }

    /// How often it asked, and how often in vain because somebody else asked the same one.
    #[must_use]
    pub fn asked(&self) -> (u64, u64) {
        (self.asked, self.conflicts)
    }

    /// Is ready when a parcel waits; else the owner is woken when one comes.
    pub fn poll_parcel(&self, cx: &Context<'_>) -> Poll<()> {
        self.places[self.number].parcels.poll_filled(cx)
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        let place = &self.places[self.number];
        place.backlog.store(0, Ordering::Relaxed);
        place.parcels.close();
    }
}
