//! What a transaction changes of the counts of queues.

use std::collections::HashMap;

use hodei_core::job::State;
use hodei_core::map::IdState;
use hodei_core::store::{Counts, QueueCounts};
use hodei_core::{Name, Tenant};

use super::index::{Index, add};

/// How many jobs came into each state, less those that left it.
pub(crate) type Moved = [i64; State::ALL.len()];

/// What a transaction changes of each queue, in the order in which they were met. Most jobs are of the queue of the job
/// before them, so that one is looked at first.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueDelta {
    rows: Vec<(Tenant, Name, Moved)>,
    places: HashMap<(Tenant, Name), usize, IdState>,
    last: usize,
}

impl QueueDelta {
    /// Returns what changes of a queue.
    pub(super) fn of(&mut self, tenant: &Tenant, queue: &Name) -> &mut Moved {
        let is_last = self.rows.get(self.last).is_some_and(|(of, name, _)| name == queue && of == tenant);
        if !is_last {
            let next = self.rows.len();
            self.last = *self.places.entry((tenant.clone(), queue.clone())).or_insert(next);
            if self.last == next {
                self.rows.push((tenant.clone(), queue.clone(), Moved::default()));
            }
        }
        &mut self.rows[self.last].2
    }
}

impl Index {
    /// Returns the counts of the queues that a transaction changes, as it leaves them.
    pub(crate) fn queues_with(&self, delta: &QueueDelta) -> Vec<QueueCounts> {
        let row = |(tenant, queue, moved): &(Tenant, Name, Moved)| QueueCounts {
            counts: self.queue_with(tenant, queue, moved),
            tenant: tenant.clone(),
            queue: queue.clone(),
        };
        delta.rows.iter().map(row).collect()
    }

    /// Takes over what a committed transaction changed of the counts of queues.
    pub(super) fn apply_queues(&mut self, delta: &QueueDelta) {
        for (tenant, queue, moved) in &delta.rows {
            let after = self.queue_with(tenant, queue, moved);
            self.queues.set(tenant, queue, after);
        }
    }

    fn queue_with(&self, tenant: &Tenant, queue: &Name, moved: &Moved) -> Counts {
        let now = self.queues.of(tenant, queue);
        Counts::from_numbers(State::ALL.map(|state| add(now.of(state), moved[state as usize])))
    }
}
