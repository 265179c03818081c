//! Lanes: where ready work waits.

use std::sync::Arc;

use crate::id::{Name, Tenant};
use crate::job::{Job, Priority, Request, RequestClass};
use crate::time::Timestamp;

/// A queue of interchangeable work: one tenant's jobs of one queue that ask the same of a worker.
///
/// Inside a lane jobs are in the order of (level, highest first; eligible_at; id).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Whose work.
    pub tenant: Tenant,
    /// Of which queue.
    pub queue: Name,
    /// What it asks of a worker.
    pub class: RequestClass,
}

impl Lane {
    /// Returns the lane of a job.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self { tenant: job.tenant.clone(), queue: job.spec.queue().clone(), class: job.spec.class() }
    }
}

/// Which lanes a node asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Only lanes of these queues; all queues when absent.
    pub queues: Option<Vec<Name>>,
    /// Whether a lane is shown with each level at which it has ready work, and not with the highest alone: so one sees what
    /// has waited for long behind more urgent jobs of its lane.
    pub every_level: bool,
}

impl Served {
    /// Says whether a queue is served.
    #[must_use]
    pub fn covers(&self, queue: &Name) -> bool {
        self.queues.as_ref().is_none_or(|queues| queues.contains(queue))
    }
}

/// The most urgent ready work of a lane, or the first that it has at one of its levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneHead {
    /// Which lane.
    pub lane: Lane,
    /// What its jobs ask of a worker.
    pub request: Arc<Request>,
    /// The highest level with ready work; where every level was asked for, one with ready work.
    pub level: Priority,
    /// How many jobs are ready at that level, as far as the lane's limits leave room and its rates have tokens; at least one.
    pub depth: u64,
    /// Since when the first of them is ready.
    pub eligible_at: Timestamp,
    /// How the policy of the queue weighs it against others; 1 unless set.
    pub weight: u32,
}

/// What is ready, and when more will be.
///
/// Heads may be stale, but work that is ready is never missing for longer than a store's named bound. Lanes of
/// paused queues and lanes whose limits or rates are used up do not appear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lanes {
    /// One head per lane with ready work, or per lane and level where every level was asked for, in no order.
    pub heads: Vec<LaneHead>,
    /// When the next delayed job becomes ready, of whichever queue.
    pub next_due: Option<Timestamp>,
    /// When rates let more through than the heads show, if what they show is claimed now; nothing where no rate of a served
    /// lane holds anything back.
    pub opens_at: Option<Timestamp>,
}

/// How many ready jobs come before one: the more urgent ones, and of its level those that are ready for longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Those of its lane.
    pub lane: u64,
    /// Those of all lanes, its own among them. Tenants of a level take turns, so the one or other of them may come behind
    /// it all the same.
    pub all: u64,
    /// Whether there are more than were counted.
    pub more: bool,
}

impl Before {
    /// Adds those of a lane.
    pub fn add(&mut self, own: bool, jobs: u64) {
        self.lane += if own { jobs } else { 0 };
        self.all += jobs;
    }

    /// How many more are counted until it is known that there are more than so many. Lanes are gone through until it is 0, that
    /// of the job first: so counting costs what is counted, however many lanes there are.
    #[must_use]
    pub fn left(&self, most: u64) -> usize {
        usize::try_from(most.saturating_add(1).saturating_sub(self.all)).unwrap_or(usize::MAX)
    }

    /// Says that counting stopped beyond so many.
    #[must_use]
    pub fn up_to(self, most: u64) -> Self {
        Self { lane: self.lane.min(most), all: self.all.min(most), more: self.more || self.all > most }
    }
}

/// What to claim from a lane: up to `n` jobs between two levels, the most urgent first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Which lane.
    pub lane: Lane,
    /// Jobs below this level stay, so that a claim cannot overtake more urgent work of another lane.
    pub floor: Priority,
    /// Jobs above this level stay, so that a claim can take what has waited for long behind them.
    pub ceiling: Priority,
    /// How many at most.
    pub n: u32,
}

impl Pick {
    /// Says whether a job of a level may be claimed.
    #[must_use]
    pub fn covers(&self, level: Priority) -> bool {
        (self.floor..=self.ceiling).contains(&level)
    }
}
