//! What would be free if jobs that are only spoken of were placed already.

use std::collections::{HashMap, HashSet};

use hodei_core::job::Priority;

use super::amounts::Amounts;
use super::bits::Bits;
use super::fleet::{Class, Fleet, WorkerId};
use super::gang::gangs;
use crate::queue::ClassId;

/// Room on a fleet, to decide over without touching it.
#[derive(Debug)]
pub(in crate::machine) struct Room<'f> {
    fleet: &'f Fleet,
    /// What is left on the workers of which something was taken.
    taken: HashMap<u32, (Amounts, u32)>,
    /// The classes with something to say of groups of which something was taken on a worker.
    company: HashSet<(u32, ClassId)>,
    slots: u64,
    /// The worker on which nothing more may be taken below this level: it is kept for the class.
    kept: Option<(WorkerId, ClassId, Priority)>,
    /// The other workers of which the same is true, where it is a gang.
    kept_too: Bits,
}

impl<'f> Room<'f> {
    pub(in crate::machine) fn of(fleet: &'f Fleet) -> Self {
        let kept = fleet.hold.map(|hold| (hold.worker, hold.class, hold.level));
        Self {
            fleet,
            taken: HashMap::new(),
            company: HashSet::new(),
            slots: fleet.open_slots(),
            kept,
            kept_too: fleet.held_too.clone(),
        }
    }

    /// How many slots are free.
    pub(in crate::machine) fn slots(&self) -> u32 {
        u32::try_from(self.slots).unwrap_or(u32::MAX)
    }

    /// Takes room for up to `n` jobs of a class, and returns for how many there was any.
    pub(in crate::machine) fn take(&mut self, class: ClassId, level: Priority, n: u32) -> u32 {
        let Some(asked) = self.fleet.classes[class.0 as usize].as_ref() else { return 0 };
        if asked.workers > 1 {
            return self.take_gangs(asked, class, level, n);
        }
        let (mut taken, mut at) = (0, 0);
        while taken < n
            && self.slots > 0
            && let Some(worker) = self.fleet.first_open(asked, at)
        {
            at = worker + 1;
            let here = self.most(worker, asked, class, level).min(n - taken);
            self.take_from(worker, asked, class, here);
            taken += here;
            if here > 0 && self.fleet.begins(asked) {
                // The others come beside the first one.
                break;
            }
        }
        taken
    }

    /// As [`Room::take`], of jobs that need several workers each.
    fn take_gangs(&mut self, asked: &Class, class: ClassId, level: Priority, n: u32) -> u32 {
        let (mut open, mut most, mut at) = (Vec::new(), Vec::new(), 0);
        while let Some(worker) = self.fleet.first_open(asked, at) {
            at = worker + 1;
            open.push(worker);
            most.push(self.most(worker, asked, class, level));
        }
        let n = if self.fleet.begins(asked) { n.min(1) } else { n };
        let gangs = gangs(&most, asked.workers, n);
        let mut left = gangs.saturating_mul(asked.workers);
        for (worker, most) in open.into_iter().zip(most) {
            let here = most.min(gangs).min(left);
            self.take_from(worker, asked, class, here);
            left -= here;
        }
        gangs
    }

    /// For how many jobs of a class a worker has room.
    fn most(&self, worker: u32, asked: &Class, class: ClassId, level: Priority) -> u32 {
        let kept = self.kept.filter(|(kept, of, below)| {
            (kept.0 == worker || self.kept_too.has(worker)) && *of != class && level <= *below
        });
        if !self.fleet.is_apart(worker, asked.rule) || !self.welcome(worker, asked) {
            return 0;
        }
        let there = &self.fleet.workers[worker as usize];
        let left = self.taken.get(&worker);
        let (free, slots) = left.map_or((&there.free, there.free_slots), |(free, slots)| (free, *slots));
        let apart = self.fleet.rules[asked.rule as usize].apart || asked.shuns_itself();
        let most = free.times(&asked.need).min(slots).min(if apart { 1 } else { u32::MAX });
        let Some((_, of, _)) = kept else { return most };
        // Both take a slot each, and what the other one waits for is left to it.
        let waits = self.fleet.classes[of.0 as usize].as_ref();
        let beside = waits.map_or(most, |waits| free.times_beside(&asked.need, &waits.need));
        let beside = if waits.is_some_and(|waits| waits.shuns(asked)) { 0 } else { beside };
        let beside = most.min(beside).min(slots.saturating_sub(1));
        // One job is claimed even so where it is known when the other one begins: it may have ended by then.
        if self.fleet.starts.is_some() { beside.max(most.min(1)) } else { beside }
    }

    /// Whether nobody is on a worker, or would be by what was taken, from whom a class is kept apart.
    fn welcome(&self, worker: u32, asked: &Class) -> bool {
        let class = |class: &ClassId| self.fleet.classes[class.0 as usize].as_ref();
        let taken = || self.company.iter().filter(|(at, _)| *at == worker).filter_map(|(_, of)| class(of));
        self.fleet.groups.welcome(worker, asked.place())
            && (asked.place.is_none() || taken().all(|taken| !taken.shuns(asked)))
    }

    fn take_from(&mut self, worker: u32, asked: &Class, class: ClassId, n: u32) {
        if n == 0 {
            return;
        }
        if asked.place.is_some() {
            self.company.insert((worker, class));
        }
        let there = &self.fleet.workers[worker as usize];
        let (free, slots) =
            self.taken.entry(worker).or_insert_with(|| (there.free.clone(), there.free_slots));
        free.take(&asked.need, n);
        *slots -= n;
        self.slots -= u64::from(n);
    }

    /// Keeps the worker that lacks the least for a class that found no room, unless one is kept already; whether one
    /// is kept for it now that has a slot for it and lacks something else.
    pub(in crate::machine) fn keep(&mut self, class: ClassId, level: Priority) -> bool {
        if self.kept.is_none() {
            let nearest = self.fleet.nearest_all(class);
            self.kept_too = Bits::default();
            self.kept = nearest.split_first().map(|(first, others)| {
                for worker in others {
                    self.kept_too.set(worker.0);
                }
                (*first, class, level)
            });
        }
        self.kept.is_some_and(|(worker, of, _)| of == class && self.fleet.free_slots(worker) > 0)
    }
}
