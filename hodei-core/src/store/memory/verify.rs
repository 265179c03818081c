//! Compares the indexes with the rows.

use super::state::State;
use crate::time::Timestamp;

impl State {
    /// Builds every index anew from the rows and names those that differ.
    pub(super) fn contradictions(&self, now: Timestamp) -> Vec<String> {
        let mut fresh = Self { max_jobs: usize::MAX, ..Self::default() };
        for job in self.jobs.values() {
            fresh.create(job.clone(), None, now);
        }
        let mut wrong = Vec::new();
        let mut compare = |name: &str, same: bool| {
            if !same {
                wrong.push(format!("index {name} contradicts the rows"));
            }
        };
        compare("by_created", self.by_created == fresh.by_created);
        compare("by_state", self.by_state == fresh.by_state);
        compare("by_tenant", self.by_tenant == fresh.by_tenant);
        compare("pipelines", self.pipelines == fresh.pipelines);
        compare("leases", self.leases == fresh.leases);
        compare("deadlines", self.deadlines == fresh.deadlines);
        compare("unique", self.unique == fresh.unique);
        compare("counts", self.counts == fresh.counts);
        compare("waiting", self.waiting() == fresh.waiting());
        compare("children", self.edges() == fresh.edges());
        let tenants = |state: &Self| {
            let counts = state.tenant_counts.iter().filter(|(_, counts)| counts.total() > 0);
            counts.map(|(tenant, counts)| (tenant.clone(), *counts)).collect::<Vec<_>>()
        };
        compare("tenant_counts", tenants(self) == tenants(&fresh));
        let used = |state: &Self| {
            let limits = state.limits.iter().filter(|(_, row)| row.in_use > 0);
            limits.map(|(key, row)| (key.clone(), row.in_use)).collect::<Vec<_>>()
        };
        compare("limits", used(self) == used(&fresh));
        wrong
    }

    /// Everything that is ready or due, whichever of the two it is in.
    fn waiting(&self) -> Vec<crate::id::JobId> {
        let ready = self.ready.values().flat_map(|lane| lane.jobs.iter().map(|(_, _, id)| *id));
        let mut waiting: Vec<_> = ready.chain(self.due.iter().map(|(_, id)| *id)).collect();
        waiting.sort_unstable();
        waiting
    }

    fn edges(&self) -> Vec<(crate::id::JobId, crate::id::JobId)> {
        let edges = self
            .children
            .iter()
            .flat_map(|(parent, children)| children.iter().map(|child| (*parent, *child)));
        let mut edges: Vec<_> = edges.collect();
        edges.sort_unstable();
        edges
    }
}
