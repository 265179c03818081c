//! What the bus carries.

use serde::{Deserialize, Serialize};

use crate::id::{JobId, Name, PipelineId, Tenant};
use crate::job::{Cause, Epoch, State};
use crate::store::Change;
use crate::time::Timestamp;

/// Something that happened. At most 64 bytes, so that it travels inline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// A job made a transition, after its commit.
    Job(JobEvent),
    /// A running job told how far it is.
    Progress(Progress),
    /// A worker came or went.
    Worker(WorkerEvent),
}

const _: () = assert!(size_of::<Event>() <= 64, "events travel inline");

/// A committed transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEvent {
    /// Which job.
    pub job: JobId,
    /// Whose it is.
    pub tenant: Tenant,
    /// When, on the store's clock.
    pub at: Timestamp,
    /// The fencing number after the transition.
    pub epoch: Epoch,
    /// The version after the transition; a gap shows that something was missed.
    pub version: u32,
    /// How many runs had begun.
    pub attempt: u32,
    /// Where it came from; nothing for a submission.
    pub from: Option<State>,
    /// Where it went.
    pub to: State,
    /// Why.
    pub cause: Cause,
}

/// How far a running job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which job.
    pub job: JobId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Steps done.
    pub done: u32,
    /// Steps in all.
    pub total: u32,
}

/// A worker that came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerEvent {
    /// Which worker.
    pub worker: Name,
    /// In which of its lives.
    pub incarnation: u64,
    /// When, on the node's clock.
    pub at: Timestamp,
    /// Whether it is there now.
    pub connected: bool,
}

/// What kind of event it is, for filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// A job came into this state.
    Blocked = 0,
    /// A job came into this state.
    Pending = 1,
    /// A job came into this state.
    Scheduled = 2,
    /// A job came into this state.
    Running = 3,
    /// A job came into this state.
    Succeeded = 4,
    /// A job came into this state.
    Failed = 5,
    /// A job came into this state.
    Cancelled = 6,
    /// A running job told how far it is.
    Progress = 7,
    /// A worker came or went.
    Worker = 8,
}

impl From<State> for EventKind {
    fn from(state: State) -> Self {
        match state {
            State::Blocked => Self::Blocked,
            State::Pending => Self::Pending,
            State::Scheduled => Self::Scheduled,
            State::Running => Self::Running,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

/// What filters look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys<'a> {
    /// What kind of event it is.
    pub kind: EventKind,
    /// Whose it is.
    pub tenant: Option<&'a Tenant>,
    /// Which job it is about.
    pub job: Option<JobId>,
    /// The queue of that job, where it is known.
    pub queue: Option<&'a Name>,
    /// The pipeline that the job is a step of, where it is known.
    pub pipeline: Option<PipelineId>,
}

impl EventKind {
    /// How many kinds there are.
    pub const COUNT: usize = 9;
}

impl Event {
    /// Returns what filters may look at. An event does not carry its queue and its pipeline; a [`Change`] does.
    #[must_use]
    pub fn keys(&self) -> Keys<'_> {
        Keys { kind: self.kind(), tenant: self.tenant(), job: self.job(), queue: None, pipeline: None }
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Job(event) => event.to.into(),
            Self::Progress(_) => EventKind::Progress,
            Self::Worker(_) => EventKind::Worker,
        }
    }

    /// Returns the job it is about.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Job(event) => Some(event.job),
            Self::Progress(event) => Some(event.job),
            Self::Worker(_) => None,
        }
    }

    /// Returns whose it is; nobody's events are for those who see every tenant.
    #[must_use]
    pub fn tenant(&self) -> Option<&Tenant> {
        match self {
            Self::Job(event) => Some(&event.tenant),
            Self::Progress(event) => Some(&event.tenant),
            Self::Worker(_) => None,
        }
    }
}

impl From<&Change> for Event {
    fn from(change: &Change) -> Self {
        Self::Job(JobEvent {
            job: change.job,
            tenant: change.tenant.clone(),
            at: change.at,
            epoch: change.epoch,
            version: change.version,
            attempt: change.attempt,
            from: change.from,
            to: change.to,
            cause: change.cause,
        })
    }
}

impl Change {
    /// Returns what filters may look at.
    #[must_use]
    pub fn keys(&self) -> Keys<'_> {
        Keys {
            kind: self.to.into(),
            tenant: Some(&self.tenant),
            job: Some(self.job),
            queue: self.queue.as_ref(),
            pipeline: self.pipeline,
        }
    }
}
