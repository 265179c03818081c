//! What was submitted or claimed lately, so that claiming and settling it soon reads and decodes nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use hodei_core::JobId;
use hodei_core::job::{Fingerprint, JobSpec};
use hodei_core::map::JobMap;

use crate::codec::{Fixed, Head};
use crate::memory::Step;

/// Jobs that were submitted lately as they were born, jobs that are leased as of the last commit, and specs by their
/// fingerprints. Forgotten as a whole when a transaction is given up.
#[derive(Debug)]
pub(crate) struct Recent {
    born: Fifo<Box<(Head, Fixed)>>,
    held: Fifo<Box<Step>>,
    /// Each spec in the place that its fingerprint names; another one of that place takes it.
    specs: Vec<Option<Arc<JobSpec>>>,
}

/// How many specs are remembered: jobs come by the thousand and are of few specs, or each is of its own.
const SPECS: u16 = 1_024;

impl Recent {
    /// Makes one that keeps so many jobs of each kind.
    pub(crate) fn new(most: usize) -> Self {
        Self { born: Fifo::new(most), held: Fifo::new(most), specs: vec![None; usize::from(SPECS)] }
    }

    /// Keeps a job as it was born for a while.
    pub(crate) fn insert(&mut self, head: Head, fixed: Fixed) {
        self.know(&fixed.spec);
        self.born.insert(head.job.id, Box::new((head, fixed)));
    }

    /// Takes a job out that is as it was born.
    pub(crate) fn take(&mut self, id: JobId) -> Option<(Head, Fixed)> {
        self.born.rows.remove(&id).map(|known| *known)
    }

    /// Takes a leased job out: whoever moves it brings it back with the commit.
    pub(crate) fn held(&mut self, id: JobId) -> Option<Head> {
        self.held.rows.remove(&id).map(|step| step.head)
    }

    /// Forgets leased jobs that a transaction moves, until it has been committed.
    pub(crate) fn lose(&mut self, jobs: impl Iterator<Item = JobId>) {
        for id in jobs {
            self.held.rows.remove(&id);
        }
    }

    /// Takes over how jobs moved.
    #[expect(clippy::vec_box, reason = "a step is large, and goes from list to list")]
    pub(crate) fn apply(&mut self, steps: Vec<Box<Step>>) {
        for step in steps {
            let id = step.head.job.id;
            if step.head.job.lease.is_some() {
                self.held.insert(id, step);
            } else if step.was.is_some() {
                self.held.rows.remove(&id);
            }
        }
    }

    /// Returns the spec of a fingerprint.
    pub(crate) fn spec(&self, fingerprint: Fingerprint) -> Option<Arc<JobSpec>> {
        self.specs[place(fingerprint)]
            .as_ref()
            .filter(|spec| spec.fingerprint() == fingerprint)
            .map(Arc::clone)
    }

    /// Keeps a spec for a while.
    pub(crate) fn know(&mut self, spec: &Arc<JobSpec>) {
        let known = &mut self.specs[place(spec.fingerprint())];
        if known.as_ref().is_none_or(|known| known.fingerprint() != spec.fingerprint()) {
            *known = Some(Arc::clone(spec));
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.born.clear();
        self.held.clear();
        self.specs.fill(None);
    }
}

/// Where the spec of a fingerprint is kept.
fn place(fingerprint: Fingerprint) -> usize {
    let [low, high, ..] = *fingerprint.as_bytes();
    usize::from(u16::from_le_bytes([low, high]) % SPECS)
}

/// A bounded map, first in first out.
#[derive(Debug)]
struct Fifo<V> {
    rows: JobMap<V>,
    order: VecDeque<JobId>,
    most: usize,
}

impl<V> Fifo<V> {
    fn new(most: usize) -> Self {
        Self { rows: JobMap::default(), order: VecDeque::new(), most }
    }

    fn insert(&mut self, key: JobId, value: V) {
        if self.most == 0 {
            return;
        }
        while self.order.len() >= self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.rows.remove(&oldest);
            }
        }
        self.order.push_back(key);
        self.rows.insert(key, value);
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.order.clear();
    }
}
