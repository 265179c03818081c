//! The record of a job.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::new::Parent;
use super::outcome::{Manifest, Outcome, Output};
use super::spec::{JobSpec, Priority};
use super::state::{Cause, State};
use super::unique::Held;
use crate::id::{JobId, Name, OwnerId, PipelineId, Tenant};
use crate::time::Timestamp;

/// The fencing number of a job: one higher with every claim. Only the current epoch can change the job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// Takes a number, as stored rows and wires keep it.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Returns the one that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often a job was sent round again: the number of its redrives.
pub type Generation = u16;

/// Who holds a job: an owner in one of its incarnations. How long is in the owner's row, not here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The owner.
    pub owner: OwnerId,
    /// Which life of the owner.
    pub incarnation: u64,
}

/// How the last run of a job ended: of a terminal job its outcome, of a pending one its last failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// When it ended, on the store's clock.
    pub at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// What it gave back.
    pub output: Output,
    /// What else it left behind.
    pub manifest: Option<Arc<Manifest>>,
}

/// A job as the store knows it. Cloning allocates nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub tenant: Tenant,
    /// What is to be done.
    pub spec: Arc<JobSpec>,
    /// The pipeline it is a step of.
    pub pipeline: Option<PipelineId>,
    /// The jobs that had to settle first.
    pub parents: Arc<[Parent]>,
    /// The key that no other job of the tenant has while this one [holds](Job::held_key) it.
    pub unique: Option<Arc<str>>,
    /// The fingerprint of its submission.
    pub fingerprint: Fingerprint,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it must have been claimed.
    pub deadline: Option<Timestamp>,

    /// Where it is.
    pub state: State,
    /// What brought it there.
    pub cause: Cause,
    /// Whether a running job was asked to stop.
    pub cancel_requested: bool,
    /// How many transitions it has made, its submission included.
    pub version: u32,
    /// How many runs began in this generation.
    pub attempt: u32,
    /// How many parents it still waits for; none once it has ended.
    pub waits_for: u32,
    /// How many owners died under it in this generation.
    pub lost_count: u16,
    /// How often it was redriven.
    pub generation: Generation,
    /// The fencing number of the last claim.
    pub epoch: Epoch,
    /// Not before this time; with the id, its place in its lane.
    pub eligible_at: Timestamp,
    /// When it came into its state.
    pub moved_at: Timestamp,
    /// When its last run began.
    pub started_at: Option<Timestamp>,
    /// Who holds it, while it is scheduled or running.
    pub lease: Option<Lease>,
    /// How its last run ended.
    pub settled: Option<Arc<Settled>>,
}

impl Job {
    /// Returns the unique key that it holds: one that it has left is no more its own.
    #[must_use]
    pub fn held_key(&self) -> Option<&Arc<str>> {
        self.unique.as_ref().filter(|key| Held::of(key).by(self))
    }

    /// Goes through the parents that its submission named: without the one that only comes before it in its sequence.
    pub fn asked_parents(&self) -> impl Iterator<Item = Parent> + '_ {
        self.parents
            .iter()
            .filter_map(|Parent { id, requires }| Some(Parent { id: *id, requires: requires.asked()? }))
    }

    /// Returns how it ended, once it is terminal.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        self.settled.as_deref().filter(|_| self.state.is_terminal()).map(|settled| &settled.outcome)
    }

    /// Returns what it gave back, once it has succeeded.
    #[must_use]
    pub fn output(&self) -> Option<&Output> {
        self.settled.as_deref().filter(|_| self.state == State::Succeeded).map(|settled| &settled.output)
    }

    /// Returns the part that is read without decoding the spec.
    #[must_use]
    pub fn summary(&self) -> JobSummary {
        JobSummary {
            id: self.id,
            tenant: self.tenant.clone(),
            name: self.spec.name().clone(),
            queue: self.spec.queue().clone(),
            priority: self.spec.priority(),
            pipeline: self.pipeline,
            state: self.state,
            cause: self.cause,
            cancel_requested: self.cancel_requested,
            version: self.version,
            attempt: self.attempt,
            epoch: self.epoch,
            created_at: self.created_at,
            eligible_at: self.eligible_at,
            moved_at: self.moved_at,
            started_at: self.started_at,
        }
    }
}

/// The part of a job that lists show; read without decoding its spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSummary {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub tenant: Tenant,
    /// What people call it.
    pub name: Name,
    /// The queue it waits in.
    pub queue: Name,
    /// How urgent it is.
    pub priority: Priority,
    /// The pipeline it is a step of.
    pub pipeline: Option<PipelineId>,
    /// Where it is.
    pub state: State,
    /// What brought it there.
    pub cause: Cause,
    /// Whether a running job was asked to stop.
    pub cancel_requested: bool,
    /// How many transitions it has made.
    pub version: u32,
    /// How many runs began in this generation.
    pub attempt: u32,
    /// The fencing number of the last claim.
    pub epoch: Epoch,
    /// When it was stored.
    pub created_at: Timestamp,
    /// Not before this time.
    pub eligible_at: Timestamp,
    /// When it came into its state.
    pub moved_at: Timestamp,
    /// When its last run began.
    pub started_at: Option<Timestamp>,
}
