//! Recorded transitions.

use serde::{Deserialize, Serialize};

use super::query::Cursor;
use crate::id::{JobId, Name, PipelineId, Tenant};
use crate::job::{Cause, Epoch, Job, State};
use crate::time::Timestamp;

/// A recorded transition. Written in the transaction that made it, it is the truth behind events, replay, audit and
/// cache invalidation.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// The queue of the job, for filters: known of a change that is told as it happens, not of one read back from a log
    /// that does not keep it. Not compared.
    #[serde(skip)]
    pub queue: Option<Name>,
}

/// Two descriptions of one transition are equal, whether the queue is known or not.
impl PartialEq for Change {
    fn eq(&self, other: &Self) -> bool {
        let facts = |change: &Self| {
            let Self { job, pipeline, version, from, to, cause, attempt, epoch, at, tenant: _, queue: _ } =
                *change;
            (job, pipeline, version, from, to, cause, attempt, epoch, at)
        };
        facts(self) == facts(other) && self.tenant == other.tenant
    }
}

impl Eq for Change {}

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
            queue: Some(job.spec.queue().clone()),
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
