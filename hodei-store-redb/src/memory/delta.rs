//! What a transaction will have changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hodei_core::job::{Request, State};
use hodei_core::map::{IdState, JobSet};
use hodei_core::store::{Change, Lane, QueueCounts};
use hodei_core::text::Texts;
use hodei_core::{JobId, Name, Slot, Tenant, Timestamp};

use super::index::{LimitKey, limits_of};
use super::lane::{Place, Waiting};
use super::queues::{Moved, QueueDelta};
use super::rates::RatesDelta;
use super::slots::Moving;
use super::standing::{Standing, place_of};
use super::uncounted::UncountedDelta;
use super::wide::WideDelta;
use crate::codec::Head;
use crate::recent::Spare;

/// How many jobs that came together share a row of [`Tab::Open`](crate::table::Tab::Open) at most.
pub(crate) const BATCH: usize = 64;

/// A job that moved, and where it stood before; nowhere when it is new.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) was: Option<Standing>,
    pub(crate) head: Head,
}

impl Step {
    /// Lets go of what no transition needs.
    pub(crate) fn forget_work(&mut self) {
        drop(self.head.take_fixed());
    }
}

/// What a transaction will have changed of the index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delta {
    /// Jobs that moved, in order; the same one may be there more than once.
    #[expect(clippy::vec_box, reason = "a step is large, and goes from list to list")]
    pub(crate) steps: Vec<Box<Step>>,
    /// Room for more of them.
    pub(crate) spare: Spare,
    /// Jobs that came into or left a state.
    pub(crate) counts: HashMap<Tenant, Moved, IdState>,
    /// The same by queue.
    pub(crate) queues: QueueDelta,
    /// The same of jobs that are not counted by queue yet.
    pub(crate) uncounted: UncountedDelta,
    /// Lanes that are new, with what their jobs ask.
    pub(crate) new_lanes: HashMap<Lane, Arc<Request>, IdState>,
    /// Whether lanes in which nothing waits are to be forgotten.
    pub(crate) forget_idle: bool,
    /// Where the next pruning of jobs goes on.
    pub(crate) prune_from: Option<Vec<u8>>,
    /// Jobs that were removed.
    pub(crate) forgotten: Vec<JobId>,
    /// Uses of limits.
    pub(crate) in_use: HashMap<LimitKey, i64, IdState>,
    /// Limits that are wider than a key.
    pub(crate) wide: WideDelta,
    /// Rates of limits.
    pub(crate) rates: RatesDelta,
    /// How many changes were recorded.
    pub(crate) changes: u64,
    /// The new first change that is kept.
    pub(crate) floor: Option<u64>,
    /// The last incarnation that was given out.
    pub(crate) incarnation: Option<u64>,
    /// Jobs that were opened, in order: [`BATCH`] to a row.
    pub(crate) opened: Vec<JobId>,
    /// How many jobs of a row have ended.
    pub(crate) closed: HashMap<u64, u32, IdState>,
    /// What the sinks are told; nothing while there is none.
    pub(crate) committed: Vec<Change>,
    /// Slots that came to another phase.
    pub(crate) slots: Vec<(Slot, Moving)>,
    /// How many open jobs that nobody sees came into the rows that name them, or left them.
    pub(crate) apart: HashMap<u64, i64, IdState>,
    /// How many more jobs wait to be claimed that have moved before, out of sight or not.
    pub(crate) moved_rows: i64,
    /// The highest id that was stored where nobody sees it.
    pub(crate) highest: Option<JobId>,
    /// Whether something may be ready or has to stop.
    pub(crate) ring: bool,
    /// What the clock said last, where it was looked at.
    pub(crate) seen: Option<Timestamp>,
    /// The store's clock when the transaction ended.
    pub(crate) now: Timestamp,
    /// How many of the steps `added`, `gone` and `due` have taken in: only claims look at them.
    placed: usize,
    /// Whether a job came that has to wait for its time.
    delays: bool,
    /// Ready jobs that came into a lane, and are still there.
    added: HashMap<Lane, BTreeMap<Place, Waiting>, IdState>,
    /// Jobs that left the place they had before the transaction.
    gone: JobSet,
    /// Pending jobs that came, by when they are ready; looked at for what is due next.
    due: BTreeMap<(Timestamp, JobId), Waiting>,
}

impl Delta {
    /// Takes over jobs whose rows are written.
    pub(crate) fn take(&mut self, steps: impl IntoIterator<Item = Box<Step>>) {
        for step in steps {
            let job = &step.head.job;
            self.ring |= job.state == State::Pending;
            self.delays |= job.state == State::Pending && job.eligible_at > self.now;
            let before = step.was.as_ref().is_some_and(Standing::waits_again);
            self.moved_rows += i64::from(step.head.waits_again()) - i64::from(before);
            self.lease(&step);
            self.batch(&step);
            self.steps.push(step);
        }
    }

