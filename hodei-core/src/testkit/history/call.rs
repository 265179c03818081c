//! The verbs of a store as they are recorded.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::entry::{LimitSeen, QueueSeen};
use super::facts::{Facts, Seen};
use super::log::numbers;
use crate::id::{JobId, Name, OwnerId, Tenant};
use crate::job::{Cause, Epoch, Lease, Priority, RequestClass};
use crate::store::{
    Applied, CancelReply, Change, Fired, Lane, Limit, LimitOf, LimitUse, Move, Pick, QueueCounts, Rate,
    Redriven, Scope, Submitted, Term, Transition,
};
use crate::time::Timestamp;

/// What was asked of a store. A `scope` is a tenant, or nothing for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are those of the verbs of the same names")]
pub enum Call {
    /// [`JobStore::submit`](crate::store::JobStore::submit).
    Submit { jobs: Vec<Facts>, atomic: bool },
    /// [`JobStore::lanes`](crate::store::JobStore::lanes).
    Lanes,
    /// [`JobStore::exchange`](crate::store::JobStore::exchange).
    Exchange { owner: Lease, steps: Vec<Step>, wants: Vec<Want> },
    /// [`JobStore::request_cancel`](crate::store::JobStore::request_cancel).
    RequestCancel { scope: Option<Tenant>, jobs: Vec<JobId> },
    /// [`JobStore::leases_of`](crate::store::JobStore::leases_of).
    LeasesOf { owner: Lease },
    /// [`JobStore::redrive`](crate::store::JobStore::redrive).
    Redrive { scope: Option<Tenant>, jobs: Vec<JobId> },
    /// [`JobStore::reap`](crate::store::JobStore::reap).
    Reap { duty: Name, term: u64, lost_max: u16 },
    /// [`JobStore::fire`](crate::store::JobStore::fire).
    Fire { duty: Name, term: u64, tenant: Tenant, schedule: Name, at: Timestamp },
    /// [`JobStore::prune`](crate::store::JobStore::prune), and how many changes it keeps.
    Prune { duty: Name, term: u64, keep: u64 },
    /// [`JobStore::get_many`](crate::store::JobStore::get_many); `latest` unless it may come from a cache.
    GetMany { scope: Option<Tenant>, jobs: Vec<JobId>, latest: bool },
    /// [`JobStore::query`](crate::store::JobStore::query), or a batch of
    /// [`JobStore::stream`](crate::store::JobStore::stream).
    Query { scope: Option<Tenant> },
    /// [`JobStore::outputs`](crate::store::JobStore::outputs).
    Outputs { scope: Option<Tenant>, jobs: Vec<JobId> },
    /// [`JobStore::counts`](crate::store::JobStore::counts).
    Counts { scope: Option<Tenant> },
    /// [`JobStore::queue_counts`](crate::store::JobStore::queue_counts), of the queues of that name.
    QueueCounts { scope: Option<Tenant>, queue: Option<Name> },
    /// [`JobStore::changes`](crate::store::JobStore::changes).
    Changes { scope: Option<Tenant> },
    /// [`JobStore::changes_end`](crate::store::JobStore::changes_end).
    ChangesEnd,
    /// [`JobStore::verify_indexes`](crate::store::JobStore::verify_indexes).
    VerifyIndexes,
    /// [`Coordination::register`](crate::store::Coordination::register).
    Register { owner: OwnerId },
    /// [`Coordination::beat`](crate::store::Coordination::beat).
    Beat { owners: Vec<Lease> },
    /// [`Coordination::retire`](crate::store::Coordination::retire).
    Retire { owner: Lease },
    /// [`Coordination::take_term`](crate::store::Coordination::take_term).
    TakeTerm { duty: Name, holder: Lease },
    /// [`Coordination::keep_term`](crate::store::Coordination::keep_term).
    KeepTerm { duty: Name, term: u64 },
    /// [`Policies::set_queue`](crate::store::Policies::set_queue).
    SetQueue { tenant: Tenant, queue: Name, paused: bool },
    /// [`Policies::queues`](crate::store::Policies::queues).
    Queues { scope: Option<Tenant> },
    /// [`Policies::set_limit`](crate::store::Policies::set_limit).
    SetLimit {
        of: LimitOf,
        max: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate: Option<Rate>,
    },
    /// [`Policies::remove_limit`](crate::store::Policies::remove_limit).
    RemoveLimit { of: LimitOf },
    /// [`Policies::limits`](crate::store::Policies::limits).
    Limits { scope: Option<Tenant> },
    /// [`Policies::set_schedule`](crate::store::Policies::set_schedule).
    SetSchedule { tenant: Tenant, schedule: Name },
    /// [`Policies::remove_schedule`](crate::store::Policies::remove_schedule).
    RemoveSchedule { tenant: Tenant, schedule: Name },
    /// [`Policies::schedules`](crate::store::Policies::schedules).
    Schedules { scope: Option<Tenant> },
}

