//! How far the stream was read.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::stream::Stream;

use super::options::Start;
use crate::bus::{Bus, Mark};

/// How many places are remembered that some subscriber has not come to; beyond, some are passed over.
const MARKS: usize = 1 << 16;

/// A place in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// When the stream was made, in nanoseconds since the epoch: another stream may have the same name.
    pub created: i128,
    /// The stream's number of the message behind which it is.
    pub sequence: u64,
}

/// How far the stream was read, and how far that was taken.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    read: Place,
    taken: Place,
    /// Places that some subscriber may not have come to, with where they are on the local bus.
    marks: VecDeque<(Mark, Place)>,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets out, and returns how many messages are known to be missed before.
    pub(crate) fn begin(&self, start: Start, stream: &Stream) -> u64 {
        let (created, first, last) = facts(stream);
        let mut state = self.state();
        let (sequence, gap) = match start {
            Start::Now => (last, 0),
            Start::Oldest => (first.saturating_sub(1), 0),
            Start::After(place) if place.created == created => (place.sequence, 0),
            Start::After(_) => (first.saturating_sub(1), 1),
        };
        state.read = Place { created, sequence };
        state.taken = state.read;
        gap
    }

    /// Looks at what became of the stream meanwhile, and returns how many messages are known to be missed.
    pub(crate) fn resume(&self, stream: &Stream) -> u64 {
        let (created, first, last) = facts(stream);
        let mut state = self.state();
        let before = state.read;
        let (sequence, gap) = if before.created != created {
            // What the other one had last is lost, or not: nobody knows.
            (first.saturating_sub(1), 1)
        } else if last < before.sequence {
            // It has lost its end, which was read here: what comes takes its numbers.
            (last, 0)
        } else {
            let kept = first.saturating_sub(1).max(before.sequence);
            (kept, kept - before.sequence)
        };
        state.read = Place { created, sequence };
        gap
    }

    /// Says whether a stream is the one that is read, and has nothing more.
    pub(crate) fn is_at_the_end_of(&self, stream: &Stream) -> bool {
        let (created, _, sequence) = facts(stream);
        self.state().read == Place { created, sequence }
    }

    /// Returns the number of the next message.
    pub(crate) fn next(&self) -> u64 {
        self.state().read.sequence + 1
    }

    /// Notes that a message is on the local bus.
    pub(crate) fn read(&self, sequence: u64, bus: &Bus) {
        let mark = bus.mark();
        let mut state = self.state();
        state.read.sequence = sequence;
        let place = state.read;
        if state.marks.len() >= MARKS {
            state.marks.pop_back();
        }
        state.marks.push_back((mark, place));
    }

    /// Returns up to where every subscriber has taken everything.
    pub(crate) fn taken(&self, bus: &Bus) -> Place {
        let mut state = self.state();
        let taken = bus.taken();
        while let Some((_, place)) = state.marks.pop_front_if(|(mark, _)| mark.is_within(&taken)) {
            state.taken = place;
        }
        state.taken
    }
}

/// When it was made, and the numbers of its first and last messages.
fn facts(stream: &Stream) -> (i128, u64, u64) {
    let info = stream.cached_info();
    (info.created.unix_timestamp_nanos(), info.state.first_sequence, info.state.last_sequence)
}
