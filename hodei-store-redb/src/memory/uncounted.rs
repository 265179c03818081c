//! What an older schema counted by tenant, and nobody has counted by queue yet.
//!
//! A file of such a schema is counted while it is in use, in the order of the ids: each job is in the count of its queue, or
//! in that of its tenant while it is one of those that are still to come. Both together are what the tenant has.

use std::collections::{BTreeMap, HashMap};

use hodei_core::job::State;
use hodei_core::map::IdState;
use hodei_core::store::Counts;
use hodei_core::{JobId, Result, Tenant};

use super::index::{Index, add};
use super::queues::Moved;
use crate::codec;
use crate::error::corrupt;

/// Which jobs are still to be counted by queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uncounted {
    /// The last one that was counted.
    pub(crate) after: JobId,
    /// The last one that was there when the counting began.
    pub(crate) last: JobId,
}

impl Uncounted {
    /// Of a file in which nothing is counted.
    pub(crate) const fn up_to(last: JobId) -> Self {
        Self { after: JobId::from_bytes([0; 16]), last }
    }

    /// Says whether a job is one of them.
    pub(crate) fn has(&self, id: JobId) -> bool {
        id > self.after && id <= self.last
    }

    /// Writes it.
    pub(crate) fn row(&self) -> Result<Vec<u8>> {
        codec::ids_row(&[self.after, self.last])
    }

    /// Reads it.
    pub(crate) fn read(row: &[u8]) -> Result<Self> {
        match *codec::ids(row)? {
            [after, last] => Ok(Self { after, last }),
            _ => Err(corrupt("index.read", "a bad place of a counting")),
        }
    }
}

/// What a transaction changes of that.
#[derive(Clone, Debug, Default)]
pub(crate) struct UncountedDelta {
    /// How far the counting has come, when it went on.
    pub(crate) place: Option<Uncounted>,
    /// Whether it is over.
    pub(crate) is_over: bool,
    /// Jobs that came into or left a state, or were counted.
    pub(crate) moved: HashMap<Tenant, Moved, IdState>,
}

impl Index {
    /// Returns the uncounted jobs of the tenants of whom a transaction changes some, as it leaves them.
    pub(crate) fn uncounted_with(&self, delta: &UncountedDelta) -> BTreeMap<Tenant, Counts> {
        let after = |(tenant, moved): (&Tenant, &Moved)| {
            let now = self.uncounted.get(tenant).copied().unwrap_or_default();
            let after = State::ALL.map(|state| add(now.of(state), moved[state as usize]));
            (tenant.clone(), Counts::from_numbers(after))
        };
        delta.moved.iter().map(after).collect()
    }

    /// Says whether there are as many uncounted jobs as a transaction has counted.
    pub(crate) fn has_uncounted(&self, delta: &UncountedDelta) -> bool {
        delta.moved.iter().all(|(tenant, moved)| {
            let now = self.uncounted.get(tenant).copied().unwrap_or_default();
            State::ALL
                .into_iter()
                .all(|state| now.of(state).checked_add_signed(moved[state as usize]).is_some())
        })
    }

    /// Says whether no tenant has uncounted jobs.
    pub(crate) fn is_counted(&self) -> bool {
        self.uncounted.is_empty()
    }

    /// Takes over what a committed transaction changed of them.
    pub(super) fn apply_uncounted(&mut self, delta: &UncountedDelta) {
        for (tenant, counts) in self.uncounted_with(delta) {
            if counts.total() == 0 {
                self.uncounted.remove(&tenant);
            } else {
                self.uncounted.insert(tenant, counts);
            }
        }
        self.counting = delta.place.or(self.counting).filter(|_| !delta.is_over);
    }
}