impl Call {
    /// Says whether it may move a job.
    #[must_use]
    pub const fn moves_jobs(&self) -> bool {
        matches!(
            self,
            Self::Submit { .. }
                | Self::Exchange { .. }
                | Self::RequestCancel { .. }
                | Self::Redrive { .. }
                | Self::Reap { .. }
                | Self::Fire { .. }
                | Self::Prune { .. }
        )
    }

    /// Returns the tenant that it was kept to.
    #[must_use]
    pub const fn scope(&self) -> Option<&Tenant> {
        match self {
            Self::RequestCancel { scope, .. }
            | Self::Redrive { scope, .. }
            | Self::GetMany { scope, .. }
            | Self::Query { scope }
            | Self::Outputs { scope, .. }
            | Self::Counts { scope }
            | Self::QueueCounts { scope, .. }
            | Self::Changes { scope }
            | Self::Queues { scope }
            | Self::Limits { scope }
            | Self::Schedules { scope } => scope.as_ref(),
            _ => None,
        }
    }
}

/// What a store answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are those of the replies of the same verbs")]
pub enum Reply {
    /// Nothing that matters.
    Done,
    /// To a submission.
    Submitted { replies: Vec<Submitted>, changes: Vec<Change> },
    /// To an exchange.
    Exchanged {
        applied: Vec<Applied>,
        claimed: Vec<(Seen, Facts)>,
        owner_lost: bool,
        changes: Vec<Change>,
        #[serde(default)]
        partial: bool,
    },
    /// To a request to cancel.
    Cancelled { replies: Vec<CancelReply>, changes: Vec<Change> },
    /// To a redrive.
    Redriven { replies: Vec<Redriven>, changes: Vec<Change> },
    /// To a reaping.
    Reaped {
        changes: Vec<Change>,
        term_lost: bool,
        #[serde(default)]
        partial: bool,
    },
    /// To a firing.
    Fired { fired: Fired },
    /// To a pruning.
    Pruned {
        jobs: u64,
        changes: u64,
        term_lost: bool,
        #[serde(default)]
        partial: bool,
    },
    /// To a read by id: one per id asked for. Of leases, what is held.
    Jobs { jobs: Vec<Option<Seen>> },
    /// To a read that lists: a page.
    Listed { jobs: Vec<Seen> },
    /// To a question for outputs: whether there was one, per id asked for.
    Outputs { known: Vec<bool> },
    /// To a question for counts.
    Counts { counts: Vec<u64> },
    /// To a question for the counts of queues: those of a page.
    QueueCounts { counted: Vec<QueueSeen> },
    /// To a read of the change log.
    Changes { changes: Vec<Change> },
    /// To a registration.
    Registered { lease: Lease },
    /// To a taking of a term: its number, if it was taken.
    Term { number: Option<u64> },
    /// To a question for policies: whose they are.
    Tenants { tenants: Vec<Tenant> },
    /// To a question for limits.
    Limits { limits: Vec<LimitSeen> },
}

