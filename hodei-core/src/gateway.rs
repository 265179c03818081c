//! How work reaches an agent and its reports come back.
//!
//! One verb, [`WorkerGateway::sync`]: the agent says what it has, what it runs and what ended, and is told what it
//! should do. It is idempotent and level-triggered. Each side repeats what the other has not confirmed, so a lost
//! call loses nothing, and the in-process link and a wire carry the same values.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::id::{JobId, Name, Tenant};
use crate::job::{Epoch, Finish, Job, Resources, Runs};
use crate::store::Input;
use crate::text::TextMap;

/// What a worker has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What it can run.
    pub runs: Vec<Runs>,
    /// Its resources in all.
    pub capacity: Resources,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// What it says about itself.
    pub labels: TextMap,
}

/// A job that an agent has and has not reported the end of, or one that it runs under an older epoch and is ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningJob {
    /// Which job.
    pub job: JobId,
    /// Under which epoch.
    pub epoch: Epoch,
    /// How far it is: steps done and steps in all.
    pub progress: Option<(u32, u32)>,
    /// Whose it is.
    pub tenant: Tenant,
    /// In which queue.
    pub queue: Name,
    /// What was set aside for it beside a slot, with what it says of its place. A node that knows nothing of the run keeps that
    /// room for it until it has ended, and away from it whom it is kept apart from.
    pub resources: Resources,
    /// The other workers on which as much was set aside for it; those of a gang only. A node keeps that, too, on those that it
    /// has.
    pub beside: Option<Arc<[Peer]>>,
}

impl RunningJob {
    /// What an agent says of a job from when it was assigned.
    #[must_use]
    pub fn of(assignment: &Assignment) -> Self {
        let Assignment { job, beside, memory, .. } = assignment;
        Self {
            job: job.id,
            epoch: job.epoch,
            progress: None,
            tenant: job.tenant.clone(),
            queue: job.spec.queue().clone(),
            resources: job.spec.resources().clone().memory(*memory),
            beside: beside.clone(),
        }
    }
}

/// What happened to a job that was assigned.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Counts the reports of the session from one.
    pub number: u64,
    /// Which job.
    pub job: JobId,
    /// Under which epoch.
    pub epoch: Epoch,
    /// What happened.
    pub news: News,
}

/// What happened to a job that was assigned.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// The run began.
    Started,
    /// The run ended. Whether a failure is final is not the agent's to say.
    Ended(Box<Finish>),
    /// The handler asked to be called again later.
    Snoozed(Duration),
    /// It was not started and will not be.
    Returned,
}

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionState {
    /// The worker that the agent serves.
    pub worker: Name,
    /// Which life of the agent; higher than every one before.
    pub incarnation: u64,
    /// Counts the calls of the session; an older call than the last one is ignored.
    pub seq: u64,
    /// The number of the last [`Desired`] that was taken in.
    pub seen: u64,
    /// What the worker has.
    pub offer: Arc<Offer>,
    /// Everything that takes room: what was assigned and not reported as ended, and what is ending under an older epoch.
    pub running: Vec<RunningJob>,
    /// The reports after the last one that was received, in order.
    pub reports: Vec<Report>,
    /// Whether it takes no more work.
    pub draining: bool,
}

/// A job to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The job, with the epoch to run it under.
    pub job: Arc<Job>,
    /// What its direct parents gave back.
    pub inputs: Arc<[Input]>,
    /// The other workers on which room was set aside for it; those of a gang only.
    pub beside: Option<Arc<[Peer]>>,
    /// How much memory was set aside for it, in bytes: what it asks for, or more where runs of it or of its kind ran out of
    /// that; 0 where it asks for none.
    pub memory: u64,
}

/// A worker on which room was set aside for a job that runs on another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub worker: Name,
    /// What it says about itself: its address, where the application puts that into a label.
    pub labels: TextMap,
}

/// A job to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Which job.
    pub job: JobId,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Why.
    pub why: StopCause,
}

/// Why a job must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopCause {
    /// Somebody cancelled it.
    Cancelled,
    /// It is no longer this agent's to run; its end will not be accepted.
    LeaseLost,
}

/// What an agent should do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Counts the replies of the session.
    pub number: u64,
    /// Jobs to run. Those that are running already, or were run under this epoch before, are repetitions.
    pub assign: Vec<Assignment>,
    /// Jobs to stop: all that are to, as long as the agent says that they run. Those that end already are repetitions.
    pub stop: Vec<Stop>,
    /// Reports up to this number have arrived and need not be sent again to this node.
    pub received: u64,
    /// Reports up to this number are durable and may be forgotten.
    pub acked: u64,
    /// When to sync again at the latest.
    pub next_sync: Duration,
    /// The [`seq`](SessionState::seq) of the call that this answers. An agent takes in one answer to the last call that it
    /// made, and no other: so what it runs is what that call said, and what this says.
    pub answers: u64,
    /// How long after it made that call the agent may run on without another answer. When that is over it ends what it
    /// runs: somebody else may be about to run it. Nothing where the node sets no bound.
    pub alone: Option<Duration>,
}

/// The node's end of the link to agents.
#[async_trait]
pub trait WorkerGateway: Send + Sync + fmt::Debug {
    /// Exchanges what is for what should be. Waits until there is news for the agent, up to the `next_sync` of the
    /// reply before.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what a dropped reply said is said again.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the node shuts down; `Conflict` when a later life of the same worker is connected.
    async fn sync(&self, state: SessionState) -> Result<Desired>;
}

const _: fn(&dyn WorkerGateway) = |_| ();
