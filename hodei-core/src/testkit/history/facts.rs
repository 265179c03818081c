//! The parts of a job that the checker needs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{JobId, Name, Tenant};
use crate::job::{
    Cause, Epoch, Fingerprint, Job, JobSpec, JobSummary, NewJob, Parent, Priority, RequestClass, State,
};
use crate::store::{Change, Lane};
use crate::time::Timestamp;

/// What never changes about a job, as far as guarantees speak of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its id.
    pub job: JobId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The fingerprint of its submission.
    pub fingerprint: Fingerprint,
    /// The key that no other job of the tenant has.
    pub unique: Option<Arc<str>>,
    /// The jobs that must settle first.
    pub parents: Arc<[Parent]>,
    /// The queue it waits in.
    pub queue: Name,
    /// What it asks of a worker.
    pub class: RequestClass,
    /// How urgent it is.
    pub priority: Priority,
    /// The limits it counts against while it is leased.
    pub limits: Vec<Name>,
    /// How many tokens of rates a claim of it takes.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub tokens: u32,
    /// The sequence in which it has its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Arc<str>>,
    /// How often it may start.
    pub max_attempts: u32,
    /// Not before this time.
    pub run_at: Option<Timestamp>,
    /// When it must have been claimed.
    pub deadline: Option<Timestamp>,
}

const fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it asks about by reference")]
const fn is_one(tokens: &u32) -> bool {
    *tokens == 1
}

impl Facts {
    /// Reads them off a submission.
    #[must_use]
    pub fn of_new(job: &NewJob) -> Self {
        Self {
            fingerprint: job.fingerprint(),
            unique: job.unique.clone(),
            parents: Arc::clone(&job.parents),
            run_at: job.run_at,
            deadline: job.deadline,
            ..Self::of_spec(job.id, &job.tenant, &job.spec)
        }
    }

    /// Reads them off a record. What the submission said of the time to run is no longer known.
    #[must_use]
    pub fn of_job(job: &Job) -> Self {
        Self {
            fingerprint: job.fingerprint,
            unique: job.unique.clone(),
            parents: job.asked_parents().collect(),
            deadline: job.deadline,
            ..Self::of_spec(job.id, &job.tenant, &job.spec)
        }
    }

    fn of_spec(job: JobId, tenant: &Tenant, spec: &JobSpec) -> Self {
        Self {
            job,
            tenant: tenant.clone(),
            fingerprint: Fingerprint::default(),
            unique: None,
            parents: Arc::from([]),
            queue: spec.queue().clone(),
            class: spec.class(),
            tokens: spec.resources().token_count(),
            priority: spec.priority(),
            limits: spec.limit_keys().iter().filter_map(|key| Name::new(key).ok()).collect(),
            sequence: spec.sequence().map(Arc::from),
            max_attempts: spec.retry().max_attempts,
            run_at: None,
            deadline: None,
        }
    }

    /// Returns the lane it waits in.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane { tenant: self.tenant.clone(), queue: self.queue.clone(), class: self.class }
    }
}

/// A job as a read showed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which job.
    pub job: JobId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Where it was.
    pub state: State,
    /// What had brought it there.
    pub cause: Cause,
    /// How many transitions it had made.
    pub version: u32,
    /// How many runs had begun.
    pub attempt: u32,
    /// The fencing number of its last claim.
    pub epoch: Epoch,
}

impl Seen {
    /// Says whether this is how a transition left the job.
    #[must_use]
    pub fn is_after(&self, change: &Change) -> bool {
        (self.job, &self.tenant, self.state, self.cause)
            == (change.job, &change.tenant, change.to, change.cause)
            && (self.version, self.attempt, self.epoch) == (change.version, change.attempt, change.epoch)
    }
}

impl From<&Job> for Seen {
    fn from(job: &Job) -> Self {
        Self {
            job: job.id,
            tenant: job.tenant.clone(),
            state: job.state,
            cause: job.cause,
            version: job.version,
            attempt: job.attempt,
            epoch: job.epoch,
        }
    }
}

impl From<&JobSummary> for Seen {
    fn from(job: &JobSummary) -> Self {
        Self {
            job: job.id,
            tenant: job.tenant.clone(),
            state: job.state,
            cause: job.cause,
            version: job.version,
            attempt: job.attempt,
            epoch: job.epoch,
        }
    }
}
