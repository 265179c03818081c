//! What was submitted or claimed lately, so that claiming and settling it soon reads and decodes nothing.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use hodei_core::JobId;
use hodei_core::job::{Fingerprint, JobSpec};

use crate::codec::{Fixed, Head};
use crate::memory::Step;

/// Jobs that were submitted lately as they were born, jobs that are leased as of the last commit, and specs by their
/// fingerprints. Forgotten as a whole when a transaction is given up.
#[derive(Debug)]
pub(crate) struct Recent {
    born: Fifo<JobId, (Head, Fixed)>,
    held: Fifo<JobId, Head>,
    specs: Fifo<Fingerprint, Arc<JobSpec>>,
}

impl Recent {
    /// Makes one that keeps so many of each.
    pub(crate) fn new(most: usize) -> Self {
        Self { born: Fifo::new(most), held: Fifo::new(most), specs: Fifo::new(most) }
    }

    /// Keeps a job as it was born for a while.
    pub(crate) fn insert(&mut self, head: Head, fixed: Fixed) {
        self.know(&fixed.spec);
        self.born.insert(head.job.id, (head, fixed));
    }

    /// Takes a job out that is as it was born.
    pub(crate) fn take(&mut self, id: JobId) -> Option<(Head, Fixed)> {
        self.born.rows.remove(&id)
    }

    /// Returns a leased job.
    pub(crate) fn held(&self, id: JobId) -> Option<Head> {
        self.held.rows.get(&id).cloned()
    }

    /// Forgets leased jobs that a transaction moves, until it has been committed.
    pub(crate) fn lose(&mut self, jobs: impl Iterator<Item = JobId>) {
        for id in jobs {
            self.held.rows.remove(&id);
        }
    }

    /// Takes over how jobs moved.
    pub(crate) fn apply(&mut self, steps: Vec<Step>) {
        for Step { was, head } in steps {
            if head.job.lease.is_some() {
                self.held.insert(head.job.id, head);
            } else if was.is_some() {
                self.held.rows.remove(&head.job.id);
            }
        }
    }

    /// Returns the spec of a fingerprint.
    pub(crate) fn spec(&self, fingerprint: Fingerprint) -> Option<Arc<JobSpec>> {
        self.specs.rows.get(&fingerprint).map(Arc::clone)
    }

    /// Keeps a spec for a while.
    pub(crate) fn know(&mut self, spec: &Arc<JobSpec>) {
        if !self.specs.rows.contains_key(&spec.fingerprint()) {
            self.specs.insert(spec.fingerprint(), Arc::clone(spec));
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.born.clear();
        self.held.clear();
        self.specs.clear();
    }
}

/// A bounded map, first in first out.
#[derive(Debug)]
struct Fifo<K, V> {
    rows: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Copy + Eq + Hash, V> Fifo<K, V> {
    fn new(most: usize) -> Self {
        Self { rows: HashMap::new(), order: VecDeque::new(), most }
    }

    fn insert(&mut self, key: K, value: V) {
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
