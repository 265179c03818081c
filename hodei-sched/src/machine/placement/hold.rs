//! Room for the most urgent job that found none.
//!
//! Smaller jobs would take each bit of room as it comes, and a large one would wait for ever. So one worker is held for
//! it: others are placed there only where that cannot delay it, and go on everywhere else. They cannot where they take
//! nothing that it needs and lacks, or are known to end before those do for which it waits.

use hodei_core::job::Priority;

use super::candidates::Asked;
use super::fleet::{Fleet, WorkerId};
use crate::queue::ClassId;

/// Among how many workers the nearest one is looked for.
const LOOKED_AT: usize = 256;

impl Fleet {
    /// Holds a worker for a class that found no room: the one that lacks the least. One that is held for the class
    /// already stays so; one that is held for more urgent jobs, too.
    pub fn hold(&mut self, class: ClassId, level: Priority) {
        if self.hold.is_some_and(|hold| hold.class == class || hold.level >= level) {
            return;
        }
        self.hold_nearest(class, level);
    }

    /// Holds no worker any more.
    pub fn unhold(&mut self) {
        self.hold = None;
    }

    /// Which class a worker is held for, and which worker.
    #[must_use]
    pub fn held(&self) -> Option<(ClassId, WorkerId)> {
        self.hold.map(|hold| (hold.class, hold.worker))
    }

    /// As many workers as a class needs, those that lack the least; none where there are too few.
    pub(super) fn nearest_all(&self, class: ClassId) -> Vec<WorkerId> {
        let Some(class) = self.classes[class.0 as usize].as_ref() else { return Vec::new() };
        let workers = class.workers as usize;
        let lack = |worker: &u32| {
            let there = &self.workers[*worker as usize];
            let slot = if there.has_slot() { 0 } else { 1_000 };
            // Where another job is from which it is kept apart, it comes when that has ended.
            let alone = self.is_apart(*worker, class.rule) && self.groups.welcome(*worker, class.place());
            let apart = if alone { 0 } else { 1_000 };
            (there.free.lack(&class.need) + slot + apart, *worker)
        };
        let able = self.able_now(class).take(LOOKED_AT.max(workers));
        if workers == 1 {
            return able.min_by_key(lack).map(WorkerId).into_iter().collect();
        }
        let mut near: Vec<u32> = able.collect();
        near.sort_by_cached_key(lack);
        near.truncate(workers);
        if near.len() < workers { Vec::new() } else { near.into_iter().map(WorkerId).collect() }
    }

    /// Whether a job can go to a worker without delaying the one for which it is held, if it is.
    pub(super) fn spares(&self, worker: WorkerId, asked: Asked) -> bool {
        let Some(hold) = self.hold.filter(|_| self.is_held(worker)) else { return true };
        if hold.class == asked.class || asked.level > hold.level {
            return true;
        }
        let class = |class: ClassId| self.classes[class.0 as usize].as_ref();
        let Some((waits, more)) = class(hold.class).zip(class(asked.class)) else { return true };
        let there = &self.workers[worker.0 as usize];
        // Both take a slot each.
        let spares = there.free_slots > 1 && there.free.spares(&more.need, &waits.need) && !more.shuns(waits);
        spares || self.ends_in_time()
    }

    /// How many jobs a worker has now.
    pub(super) fn running(&self, worker: WorkerId) -> u32 {
        self.slots(worker) - self.workers[worker.0 as usize].free_slots
    }

    /// Goes through the workers that are there.
    pub(super) fn everybody(&self) -> impl Iterator<Item = WorkerId> + '_ {
        (0..u32::try_from(self.workers.len()).unwrap_or(u32::MAX))
            .map(WorkerId)
            .filter(|at| self.slots(*at) > 0)
    }
}
