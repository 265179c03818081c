//! How urgent the work is that runs where: whose end could make room for more urgent work.

use hodei_core::job::Priority;

use super::bits::Bits;
use super::fleet::{Fleet, WorkerId};
use crate::queue::ClassId;

/// How many levels there are.
const LEVELS: usize = Priority::MAX.level() as usize + 1;

/// The workers by the least urgent job that each of them runs.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// Empty where nobody asks for them.
    lowest: Vec<Bits>,
    /// How many jobs of each level a worker runs, by its number.
    counts: Vec<Vec<(u8, u32)>>,
    /// The level and the worker at which the next search begins.
    from: (usize, u32),
    /// The worker on which room was made last.
    made: Option<WorkerId>,
}

impl Levels {
    fn lowest_of(&self, at: u32) -> Option<u8> {
        self.counts.get(at as usize)?.iter().map(|(level, _)| *level).min()
    }

    /// Changes the counts of a worker, and puts it where it belongs then.
    fn change(&mut self, at: u32, change: impl FnOnce(&mut Vec<(u8, u32)>)) {
        if self.lowest.is_empty() {
            return;
        }
        let before = self.lowest_of(at);
        if self.counts.len() <= at as usize {
            self.counts.resize(at as usize + 1, Vec::new());
        }
        change(&mut self.counts[at as usize]);
        let after = self.lowest_of(at);
        if before != after {
            if let Some(level) = before {
                self.lowest[level as usize].clear(at);
            }
            if let Some(level) = after {
                self.lowest[level as usize].set(at);
            }
        }
    }

    pub(super) fn leaves(&mut self, at: u32) {
        self.change(at, Vec::clear);
        self.made = self.made.filter(|made| made.0 != at);
    }
}

impl Fleet {
    /// Has it noted from now on how urgent the work is that runs on each worker.
    pub(in crate::machine) fn note_levels(&mut self) {
        self.levels.lowest = vec![Bits::default(); LEVELS];
    }

    /// Notes that a job that was born with a level runs on a worker.
    pub(in crate::machine) fn runs(&mut self, worker: WorkerId, born: Priority) {
        self.levels.change(worker.0, |counts| match counts.iter_mut().find(|of| of.0 == born.level()) {
            Some((_, n)) => *n += 1,
            None => counts.push((born.level(), 1)),
        });
    }

    /// Notes that one of those does not run there any more.
    pub(in crate::machine) fn runs_no_more(&mut self, worker: WorkerId, born: Priority) {
        self.levels.change(worker.0, |counts| {
            if let Some(at) = counts.iter().position(|of| of.0 == born.level()) {
                counts[at].1 -= 1;
                if counts[at].1 == 0 {
                    counts.swap_remove(at);
                }
            }
        });
    }

    /// Whether any worker runs a job of at most a level.
    pub(in crate::machine) fn runs_any(&self, highest: Priority) -> bool {
        self.levels.lowest.iter().take(highest.level() as usize + 1).any(|workers| !workers.is_empty())
    }

    /// The next `n` workers that could run jobs of a class and run one of at most a level, those first that run the least
    /// urgent one; with the level of that. Where there are more, the next search goes on behind them, so that all are looked
    /// at in turn. Before them comes the one on which [room is made](Fleet::make_room) already, if it could run such jobs.
    pub(in crate::machine) fn lowest(
        &mut self,
        class: ClassId,
        highest: Priority,
        n: usize,
    ) -> Vec<(u8, WorkerId)> {
        let Some(known) = self.classes[class.0 as usize].as_ref() else { return Vec::new() };
        let (levels, begin) = (&self.levels, self.levels.from);
        let able = |worker: u32| known.able.has(worker) && self.has_company(worker, known);
        let (among, mut found) = (self.company(known).unwrap_or(&known.able), Vec::new());
        let mut pass = |from: (usize, u32), until: (usize, u32)| -> Option<(usize, u32)> {
            let highest = (highest.level() as usize).min(until.0);
            for (level, workers) in levels.lowest.iter().enumerate().take(highest + 1).skip(from.0) {
                let mut at = if level == from.0 { from.1 } else { 0 };
                while let Some(worker) = workers.first_common(among, at).filter(|at| (level, *at) < until) {
                    if found.len() == n {
                        return Some((level, worker));
                    }
                    at = worker + 1;
                    if able(worker) {
                        found.push((u8::try_from(level).unwrap_or(u8::MAX), WorkerId(worker)));
                    }
                }
            }
            None
        };
        let goes_on = pass(begin, (usize::MAX, 0)).or_else(|| pass((0, 0), begin));
        if let Some(made) = levels.made.filter(|made| able(made.0)) {
            found.insert(0, (0, made));
        }
        self.levels.from = goes_on.unwrap_or_default();
        found
    }

    /// Notes that room is made for a class on a worker: if one is held for it, it is that. The next search begins with the
    /// least urgent again.
    pub(in crate::machine) fn make_room(&mut self, class: ClassId, worker: WorkerId) {
        (self.levels.made, self.levels.from) = (Some(worker), (0, 0));
        if let Some(hold) = self.hold.as_mut().filter(|hold| hold.class == class && hold.worker != worker) {
            hold.worker = worker;
            // When it is free there was not asked.
            self.starts = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level(level: u8) -> Priority {
        Priority::new(level).unwrap_or(Priority::MAX)
    }

    proptest! {
        /// Whatever begins and ends, each worker is found by the least urgent job that it runs.
        #[test]
        fn workers_are_known_by_the_least_urgent_that_they_run(
            steps in prop::collection::vec((0_u32..4, 0_u8..6, 0_u8..8), 1..80),
        ) {
            let mut fleet = Fleet::new();
            fleet.note_levels();
            let mut model: Vec<Vec<u8>> = vec![Vec::new(); 4];
            for (at, born, step) in steps {
                let runs = &mut model[at as usize];
                match (step, runs.iter().position(|of| *of == born)) {
                    (0, _) => {
                        fleet.levels.leaves(at);
                        runs.clear();
                    }
                    (1..4, Some(there)) => {
                        fleet.runs_no_more(WorkerId(at), level(born));
                        runs.swap_remove(there);
                    }
                    _ => {
                        fleet.runs(WorkerId(at), level(born));
                        runs.push(born);
                    }
                }
                for (of, workers) in (0_u8..).zip(&fleet.levels.lowest) {
                    let lowest = |at: &u32| model[*at as usize].iter().min() == Some(&of);
                    prop_assert!(workers.ones().eq((0..4).filter(lowest)), "level {of}");
                    let any = model.iter().flatten().any(|runs| *runs <= of);
                    prop_assert_eq!(fleet.runs_any(level(of)), any);
                }
            }
        }
    }
}
