//! How many jobs of each queue are in each state.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::query::{Counts, Query, Scope};
use crate::error::{Error, Fault, Result};
use crate::id::{Name, Slot, Tenant};
use crate::job::State;

/// The jobs of one queue of a tenant, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueCounts {
    /// Whose queue.
    pub tenant: Tenant,
    /// Which one.
    pub queue: Name,
    /// How many of its jobs are in each state.
    pub counts: Counts,
}

/// Which queues are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueQuery {
    /// Only queues of this name; those of every name when absent.
    pub queue: Option<Name>,
    /// Only queues behind this one, in the order of tenant and name.
    pub after: Option<(Tenant, Name)>,
    /// How many at most.
    pub limit: usize,
}

impl QueueQuery {
    /// Every queue, 100 a page.
    #[must_use]
    pub const fn new() -> Self {
        Self { queue: None, after: None, limit: 100 }
    }

    /// Lets through queues of a name.
    #[must_use]
    pub fn queue(mut self, queue: Name) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Goes on behind a queue: the last of the page before.
    #[must_use]
    pub fn after(mut self, last: &QueueCounts) -> Self {
        self.after = Some((last.tenant.clone(), last.queue.clone()));
        self
    }

    /// Sets how many to return at most.
    #[must_use]
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Refuses a limit that no store answers.
    ///
    /// # Errors
    ///
    /// `Invalid` for a limit of 0 or above [`Query::LIMIT_MAX`].
    pub fn check(&self) -> Result<()> {
        if (1..=Query::LIMIT_MAX).contains(&self.limit) {
            return Ok(());
        }
        let fault = Fault::new("limit", "out_of_range").limit(Query::LIMIT_MAX as u64);
        Err(Error::invalid("store.queue_counts", vec![fault]))
    }
}

impl Default for QueueQuery {
    fn default() -> Self {
        Self::new()
    }
}

/// The counts of every queue that has jobs, in memory: what [`JobStore::queue_counts`](super::JobStore::queue_counts) is
/// answered from where a store keeps them there. A queue without jobs takes no room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueTally(BTreeMap<Tenant, BTreeMap<Name, Counts>>);

impl QueueTally {
    /// Counts a job that moved; nothing before its submission, nothing after its pruning.
    pub fn moved(&mut self, tenant: &Tenant, queue: &Name, from: Option<State>, to: Option<State>) {
        let mut counts = self.of(tenant, queue);
        counts.moved(from, to);
        self.set(tenant, queue, counts);
    }

    /// Returns the counts of a queue.
    #[must_use]
    pub fn of(&self, tenant: &Tenant, queue: &Name) -> Counts {
        self.0.get(tenant).and_then(|queues| queues.get(queue)).copied().unwrap_or_default()
    }

    /// Sets the counts of a queue.
    pub fn set(&mut self, tenant: &Tenant, queue: &Name, counts: Counts) {
        if counts == Counts::default() {
            if let Some(queues) = self.0.get_mut(tenant) {
                queues.remove(queue);
                if queues.is_empty() {
                    self.0.remove(tenant);
                }
            }
            return;
        }
        if !self.0.contains_key(tenant) {
            self.0.insert(tenant.clone(), BTreeMap::new());
        }
        if let Some(queues) = self.0.get_mut(tenant) {
            match queues.get_mut(queue) {
                Some(before) => *before = counts,
                None => drop(queues.insert(queue.clone(), counts)),
            }
        }
    }

    /// Returns the queues that have jobs, by tenant and name.
    pub fn iter(&self) -> impl Iterator<Item = (&Tenant, &Name, &Counts)> {
        self.0.iter().flat_map(|(tenant, queues)| queues.iter().map(move |(name, of)| (tenant, name, of)))
    }

    /// Returns the queues of a slot.
    #[must_use]
    pub fn of_slot(&self, slot: Slot) -> Vec<QueueCounts> {
        let here = self.iter().filter(|(tenant, ..)| tenant.slot() == slot);
        here.map(|(tenant, queue, counts)| row(tenant, queue, *counts)).collect()
    }