    /// Takes in where the jobs stand that have moved since the last time, before somebody looks at that.
    pub(crate) fn catch_up(&mut self) {
        let steps = std::mem::take(&mut self.steps);
        steps[self.placed..].iter().for_each(|step| self.wait(step, self.now));
        self.placed = steps.len();
        self.steps = steps;
    }

    /// Says whether a job came that has to wait for its time.
    pub(crate) fn delays(&self) -> bool {
        self.delays
    }

    /// Notes that a job came into, moved between or left states. Without a queue it is one that is not counted by queue yet.
    pub(crate) fn moved(
        &mut self,
        tenant: &Tenant,
        queue: Option<&Name>,
        from: Option<State>,
        to: Option<State>,
    ) {
        if from == to {
            return;
        }
        if !self.counts.contains_key(tenant) {
            self.counts.insert(tenant.clone(), Moved::default());
        }
        let of_tenant = self.counts.get_mut(tenant);
        let in_detail = match queue {
            Some(queue) => self.queues.of(tenant, queue),
            None => self.uncounted.moved.entry(tenant.clone()).or_default(),
        };
        for counts in of_tenant.into_iter().chain([in_detail]) {
            if let Some(from) = from {
                counts[from as usize] -= 1;
            }
            if let Some(to) = to {
                counts[to as usize] += 1;
            }
        }
    }

    /// Notes that so many jobs of a tenant in a state are counted by queue from now on.
    pub(crate) fn counted(&mut self, tenant: &Tenant, queue: &Name, state: State) {
        self.queues.of(tenant, queue)[state as usize] += 1;
        self.uncounted.moved.entry(tenant.clone()).or_default()[state as usize] -= 1;
    }

    /// Notes that all jobs of a queue come into sight, or go out of it.
    pub(crate) fn shown(&mut self, of: &QueueCounts, sign: i64) {
        let of_tenant = self.counts.entry(of.tenant.clone()).or_default();
        for counts in [of_tenant, self.queues.of(&of.tenant, &of.queue)] {
            for (state, change) in State::ALL.into_iter().zip(counts) {
                *change += sign * i64::try_from(of.counts.of(state)).unwrap_or(i64::MAX);
            }
        }
    }

    /// Returns how often limits came to be used, less how often they ceased to be.
    pub(crate) fn uses(&self, of: &LimitKey) -> i64 {
        self.in_use.get(of).copied().unwrap_or(0)
    }

    /// Says whether a job left the place that it had before.
    pub(super) fn has_left(&self, id: JobId) -> bool {
        self.gone.contains(&id)
    }

    /// Goes through the ready jobs that came into a lane.
    pub(super) fn added(&self, lane: &Lane) -> Option<&BTreeMap<Place, Waiting>> {
        self.added.get(lane)
    }

    /// Returns when the first of the pending jobs that came will be ready.
    pub(super) fn first_due(&self) -> Option<Timestamp> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    fn wait(&mut self, step: &Step, now: Timestamp) {
        let Step { was, head } = step;
        let before = was.as_ref().and_then(|was| was.place(head));
        let after = place_of(head);
        if let Some(place) = before {
            let lane = self.added.get_mut(&head.lane());
            let here = lane.is_some_and(|lane| lane.remove(&place).is_some())
                | self.due.remove(&(place.eligible_at, place.id)).is_some();
            if !here {
                self.gone.insert(place.id);
            }
        }
        if let Some((place, waiting)) = after {
            if place.eligible_at > now {
                self.due.insert((place.eligible_at, place.id), waiting);
            } else {
                self.added.entry(head.lane()).or_default().insert(place, waiting);
            }
        }
    }

    fn lease(&mut self, step: &Step) {
        let Step { was, head } = step;
        let job = &head.job;
        let before = was.as_ref().is_some_and(|was| was.lease.is_some());
        match (before, job.lease.is_some()) {
            (false, true) => self.use_limits(&job.tenant, &head.limit_keys, 1),
            (true, false) => self.use_limits(&job.tenant, &head.limit_keys, -1),
            _ => {}
        }
        self.ring |= job.cancel_requested && !was.as_ref().is_some_and(|was| was.cancel_requested);
    }

    /// Notes that a job began or ceased to count against its limits.
    fn use_limits(&mut self, tenant: &Tenant, keys: &Texts, change: i64) {
        for of in limits_of(tenant, keys) {
            *self.in_use.entry(of).or_default() += change;
            self.ring |= change < 0;
        }
    }

    fn batch(&mut self, step: &Step) {
        let closes = step.was.as_ref().is_none_or(Standing::is_open) && step.head.open_batch().is_none();
        if closes {
            *self.closed.entry(step.head.batch).or_default() += 1;
        }
    }
}