impl Reply {
    /// Returns the changes that the call says it committed.
    #[must_use]
    pub fn committed(&self) -> &[Change] {
        match self {
            Self::Submitted { changes, .. }
            | Self::Exchanged { changes, .. }
            | Self::Cancelled { changes, .. }
            | Self::Redriven { changes, .. }
            | Self::Reaped { changes, .. } => changes,
            _ => &[],
        }
    }
}

/// A transition that an owner reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which job.
    pub job: JobId,
    /// The fencing number that the owner named.
    pub epoch: Epoch,
    /// What happened.
    pub cause: Cause,
    /// How long the job is to wait, where it goes back.
    pub wait: Option<Duration>,
    /// How many losses are one too many, where it was lost.
    pub lost_max: Option<u16>,
    /// What is to be submitted with it.
    pub spawn: Vec<Facts>,
}

impl From<&Transition> for Step {
    fn from(transition: &Transition) -> Self {
        let Transition { job, epoch, step: made } = transition;
        let cause = made.cause();
        let mut step =
            Self { job: *job, epoch: *epoch, cause, wait: None, lost_max: None, spawn: Vec::new() };
        match made {
            Move::Retried { wait, .. } | Move::Snoozed { wait } => step.wait = Some(*wait),
            Move::Finished(finish) => step.spawn = finish.spawn.iter().map(Facts::of_new).collect(),
            Move::Lost { lost_max } => step.lost_max = Some(*lost_max),
            Move::Started { .. } | Move::Returned | Move::Preempted => {}
        }
        step
    }
}

fn highest() -> Priority {
    Priority::MAX
}

fn is_highest(level: &Priority) -> bool {
    *level == Priority::MAX
}

/// What an owner wanted of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Whose lane.
    pub tenant: Tenant,
    /// Of which queue.
    pub queue: Name,
    /// What its jobs ask of a worker.
    pub class: RequestClass,
    /// The lowest level.
    pub floor: Priority,
    /// The highest level.
    #[serde(default = "highest", skip_serializing_if = "is_highest")]
    pub ceiling: Priority,
    /// How many at most.
    pub n: u32,
}

impl Want {
    /// Says whether a lane is the one wanted.
    #[must_use]
    pub fn is_of(&self, lane: &Lane) -> bool {
        (&self.tenant, &self.queue, self.class) == (&lane.tenant, &lane.queue, lane.class)
    }

    /// Says whether jobs of a level are wanted.
    #[must_use]
    pub fn covers(&self, level: Priority) -> bool {
        (self.floor..=self.ceiling).contains(&level)
    }
}

impl From<&Pick> for Want {
    fn from(pick: &Pick) -> Self {
        let Lane { tenant, queue, class } = pick.lane.clone();
        Self { tenant, queue, class, floor: pick.floor, ceiling: pick.ceiling, n: pick.n }
    }
}

impl From<&LimitUse> for LimitSeen {
    fn from(used: &LimitUse) -> Self {
        let Limit { of, max, .. } = used.limit.clone();
        Self { of, max, in_use: used.in_use }
    }
}

impl From<&QueueCounts> for QueueSeen {
    fn from(of: &QueueCounts) -> Self {
        let QueueCounts { tenant, queue, counts } = of.clone();
        Self { tenant, queue, counts: numbers(counts) }
    }
}

/// Returns the tenant of a scope; nothing for all of them.
pub(super) fn tenant_of(scope: &Scope) -> Option<Tenant> {
    match scope {
        Scope::Tenant(tenant) => Some(tenant.clone()),
        Scope::All => None,
    }
}

/// Returns the duty and the number of a term.
pub(super) fn duty_of(term: &Term) -> (Name, u64) {
    (term.duty.clone(), term.number)
}
