//! What was submitted or claimed lately, so that claiming it soon reads and decodes no spec.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use hodei_core::JobId;
use hodei_core::job::{Fingerprint, JobSpec};

use crate::codec::Fixed;

/// Jobs that were submitted lately, and specs by their fingerprints. What it holds never changes, so it need not be told
/// of a transaction that failed: a job's id would come again with the same content or not at all.
#[derive(Debug)]
pub(crate) struct Recent {
    jobs: Fifo<JobId, Fixed>,
    specs: Fifo<Fingerprint, Arc<JobSpec>>,
}

impl Recent {
    /// Makes one that keeps so many jobs and so many specs.
    pub(crate) fn new(most: usize) -> Self {
        Self { jobs: Fifo::new(most), specs: Fifo::new(most) }
    }

    /// Keeps a job for a while.
    pub(crate) fn insert(&mut self, id: JobId, fixed: Fixed) {
        self.know(&fixed.spec);
        self.jobs.insert(id, fixed);
    }

    /// Takes a job out.
    pub(crate) fn take(&mut self, id: JobId) -> Option<Fixed> {
        self.jobs.rows.remove(&id)
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
        self.jobs.clear();
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