    /// Answers a query: at most a page, in the order of tenant and name.
    ///
    /// # Performance
    ///
    /// A query for a tenant costs what the page holds, one for all of them a look at each tenant as well where it names a
    /// queue.
    #[must_use]
    pub fn page(&self, scope: &Scope, query: &QueueQuery) -> Vec<QueueCounts> {
        let mut page = Vec::new();
        match scope {
            Scope::Tenant(tenant) => {
                if let Some(queues) = self.0.get(tenant) {
                    take(&mut page, tenant, queues, query);
                }
            }
            Scope::All => {
                let from =
                    query.after.as_ref().map_or(Bound::Unbounded, |(tenant, _)| Bound::Included(tenant));
                for (tenant, queues) in self.0.range::<Tenant, _>((from, Bound::Unbounded)) {
                    if page.len() >= query.limit {
                        break;
                    }
                    take(&mut page, tenant, queues, query);
                }
            }
        }
        page
    }
}

/// Adds queues of a tenant, as far as there is room.
fn take(page: &mut Vec<QueueCounts>, tenant: &Tenant, queues: &BTreeMap<Name, Counts>, query: &QueueQuery) {
    let after = match &query.after {
        Some((of, _)) if of > tenant => return,
        Some((of, queue)) if of == tenant => Some(queue),
        _ => None,
    };
    if let Some(only) = &query.queue {
        let found = queues.get(only).filter(|_| after.is_none_or(|after| only > after));
        page.extend(found.map(|counts| row(tenant, only, *counts)));
        return;
    }
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let room = query.limit.saturating_sub(page.len());
    let behind = queues.range::<Name, _>((from, Bound::Unbounded)).take(room);
    page.extend(behind.map(|(queue, counts)| row(tenant, queue, *counts)));
}

fn row(tenant: &Tenant, queue: &Name, counts: Counts) -> QueueCounts {
    QueueCounts { tenant: tenant.clone(), queue: queue.clone(), counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).expect("a name")
    }

    fn name(name: &str) -> Name {
        Name::new(name).expect("a name")
    }

    fn tally() -> QueueTally {
        let mut tally = QueueTally::default();
        for (of, queue) in [("b", "y"), ("a", "x"), ("b", "x"), ("a", "y"), ("c", "z")] {
            tally.moved(&tenant(of), &name(queue), None, Some(State::Pending));
        }
        tally
    }

    fn named(page: &[QueueCounts]) -> Vec<String> {
        page.iter().map(|of| format!("{}{}", of.tenant, of.queue)).collect()
    }

    #[test]
    fn pages_of_any_size_make_up_the_list() {
        let tally = tally();
        for limit in 1..7 {
            let mut query = QueueQuery::new().limit(limit);
            let mut found = Vec::new();
            loop {
                let page = tally.page(&Scope::All, &query);
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                query = query.after(last);
                found.extend(named(&page));
            }
            assert_eq!(found, ["ax", "ay", "bx", "by", "cz"]);
        }
    }

    #[test]
    fn a_name_and_a_tenant_narrow_it() {
        let tally = tally();
        let by_name = QueueQuery::new().queue(name("x"));
        assert_eq!(named(&tally.page(&Scope::All, &by_name)), ["ax", "bx"]);
        let one = tally.page(&Scope::Tenant(tenant("b")), &by_name);
        assert_eq!(named(&one), ["bx"]);
        assert_eq!(named(&tally.page(&Scope::All, &by_name.clone().limit(1))), ["ax"]);
        assert_eq!(tally.page(&Scope::All, &by_name.after(&one[0])), []);
        assert_eq!(tally.page(&Scope::Tenant(tenant("d")), &QueueQuery::new()), []);
    }

    #[test]
    fn a_queue_whose_jobs_have_gone_takes_no_room() {
        let mut tally = tally();
        for (of, queue) in [("b", "y"), ("a", "x"), ("b", "x"), ("a", "y"), ("c", "z")] {
            tally.moved(&tenant(of), &name(queue), Some(State::Pending), Some(State::Failed));
            assert_eq!(tally.of(&tenant(of), &name(queue)).of(State::Failed), 1);
            tally.moved(&tenant(of), &name(queue), Some(State::Failed), None);
        }
        assert_eq!(tally, QueueTally::default());
    }

    #[test]
    fn a_page_has_a_bound() {
        for limit in [0, Query::LIMIT_MAX + 1] {
            assert!(QueueQuery::new().limit(limit).check().is_err());
        }
        assert!(QueueQuery::new().limit(Query::LIMIT_MAX).check().is_ok());
    }
}
