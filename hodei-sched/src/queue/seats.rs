//! Handles, and where what they name is now.

use std::hash::{Hash, Hasher};

/// Nothing.
pub(super) const NONE: u32 = u32::MAX;
/// Set in the place of what is delayed.
const DELAYED: u32 = 1 << 31;

/// Names what was pushed, until it is popped or removed. A handle that has outlived its job names nothing, even when
/// another job has its number.
#[derive(Clone, Copy, Debug)]
pub struct Handle {
    pub(super) seat: u32,
    generation: u32,
    /// Where the job was when the handle was made. Mostly it still is, and need not be looked for in its seat first.
    pub(super) at: u32,
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        (self.seat, self.generation) == (other.seat, other.generation)
    }
}

impl Eq for Handle {}

impl Hash for Handle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.seat, self.generation).hash(state);
    }
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a line: the number of its entry.
    Ready(u32),
    /// In the timer wheel: the number of its node.
    Delayed(u32),
}

/// Eight bytes for each job: all that a handle costs the queue.
#[derive(Clone, Copy, Debug)]
struct Seat {
    /// The place; the next free seat where nobody sits.
    at: u32,
    /// Odd while somebody sits there.
    generation: u32,
}

/// The seats of all jobs.
#[derive(Debug)]
pub(super) struct Seats {
    seats: Vec<Seat>,
    free: u32,
    taken: usize,
}

impl Default for Seats {
    fn default() -> Self {
        Self { seats: Vec::new(), free: NONE, taken: 0 }
    }
}

impl Seats {
    pub(super) fn len(&self) -> usize {
        self.taken
    }

    /// Takes a seat, for a job whose place is told next.
    #[inline]
    pub(super) fn take(&mut self) -> u32 {
        self.taken += 1;
        if self.free == NONE {
            self.seats.push(Seat { at: NONE, generation: 1 });
            let seat = u32::try_from(self.seats.len() - 1).expect("fewer than 2^31 jobs");
            assert!(seat < DELAYED, "fewer than 2^31 jobs");
            return seat;
        }
        let seat = self.free;
        let taken = &mut self.seats[seat as usize];
        self.free = taken.at;
        taken.generation = taken.generation.wrapping_add(1);
        seat
    }

    /// Frees a seat: its handle names nothing from now on.
    #[inline]
    pub(super) fn leave(&mut self, seat: u32) {
        let left = &mut self.seats[seat as usize];
        left.at = self.free;
        left.generation = left.generation.wrapping_add(1);
        self.free = seat;
        self.taken -= 1;
    }

    /// Tells where the job of a seat is; returns its handle.
    #[inline]
    pub(super) fn moved(&mut self, seat: u32, place: Place) -> Handle {
        let at = match place {
            Place::Ready(at) => at,
            Place::Delayed(at) => at | DELAYED,
        };
        let moved = &mut self.seats[seat as usize];
        moved.at = at;
        Handle { seat, generation: moved.generation, at }
    }

    pub(super) fn handle(&self, seat: u32) -> Handle {
        let Seat { at, generation } = self.seats[seat as usize];
        Handle { seat, generation, at }
    }

    /// Whether what a handle names is still there, wherever it is.
    #[inline]
    pub(super) fn has(&self, handle: Handle) -> bool {
        self.seats.get(handle.seat as usize).is_some_and(|seat| seat.generation == handle.generation)
    }

    /// Where a job is, with its seat; nothing when it has gone.
    #[inline]
    pub(super) fn find(&self, handle: Handle) -> Option<(u32, Place)> {
        let seat = self.seats.get(handle.seat as usize)?;
        if seat.generation != handle.generation {
            return None;
        }
        let place =
            if seat.at & DELAYED == 0 { Place::Ready(seat.at) } else { Place::Delayed(seat.at & !DELAYED) };
        Some((handle.seat, place))
    }
}
