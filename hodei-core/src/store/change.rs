//! Recorded transitions.

use serde::{Deserialize, Serialize};

use super::query::Cursor;
use crate::id::{JobId, PipelineId, Tenant};
use crate::job::{Cause, Epoch, Job, State};
use crate::time::Timestamp;

/// A recorded transition. Written in the transaction that made it, it is the truth behind events, replay, audit and
/// cache invalidation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which job.
    pub job: JobId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The pipeline it is a step of.
    pub pipeline: Option<PipelineId>,
    /// The version of the job after the transition; rises by one each time.
    pub version: u32,
    /// Where it came from; nothing for a submission.
    pub from: Option<State>,
    /// Where it went.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// How many runs had begun.
    pub attempt: u32,
    /// The fencing number after the transition.
    pub epoch: Epoch,
    /// When, on the store's clock.
    pub at: Timestamp,
}

impl Change {
    /// Describes the transition that a record has just made.
    #[must_use]
    pub fn of(job: &Job, from: Option<State>) -> Self {
        Self {
            job: job.id,
            tenant: job.tenant.clone(),
            pipeline: job.pipeline,
            version: job.version,
            from,
            to: job.state,
            cause: job.cause,
            attempt: job.attempt,
            epoch: job.epoch,
            at: job.moved_at,
        }
    }
}

/// Changes in the order of their commits, and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangePage {
    /// The changes after the cursor; empty when there is none yet. A page may be short, in a tenant's scope even
    /// empty, and yet not be the last.
    pub changes: Vec<Change>,
    /// Where to go on; the last page gives back the cursor that waits for the next change.
    pub next: Cursor,
}

/// Which changes a store records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChangeLog {
    /// Every transition.
    #[default]
    All,
    /// Submissions and transitions into a terminal state. Replay and audit see no more than that.
    TerminalOnly,
    /// None: no replay, no audit, no cache invalidation.
    Off,
}

impl ChangeLog {
    /// Says whether a change is to be recorded.
    #[must_use]
    pub const fn records(self, change: &Change) -> bool {
        match self {
            Self::All => true,
            Self::TerminalOnly => change.to.is_terminal() || change.from.is_none(),
            Self::Off => false,
        }
    }
}
