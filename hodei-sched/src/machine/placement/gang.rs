//! Jobs that need several workers at once, all or nothing.
//!
//! Room is set aside on all of them in one call or on none, so no gang ever has a part of what another one waits for. A gang
//! that finds no room has as many workers held for it as it needs, as a large job has one.

use hodei_core::Timestamp;
use hodei_core::job::Priority;

use super::bits::Bits;
use super::candidates::Asked;
use super::fleet::{Class, Fleet, Hold, WorkerId};
use crate::balance::Balancer;
use crate::queue::ClassId;

impl Fleet {
    /// The workers beside the one that [`Fleet::place`] has just chosen on which room was set aside for the same job.
    pub fn others(&mut self) -> Vec<WorkerId> {
        std::mem::take(&mut self.gang)
    }

    /// On how many workers at once jobs of a class run.
    #[must_use]
    pub fn gang_size(&self, class: ClassId) -> u32 {
        self.classes[class.0 as usize].as_ref().map_or(1, |class| class.workers)
    }

    /// Chooses workers for a gang, each once, and sets room aside on all of them; the first one is returned.
    pub(super) fn place_gang(&mut self, asked: Asked, balancer: &mut dyn Balancer) -> Option<WorkerId> {
        let class = self.classes[asked.class.0 as usize].as_ref()?;
        let workers = class.workers;
        if !self.may_have(class) {
            return None;
        }
        for _ in 0..workers {
            let Some(chosen) = self.choose(asked, balancer) else {
                for worker in self.others() {
                    self.release(worker, asked.class);
                }
                return None;
            };
            self.reserve(chosen, asked.class);
            self.gang.push(chosen);
        }
        Some(self.gang.remove(0))
    }

    /// Whether as many workers as a class needs may have room for it.
    pub(super) fn may_have(&self, class: &Class) -> bool {
        let (mut found, mut at) = (0, 0);
        while found < class.workers
            && let Some(worker) = self.first_open(class, at)
        {
            found += 1;
            at = worker + 1;
        }
        found == class.workers
    }

    /// Holds the workers for a class that lack the least; nothing where there are too few.
    pub(super) fn hold_nearest(&mut self, class: ClassId, level: Priority) {
        let nearest = self.nearest_all(class);
        if nearest.is_empty() {
            return;
        }
        self.held_too = Bits::default();
        self.hold = nearest.split_first().map(|(first, others)| {
            for worker in others {
                self.held_too.set(worker.0);
            }
            Hold { class, level, worker: *first }
        });
    }

    /// The workers that are held for the most urgent job that found no room.
    pub(in crate::machine) fn held_workers(&self) -> impl Iterator<Item = WorkerId> + '_ {
        let first = self.hold.map(|hold| hold.worker);
        let others = self.held_too.ones().filter(|_| self.hold.is_some()).map(WorkerId);
        first.into_iter().chain(others)
    }

    /// Notes when the job for which workers are held begins at the latest, where that is known.
    pub(in crate::machine) fn expect_start(&mut self, at: Option<Timestamp>) {
        self.starts = at;
    }

    /// Notes when the job that is placed next ends at the latest, where that is known.
    pub(in crate::machine) fn expect_end(&mut self, at: Option<Timestamp>) {
        self.ends = at;
    }

    /// Whether the job that is placed next has ended before the one for which workers are held can begin.
    pub(super) fn ends_in_time(&self) -> bool {
        self.ends.zip(self.starts).is_some_and(|(ends, starts)| ends <= starts)
    }

    /// Whether a worker is held for the most urgent job that found no room.
    pub(in crate::machine) fn is_held(&self, worker: WorkerId) -> bool {
        self.hold.is_some_and(|hold| hold.worker == worker || self.held_too.has(worker.0))
    }
}

/// For how many gangs of `workers` each there is room, up to `n`, where `most` says for how many jobs each worker has any.
/// No worker is twice in one gang, so of each no more count than there are gangs.
pub(super) fn gangs(most: &[u32], workers: u32, n: u32) -> u32 {
    let fits = |gangs: u32| {
        let room: u64 = most.iter().map(|most| u64::from((*most).min(gangs))).sum();
        room >= u64::from(gangs) * u64::from(workers)
    };
    // What fits for some gangs fits for fewer.
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}
