//! Compares the indexes with the rows.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::super::{Lane, LimitOf};
use super::state::State;
use crate::job::{Job, State as JobState, rules};
use crate::time::Timestamp;

impl State {
    /// Builds every index anew from the rows and names those that differ.
    pub(super) fn contradictions(&self, now: Timestamp) -> Vec<String> {
        let mut fresh = Self::default();
        for job in self.jobs.values() {
            fresh.create(Job::clone(job), None, now);
        }
        let mut wrong = self.wrong_places(now);
        wrong.extend(self.wrong_edges());
        for ((tenant, key), last) in &self.sequences {
            let of =
                self.jobs.get(last).filter(|job| job.spec.sequence() == Some(key) && job.tenant == *tenant);
            if of.is_none() {
                wrong.push(format!("the last of sequence {key} is not of it"));
            }
        }
        let mut compare = |name: &str, same: bool| {
            if !same {
                wrong.push(format!("index {name} contradicts the rows"));
            }
        };
        compare("lists", self.lists == fresh.lists);
        compare("pipelines", self.pipelines == fresh.pipelines);
        compare("leases", self.leases == fresh.leases);
        compare("deadlines", self.deadlines == fresh.deadlines);
        compare("unique", self.unique == fresh.unique);
        compare("counts", self.counts == fresh.counts);
        compare("queue_counts", self.queue_counts == fresh.queue_counts);
        let leased = || self.jobs.values().filter(|job| job.state.is_leased());
        let used = |of: &LimitOf| leased().filter(|job| of.counts(&job.tenant, &job.spec)).count() as u64;
        compare("limits", self.limits.iter().all(|(of, _)| self.in_use(of) == used(of)));
        wrong
    }

    /// A pending job is in its place of its lane, or among the delayed ones; when it never was due, only there.
    fn wrong_places(&self, now: Timestamp) -> Vec<String> {
        let mut wrong = Vec::new();
        let pending = || self.jobs.values().filter(|job| job.state == JobState::Pending);
        let latest = self.latest.max(Some(now)).unwrap_or(now);
        for job in pending() {
            let place = (Reverse(job.spec.priority()), job.eligible_at, job.id);
            let ready = self.ready.get(&Lane::of(job)).is_some_and(|lane| lane.jobs.contains(&place));
            let due = self.due.contains(&(job.eligible_at, job.id));
            if ready == due || (ready && job.eligible_at > latest) {
                wrong.push(format!("job {} waits in the wrong place", job.id));
            }
        }
        let ready: usize = self.ready.values().map(|lane| lane.jobs.len()).sum();
        if ready + self.due.len() != pending().count() {
            wrong.push("somebody waits who is not pending".to_owned());
        }
        for (key, lane) in &self.ready {
            let mut levels = BTreeMap::new();
            lane.jobs.iter().for_each(|(level, ..)| *levels.entry(*level).or_insert(0_u64) += 1);
            if lane.jobs.is_empty() || levels != lane.levels || lane.request.class() != key.class {
                wrong.push(format!("lane {key:?} contradicts its jobs"));
            }
        }
        wrong
    }

    /// Both ends of an edge are stored. A blocked job has one from each of its parents, and waits for those it was
    /// not told of, none of which has settled.
    fn wrong_edges(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (parent, child) in self.edges.keys() {
            let of_child =
                |id| self.jobs.get(id).is_some_and(|job| job.parents.iter().any(|p| p.id == *parent));
            if !self.jobs.contains_key(parent) || !of_child(child) {
                wrong.push(format!("the edge from {parent} to {child} has no end"));
            }
        }
        for job in self.jobs.values().filter(|job| job.state == JobState::Blocked) {
            let edges = || job.parents.iter().map(|parent| (parent.id, self.edges.get(&(parent.id, job.id))));
            let untold = || edges().filter(|(_, told)| *told == Some(&false)).map(|(parent, _)| parent);
            // Who ended before its turn has not told those behind it.
            let turn = |id| rules::before_in_turn(&job.parents).any(|before| before == id);
            let settled = |id| {
                self.jobs
                    .get(&id)
                    .is_none_or(|parent| parent.state.is_terminal() && (!turn(id) || self.had_turn(parent)))
            };
            let missing = edges().any(|(_, told)| told.is_none());
            if missing || untold().any(settled) || untold().count() != job.waits_for as usize {
                wrong.push(format!("job {} waits for the wrong parents", job.id));
            }
        }
        wrong
    }
}
