//! Jobs that were submitted lately, so that claiming them soon decodes no spec.

use std::collections::{HashMap, VecDeque};

use hodei_core::JobId;

use crate::codec::Fixed;

/// A bounded map, first in first out. What it holds never changes, so it need not be told of a transaction that
/// failed: the id it holds would come again with the same content or not at all.
#[derive(Debug)]
pub(crate) struct Recent {
    jobs: HashMap<JobId, Fixed>,
    order: VecDeque<JobId>,
    most: usize,
}

impl Recent {
    /// Makes one that keeps so many jobs.
    pub(crate) fn new(most: usize) -> Self {
        Self { jobs: HashMap::new(), order: VecDeque::new(), most }
    }

    /// Keeps a job for a while.
    pub(crate) fn insert(&mut self, id: JobId, fixed: Fixed) {
        if self.most == 0 {
            return;
        }
        while self.order.len() >= self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.jobs.remove(&oldest);
            }
        }
        self.order.push_back(id);
        self.jobs.insert(id, fixed);
    }

    /// Takes a job out.
    pub(crate) fn take(&mut self, id: JobId) -> Option<Fixed> {
        self.jobs.remove(&id)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.jobs.clear();
        self.order.clear();
    }
}
