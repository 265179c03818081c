//! Names of jobs, handles, and where those are that have moved.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;

use hodei_core::map::IdState;

/// Nothing.
pub(super) const NONE: u32 = u32::MAX;
/// Set in the place of what is delayed.
const DELAYED: u32 = 1 << 31;
/// Set in a name whose job has moved.
const MOVED: u64 = 1 << 63;

/// What tells a job apart from all others that a queue ever had. It lies beside the job, so whoever has come to the
/// place of a job knows at once whether it is the one that is meant, and nothing needs to be kept elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name(NonZeroU64);

impl Name {
    /// The job leaves the place that its handle knows.
    pub(super) fn moves(&mut self) {
        self.0 |= MOVED;
    }

    #[inline]
    fn has_moved(self) -> bool {
        self.0.get() & MOVED != 0
    }

    fn number(self) -> u64 {
        self.0.get() & !MOVED
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

/// Names what was pushed, until it is popped or removed. A handle that has outlived its job names nothing, even when
/// another job has its place.
#[derive(Clone, Copy, Debug)]
pub struct Handle {
    number: u64,
    /// Where the job was when the handle was made. Mostly it still is, and need not be looked for.
    at: u32,
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Handle {}

impl Hash for Handle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl Handle {
    #[inline]
    pub(super) fn new(name: Name, place: Place) -> Self {
        let at = match place {
            Place::Ready(at) => at,
            Place::Delayed(at) => at | DELAYED,
        };
        Self { number: name.number(), at }
    }

    /// Where the job was when the handle was made.
    #[inline]
    pub(super) fn place(self) -> Place {
        if self.at & DELAYED == 0 { Place::Ready(self.at) } else { Place::Delayed(self.at & !DELAYED) }
    }

    /// Whether it is the handle of the job of that name.
    #[inline]
    pub(super) fn names(self, name: Name) -> bool {
        self.number == name.number()
    }
}

/// The names of all jobs.
#[derive(Debug)]
pub(super) struct Names {
    newest: NonZeroU64,
    jobs: usize,
    /// The entries of those that have moved since their handles were made.
    moved: HashMap<u64, u32, IdState>,
}

impl Default for Names {
    fn default() -> Self {
        Self { newest: NonZeroU64::MIN, jobs: 0, moved: HashMap::default() }
    }
}

impl Names {
    /// How many jobs there are.
    pub(super) fn len(&self) -> usize {
        self.jobs
    }

    /// Gives a job its name.
    #[inline]
    pub(super) fn give(&mut self) -> Name {
        self.jobs += 1;
        // One for each nanosecond would last for centuries.
        self.newest = self.newest.saturating_add(1);
        Name(self.newest)
    }

    /// A job has gone.
    #[inline]
    pub(super) fn retire(&mut self, name: Name) {
        self.jobs -= 1;
        if name.has_moved() {
            self.moved.remove(&name.number());
        }
    }

    /// Notes where a job is that has moved.
    pub(super) fn moved(&mut self, name: Name, at: u32) {
        self.moved.insert(name.number(), at);
    }

    /// The entry of a job that has moved.
    pub(super) fn moved_to(&self, handle: Handle) -> Option<u32> {
        self.moved.get(&handle.number).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_of_those_that_have_gone() {
        let mut names = Names::default();
        let [stays, mut moves] = [names.give(), names.give()];
        let [stayed, moved] = [stays, moves].map(|name| Handle::new(name, Place::Delayed(7)));
        assert_eq!(stayed.place(), Place::Delayed(7));
        moves.moves();
        names.moved(moves, 8);
        names.moved(moves, 9);
        assert!(moved.names(moves) && !stayed.names(moves), "a name is the same wherever its job is");
        assert_eq!([stayed, moved].map(|handle| names.moved_to(handle)), [None, Some(9)]);
        assert_eq!(names.len(), 2);
        [stays, moves].into_iter().for_each(|name| names.retire(name));
        assert_eq!(names.len(), 0);
        assert!(names.moved.is_empty());
    }
}
