//! What a store sees at a glance when a node asks it once for all at a heartbeat: who leads, and what is to be done.

use std::collections::{BTreeMap, BTreeSet};

use hodei_core::job::{Lease, NewJob, State};
use hodei_core::store::*;
use hodei_core::{Clock, JobId, ManualClock, Name, Result, Timestamp};

use super::door::at_once;

/// The owners, terms and deadlines that a store has been told of.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    owners: BTreeSet<Lease>,
    /// The last term of each duty.
    terms: BTreeMap<Name, Term>,
    deadlines: BTreeMap<JobId, Timestamp>,
}

impl Ledger {
    pub(super) fn registered(&mut self, owner: &Lease) {
        self.owners.insert(owner.clone());
    }

    pub(super) fn taken(&mut self, term: Option<&Term>) {
        if let Some(term) = term {
            self.terms.insert(term.duty.clone(), term.clone());
        }
    }

    /// The last term of a duty, whoever has it.
    pub(super) fn term(&self, duty: &Name) -> Option<Term> {
        self.terms.get(duty).cloned()
    }

    pub(super) fn submitted<'j>(&mut self, jobs: impl IntoIterator<Item = &'j NewJob>) {
        self.deadlines.extend(jobs.into_iter().filter_map(|job| Some((job.id, job.deadline?))));
    }

    /// Everything of dead owners has been taken back.
    pub(super) fn reaped(&mut self, store: &MemoryStore) -> Result<()> {
        let mut living = BTreeSet::new();
        for owner in std::mem::take(&mut self.owners) {
            if at_once(store.owner_life(&owner))?.is_some() {
                living.insert(owner);
            }
        }
        self.owners = living;
        Ok(())
    }

    /// Whether somebody leads.
    pub(super) fn is_led(&self, duty: &Name, store: &MemoryStore) -> Result<bool> {
        let Some(term) = self.terms.get(duty) else { return Ok(false) };
        Ok(at_once(store.term_life(term))?.is_some())
    }

    /// Whether there is something to take back, or a deadline has passed.
    pub(super) fn is_reapable(&self, store: &MemoryStore, clock: &ManualClock) -> Result<bool> {
        for owner in &self.owners {
            if at_once(store.owner_life(owner))?.is_none() {
                return Ok(true);
            }
        }
        let now = clock.now();
        let late = self.deadlines.iter().filter(|(_, at)| **at <= now).map(|(job, _)| *job);
        let found = at_once(store.get_many(&Scope::All, late.collect(), Consistency::Latest))?;
        Ok(found.iter().flatten().any(|job| matches!(job.state, State::Blocked | State::Pending)))
    }
}
