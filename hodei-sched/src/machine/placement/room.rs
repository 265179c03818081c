//! What would be free if jobs that are only spoken of were placed already.

use std::collections::HashMap;

use hodei_core::job::Priority;

use super::amounts::Amounts;
use super::fleet::{Fleet, WorkerId};
use crate::queue::ClassId;

/// Room on a fleet, to decide over without touching it.
#[derive(Debug)]
pub(in crate::machine) struct Room<'f> {
    fleet: &'f Fleet,
    /// What is left on the workers of which something was taken.
    taken: HashMap<u32, (Amounts, u32)>,
    slots: u64,
    /// The worker on which nothing more may be taken below this level: it is kept for the class.
    kept: Option<(WorkerId, ClassId, Priority)>,
}

impl<'f> Room<'f> {
    pub(in crate::machine) fn of(fleet: &'f Fleet) -> Self {
        let kept = fleet.hold.map(|hold| (hold.worker, hold.class, hold.level));
        Self { fleet, taken: HashMap::new(), slots: fleet.open_slots(), kept }
    }

    /// How many slots are free.
    pub(in crate::machine) fn slots(&self) -> u32 {
        u32::try_from(self.slots).unwrap_or(u32::MAX)
    }

    /// Takes room for up to `n` jobs of a class, and returns for how many there was any.
    pub(in crate::machine) fn take(&mut self, class: ClassId, level: Priority, n: u32) -> u32 {
        let Some(asked) = self.fleet.classes[class.0 as usize].as_ref() else { return 0 };
        let apart = self.fleet.rules[asked.rule as usize].apart;
        let (mut taken, mut at) = (0, 0);
        while taken < n
            && self.slots > 0
            && let Some(worker) = asked.room.first_common(&self.fleet.open, at)
        {
            at = worker + 1;
            let kept =
                self.kept.is_some_and(|(kept, of, below)| kept.0 == worker && of != class && level <= below);
            if kept || !self.fleet.is_apart(worker, asked.rule) {
                continue;
            }
            let there = &self.fleet.workers[worker as usize];
            let left = self.taken.get(&worker);
            let (free, slots) = left.map_or((&there.free, there.free_slots), |(free, slots)| (free, *slots));
            let most = if apart { 1 } else { n - taken };
            let here = free.times(&asked.need).min(slots).min(most);
            if here == 0 {
                continue;
            }
            let mut free = free.clone();
            free.take(&asked.need, here);
            self.taken.insert(worker, (free, slots - here));
            self.slots -= u64::from(here);
            taken += here;
        }
        taken
    }

    /// Keeps the worker that lacks the least for a class that found no room, unless one is kept already; whether one
    /// is kept for it now that has a slot for it and lacks something else.
    pub(in crate::machine) fn keep(&mut self, class: ClassId, level: Priority) -> bool {
        if self.kept.is_none() {
            self.kept = self.fleet.nearest(class).map(|worker| (worker, class, level));
        }
        self.kept.is_some_and(|(worker, of, _)| of == class && self.fleet.free_slots(worker) > 0)
    }
}
