//! Whether dispatchers place jobs where these say that they may run, and beside whom.
//!
//! What jobs say is read off what the store hands out; what a dispatcher takes that for is its own affair.

use std::collections::{BTreeMap, BTreeSet};

use hodei_core::job::Placement;
use hodei_core::store::Claimed;
use hodei_core::{JobId, Name, Tenant};

use crate::machine::Scheduler;

/// The jobs of a dispatcher that say anything of their place.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// What those say that it was handed.
    said: BTreeMap<JobId, (Tenant, Placement)>,
    /// Where those are that it has placed, before it places more.
    there: BTreeMap<JobId, Name>,
}

impl Company {
    /// Notes what jobs say that the dispatcher is handed.
    pub(super) fn learn(&mut self, claimed: &[Claimed]) {
        for job in claimed.iter().map(|claimed| &claimed.job) {
            if job.spec.resources().customs().len() > 0
                && let Some(place) = job.spec.placement().filter(|place| *place != Placement::default())
            {
                self.said.insert(job.id, (job.tenant.clone(), place));
            }
        }
    }

    /// Whether there is anything to look at.
    pub(super) fn is_empty(&self) -> bool {
        self.said.is_empty()
    }

    /// Notes where jobs are before the dispatcher places more.
    pub(super) fn before(&mut self, machine: &Scheduler) {
        self.there = self.placed(machine);
    }

    /// Finds what was placed since where it must not be.
    pub(super) fn wrong(&self, machine: &Scheduler) -> Vec<String> {
        let placed = self.placed(machine);
        let mut wrong = Vec::new();
        let mut lonely: BTreeSet<(&Tenant, &str)> = BTreeSet::new();
        for (job, worker) in placed.iter().filter(|(job, worker)| self.there.get(job) != Some(worker)) {
            let Some((tenant, place)) = self.said.get(job) else { continue };
            let labels = machine.labels_of(worker);
            let unmet = place
                .required()
                .iter()
                .find(|selector| !labels.is_some_and(|labels| selector.applies(labels)));
            wrong.extend(unmet.map(|unmet| format!("on {worker}, which is not as it requires: {unmet}")));
            let others = placed.iter().filter(|(other, at)| *other != job && *at == worker);
            let others: Vec<&Placement> = others
                .filter_map(|(other, _)| self.said.get(other))
                .filter(|of| of.0 == *tenant)
                .map(|of| &of.1)
                .collect();
            let shuns = |one: &Placement, other: &Placement| {
                one.groups_apart().iter().find(|group| other.groups().contains(group)).cloned()
            };
            let shunned = others.iter().find_map(|other| shuns(place, other).or_else(|| shuns(other, place)));
            wrong.extend(
                shunned.map(|group| format!("on {worker}, beside whom group {group} keeps it apart from")),
            );
            for group in place.groups_beside() {
                if others.iter().any(|other| other.groups().contains(group)) {
                    continue;
                }
                // The first of those that seek each other goes anywhere.
                let is_first = place.groups().contains(group)
                    && !self.there.keys().any(|there| self.is_of(there, tenant, group))
                    && lonely.insert((tenant, group));
                if !is_first {
                    wrong.push(format!(
                        "on {worker}, where nobody is of group {group}, beside which it wants to be"
                    ));
                }
            }
        }
        wrong
    }

    fn is_of(&self, job: &JobId, tenant: &Tenant, group: &String) -> bool {
        self.said.get(job).is_some_and(|(of, place)| of == tenant && place.groups().contains(group))
    }

    fn placed(&self, machine: &Scheduler) -> BTreeMap<JobId, Name> {
        let placed = machine.placed().filter(|(_, job)| self.said.contains_key(job));
        placed.map(|(worker, job)| (job, worker.clone())).collect()
    }
}
