//! Settle and claim in one round trip.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::change::Change;
use super::lane::Pick;
use crate::id::{JobId, Name};
use crate::job::{Cause, Epoch, Failure, Finish, Job, Lease, Manifest, Outcome, Output};
use crate::time::Timestamp;

/// What an owner reports of a job it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// Which job.
    pub job: JobId,
    /// The fencing number under which the owner holds it.
    pub epoch: Epoch,
    /// What happened.
    pub step: Move,
}

/// What happened to a leased job.
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    /// A run began. The attempt rises by one; the lease goes to another owner where one is named.
    Started {
        /// Who holds the job from now on, if not who holds it now.
        lease: Option<Lease>,
    },
    /// The run ended for good.
    Finished(Box<Finish>),
    /// The run failed and another attempt follows.
    Retried {
        /// Why it failed.
        failure: Failure,
        /// How long to wait, from the store's now.
        wait: Duration,
        /// What the run left behind.
        manifest: Option<Arc<Manifest>>,
    },
    /// The handler asked to be called again later; costs no attempt.
    Snoozed {
        /// How long to wait, from the store's now.
        wait: Duration,
    },
    /// The owner gives the job back unstarted; it keeps its place.
    Returned,
    /// The owner stopped the run in favour of another job; costs no attempt.
    Preempted,
    /// Whoever ran it for the owner died. Raises only the count of losses; with `lost_max` of them the job fails for
    /// good.
    Lost {
        /// How many losses are one too many; at least one.
        lost_max: u16,
    },
}

impl Move {
    /// Returns the cause that the transition records, unless the job goes another way: cancelled where somebody asked
    /// for its end, failed where it was lost once too often.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Started { .. } => Cause::Started,
            Self::Finished(finish) => match finish.outcome {
                Outcome::Succeeded => Cause::Succeeded,
                Outcome::Failed(_) => Cause::Failed,
                Outcome::Cancelled => Cause::Cancelled,
            },
            Self::Retried { .. } => Cause::Retried,
            Self::Snoozed { .. } => Cause::Snoozed,
            Self::Returned => Cause::Returned,
            Self::Preempted => Cause::Preempted,
            Self::Lost { .. } => Cause::Lost,
        }
    }
}

/// What became of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// It was made now.
    Done,
    /// It was made before; nothing changed.
    AlreadyApplied,
    /// The caller's epoch is no longer the job's, or nobody holds the job any more; nothing changed.
    LeaseLost {
        /// The epoch that the caller named.
        held: Epoch,
        /// The epoch of the job.
        current: Epoch,
    },
    /// The state machine has no such move; nothing changed.
    Illegal,
    /// There is no such job.
    NotFound,
    /// The part of the store that holds the job does not answer, or is just moving it elsewhere: perhaps it was made.
    /// Tell it again after a while; the others of the batch are not held up.
    Unavailable,
}

/// One round trip of an owner: settle what ended, then claim what can start. Either half may be empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// Who claims. Its row must be registered and alive for the claims, not for the transitions; a store that may have come
    /// back without what it acknowledged last refuses those of owners that registered before.
    pub owner: Lease,
    /// What it reports, applied in order.
    pub transitions: Vec<Transition>,
    /// What it wants, granted in order.
    pub picks: Vec<Pick>,
}

/// What came of an [`Exchange`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exchanged {
    /// What became of each transition, in their order.
    pub applied: Vec<Applied>,
    /// What was claimed, in the order of the picks. A job that lost an owner before is alone in the claim of its
    /// pick.
    pub claimed: Vec<Claimed>,
    /// What else the owner holds unstarted in a part of the store whose last reply to it was lost: perhaps claimed then,
    /// perhaps known for long, told apart by (job, epoch). Empty where a store answers as a whole.
    pub reclaimed: Vec<Claimed>,
    /// Whether the owner's row is gone, expired or of a later incarnation: nothing was claimed, and whatever it
    /// still runs must stop.
    pub owner_lost: bool,
    /// When the next delayed job becomes ready, of whichever queue.
    pub next_due: Option<Timestamp>,
    /// Every change that the call committed, those of children and spawned jobs included, in their order.
    pub changes: Vec<Change>,
    /// Whether a part of the store did not answer: nobody tells whether it committed, and what. Never set where a store
    /// answers as a whole.
    pub partial: bool,
}

/// A job that its owner now holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The job, with the epoch to act under; shared by all who handle it from here on.
    pub job: Arc<Job>,
    /// What its direct parents gave back.
    pub inputs: Arc<[Input]>,
}

/// What a parent gave back.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The parent.
    pub job: JobId,
    /// The parent's name.
    pub name: Name,
    /// Its output; empty when it did not succeed.
    pub output: Output,
}
