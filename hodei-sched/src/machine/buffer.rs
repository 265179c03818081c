//! Claimed jobs that no session has yet.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use hodei_core::JobId;
use hodei_core::job::{Epoch, Priority, Request, RequestClass};
use hodei_core::map::JobMap;
use hodei_core::store::Claimed;

/// Claimed jobs in the order in which they are to be assigned: by level, then as they were claimed.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    order: BTreeMap<Place, Claimed>,
    places: JobMap<Place>,
    waiting: BTreeMap<RequestClass, (Request, u32)>,
    next: u64,
}

type Place = (Reverse<Priority>, u64);

impl Buffer {
    /// Adds a claimed job behind those of its level; a job that is there already stays where it is, under the higher
    /// of the two epochs.
    pub(super) fn push(&mut self, claimed: Claimed) {
        let job = &claimed.job;
        if let Some(there) = self.places.get(&job.id).and_then(|place| self.order.get_mut(place)) {
            if there.job.epoch < job.epoch {
                *there = claimed;
            }
            return;
        }
        let place = (Reverse(job.spec.priority()), self.next);
        self.next += 1;
        self.places.insert(job.id, place);
        self.waiting.entry(job.spec.class()).or_insert_with(|| (job.spec.request(), 0)).1 += 1;
        self.order.insert(place, claimed);
    }

    /// Takes the jobs that `place` accepts, in order. A class that was refused once is not offered again.
    pub(super) fn assign(&mut self, mut place: impl FnMut(&Request) -> bool) -> Vec<Claimed> {
        let mut refused: Vec<RequestClass> = Vec::new();
        let mut taken = Vec::new();
        for (at, claimed) in &self.order {
            if refused.len() == self.waiting.len() {
                break;
            }
            let class = claimed.job.spec.class();
            if refused.contains(&class) {
                continue;
            }
            match self.waiting.get(&class) {
                Some((request, _)) if place(request) => taken.push(*at),
                _ => refused.push(class),
            }
        }
        taken.into_iter().filter_map(|at| self.take(at)).collect()
    }

    /// Takes a job out.
    pub(super) fn remove(&mut self, job: JobId) -> Option<Claimed> {
        let place = *self.places.get(&job)?;
        self.take(place)
    }

    /// Takes out, in order, the jobs whose request `keep` does not want.
    pub(super) fn shed(&mut self, keep: impl Fn(&Request) -> bool) -> Vec<Claimed> {
        let unwanted = self.waiting.iter().filter(|(_, (request, _))| !keep(request));
        let classes: Vec<RequestClass> = unwanted.map(|(class, _)| *class).collect();
        if classes.is_empty() {
            return Vec::new();
        }
        let places = self.order.iter().filter(|(_, claimed)| classes.contains(&claimed.job.spec.class()));
        let places: Vec<Place> = places.map(|(place, _)| *place).collect();
        places.into_iter().filter_map(|place| self.take(place)).collect()
    }

    /// Takes everything out, in order.
    pub(super) fn drain(&mut self) -> Vec<Claimed> {
        self.places.clear();
        self.waiting.clear();
        std::mem::take(&mut self.order).into_values().collect()
    }

    /// Goes through the requests that wait, with how many jobs ask each.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&Request, u32)> {
        self.waiting.values().map(|(request, n)| (request, *n))
    }

    /// Says whether a job is there under this epoch.
    pub(super) fn contains(&self, job: JobId, epoch: Epoch) -> bool {
        let there = self.places.get(&job).and_then(|place| self.order.get(place));
        there.is_some_and(|claimed| claimed.job.epoch == epoch)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn take(&mut self, place: Place) -> Option<Claimed> {
        let claimed = self.order.remove(&place)?;
        self.places.remove(&claimed.job.id);
        let class = claimed.job.spec.class();
        if let Some((_, n)) = self.waiting.get_mut(&class) {
            *n -= 1;
            if *n == 0 {
                self.waiting.remove(&class);
            }
        }
        Some(claimed)
    }
}
