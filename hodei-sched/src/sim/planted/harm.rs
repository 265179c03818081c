//! What a planted bug has done so far, and has yet to do.

use std::collections::BTreeMap;

use hodei_core::job::NewJob;
use hodei_core::map::JobMap;
use hodei_core::store::{LimitOf, Schedule, SubmitOptions, Term};
use hodei_core::{JobId, Name, Tenant, Timestamp};

use super::super::bug::Bug;
use super::disguise::Disguise;

/// A submission that was acknowledged and is not written.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) since: Timestamp,
    pub(super) jobs: Vec<NewJob>,
    pub(super) options: SubmitOptions,
}

/// The state of a planted bug.
#[derive(Debug)]
pub(super) struct Harm {
    pub(super) bug: Bug,
    pub(super) disguise: Disguise,
    pub(super) unwritten: Vec<Unwritten>,
    /// What callers were told of limits.
    pub(super) limits: BTreeMap<LimitOf, u32>,
    /// How much of each limit has leaked.
    pub(super) leaked: BTreeMap<LimitOf, u32>,
    pub(super) terms: BTreeMap<Name, Term>,
    pub(super) schedules: BTreeMap<(Tenant, Name), Schedule>,
    /// When each schedule fired last.
    pub(super) fired_at: BTreeMap<(Tenant, Name), Timestamp>,
    /// The children of jobs, as they were submitted, with how many parents they have.
    pub(super) children: JobMap<Vec<(JobId, usize)>>,
}

impl Harm {
    pub(super) fn of(bug: Bug) -> Self {
        Self {
            bug,
            disguise: Disguise::of(bug),
            unwritten: Vec::new(),
            limits: BTreeMap::new(),
            leaked: BTreeMap::new(),
            terms: BTreeMap::new(),
            schedules: BTreeMap::new(),
            fired_at: BTreeMap::new(),
            children: JobMap::default(),
        }
    }

    /// Takes out what is to be written by now.
    pub(super) fn overdue(&mut self, before: Timestamp) -> Vec<Unwritten> {
        let due = self.unwritten.partition_point(|unwritten| unwritten.since <= before);
        self.unwritten.drain(..due).collect()
    }
}
