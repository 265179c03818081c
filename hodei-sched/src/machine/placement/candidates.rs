//! The workers among which a balancer chooses.

use hodei_core::job::Priority;

use super::fleet::{Fleet, LOADS, WorkerId};
use crate::queue::ClassId;

/// What a job asks.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What it asks of a worker.
    pub class: ClassId,
    /// How urgent it is.
    pub level: Priority,
    /// What it has in common with jobs that had better run on the same worker.
    pub key: u64,
}

/// The workers that have room for a job now.
#[derive(Debug)]
pub struct Candidates<'f> {
    fleet: &'f mut Fleet,
    asked: Asked,
    preferred: bool,
    near: bool,
}

impl<'f> Candidates<'f> {
    /// Those only that come first by their labels, and by who is there already, where that is wanted.
    pub(super) fn among(fleet: &'f mut Fleet, asked: Asked, (preferred, near): (bool, bool)) -> Self {
        Self { fleet, asked, preferred, near }
    }

    /// What the job asks.
    #[must_use]
    pub fn asked(&self) -> Asked {
        self.asked
    }

    /// Workers have numbers below this one, not all of them a worker with room.
    #[must_use]
    pub fn bound(&self) -> u32 {
        u32::try_from(self.fleet.workers.len()).unwrap_or(u32::MAX)
    }

    /// The first worker with room from a number on, beginning again from 0 behind the last one.
    pub fn next_from(&mut self, from: u32) -> Option<WorkerId> {
        let mut at = from;
        while let Some(found) = self.first(None, at) {
            if self.has_room(WorkerId(found)) {
                return Some(WorkerId(found));
            }
            at = found + 1;
        }
        let mut at = 0;
        while let Some(found) = self.first(None, at).filter(|found| *found < from) {
            if self.has_room(WorkerId(found)) {
                return Some(WorkerId(found));
            }
            at = found + 1;
        }
        None
    }

    /// A worker with the most free slots of those that have room; above 64 free slots all count alike.
    pub fn freest(&mut self) -> Option<WorkerId> {
        for load in (0..LOADS).rev() {
            if self.fleet.by_free[load].is_empty() {
                continue;
            }
            let mut at = 0;
            while let Some(found) = self.first(Some(load), at) {
                if self.has_room(WorkerId(found)) {
                    return Some(WorkerId(found));
                }
                at = found + 1;
            }
        }
        None
    }

    /// Whether a worker has room for the job.
    pub fn has_room(&mut self, worker: WorkerId) -> bool {
        let WorkerId(at) = worker;
        let fleet = &*self.fleet;
        let Some(class) = fleet.classes[self.asked.class.0 as usize].as_ref() else { return false };
        let comes_first = (!self.preferred || class.preferred.has(at))
            && (!self.near || fleet.groups.is_near(at, class.near()));
        if !fleet.open.has(at) || !class.room.has(at) || !comes_first || !fleet.has_company(at, class) {
            return false;
        }
        if !fleet.admits(at, class) {
            self.fleet.shut_out(at, self.asked.class);
            return false;
        }
        // No worker is twice in a gang.
        (fleet.gang.is_empty() || !fleet.gang.contains(&worker)) && fleet.spares(worker, self.asked)
    }

    /// How many slots of a worker are free.
    #[must_use]
    pub fn free_slots(&self, worker: WorkerId) -> u32 {
        self.fleet.workers[worker.0 as usize].free_slots
    }

    /// How many jobs a worker has now.
    #[must_use]
    pub fn running(&self, worker: WorkerId) -> u32 {
        self.fleet.running(worker)
    }

    /// How many jobs all workers have, and how many workers there are.
    #[must_use]
    pub fn load(&self) -> (u64, u32) {
        self.fleet.load()
    }

    /// How much would be left on a worker beside the job: the sum over its resources, in 1,024ths of each. The least
    /// is the tightest fit.
    #[must_use]
    pub fn rest(&self, worker: WorkerId) -> u64 {
        let there = &self.fleet.workers[worker.0 as usize];
        let class = self.fleet.classes[self.asked.class.0 as usize].as_ref();
        class.map_or(0, |class| {
            let slots = u64::from(there.free_slots.saturating_sub(1)) << 10;
            let slots = slots / u64::from(self.fleet.slots(worker).max(1));
            there.free.rest(&class.need, self.fleet.shapes.capacity(there.shape)) + slots
        })
    }

    /// A number of the worker that stays the same when it comes again.
    #[must_use]
    pub fn key(&self, worker: WorkerId) -> u64 {
        self.fleet.workers[worker.0 as usize].key
    }

    /// Rises whenever a worker comes or goes.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.fleet.generation
    }

    /// Goes through all workers, those without room too.
    pub fn everybody(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.fleet.everybody()
    }

    /// The first worker from a number on that may have room, perhaps only of those with so many free slots.
    fn first(&self, load: Option<usize>, from: u32) -> Option<u32> {
        let fleet = &*self.fleet;
        let class = fleet.classes[self.asked.class.0 as usize].as_ref()?;
        // The smallest set that all of them are in; whoever is found is held to the others.
        let own = if self.preferred { &class.preferred } else { &class.room };
        let near = self.near.then(|| fleet.groups.fewest(class.near().iter().copied())).flatten();
        let company = fleet.company(class).into_iter().chain(near);
        let set = company.chain([own]).min_by_key(|set| set.len())?;
        set.first_common(load.map_or(&self.fleet.open, |load| &self.fleet.by_free[load]), from)
    }
}
