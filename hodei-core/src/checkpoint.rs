//! The port of checkpoints: how far a run has come, for the one that follows it.
//!
//! A checkpoint is fenced by the epoch of the run that writes it. Whoever opens it raises the fence; a run that lost its
//! lease and does not know it can no longer write over what its successor goes by.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, Tenant};
use crate::job::Epoch;

/// The largest checkpoint, in bytes.
pub const CHECKPOINT_MAX: usize = 256 * 1024;

/// Keeps one checkpoint per job.
///
/// # Cancel safety
///
/// A dropped write may have happened, whole; repeating it does no harm. Reads may be dropped at any point.
#[async_trait]
pub trait CheckpointStore: Send + Sync + fmt::Debug {
    /// Opens a job's checkpoint for a run, and returns what was saved last.
    ///
    /// # Behavior
    ///
    /// From then on runs of lower epochs can neither open it nor save.
    ///
    /// # Errors
    ///
    /// `LeaseLost` when a run of a higher epoch has opened it or saved; else those of the store itself.
    async fn open(&self, tenant: &Tenant, job: JobId, epoch: Epoch) -> Result<Option<Bytes>>;

    /// Saves how far a run has come, in the place of what was saved before. An `Ok` is the acknowledgement.
    ///
    /// # Errors
    ///
    /// `LeaseLost` when a run of a higher epoch has opened it or saved: stop the work. `LimitExceeded` above
    /// [`CHECKPOINT_MAX`]; else those of the store itself, and then what was saved before or this is there.
    async fn save(&self, tenant: &Tenant, job: JobId, epoch: Epoch, bytes: Bytes) -> Result<()>;

    /// Removes the checkpoints of jobs that are no longer kept. Idempotent.
    ///
    /// # Errors
    ///
    /// Only those of the store itself; some may be gone then.
    async fn forget(&self, jobs: Vec<(Tenant, JobId)>) -> Result<()>;
}

const _: fn(&dyn CheckpointStore) = |_| ();

/// A checkpoint as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose job it is.
    pub tenant: Tenant,
    /// The job.
    pub job: JobId,
    /// The highest epoch that has opened it or saved; lower ones are shut out.
    pub fence: Epoch,
    /// What was saved last; nothing when it was only opened.
    pub saved: Option<Bytes>,
}

/// Says whether bytes are too many for a checkpoint.
///
/// # Errors
///
/// `LimitExceeded` above [`CHECKPOINT_MAX`].
pub fn check_size(bytes: &[u8]) -> Result<()> {
    if bytes.len() <= CHECKPOINT_MAX {
        return Ok(());
    }
    let error = Error::new(ErrorKind::LimitExceeded, "checkpoint.save");
    Err(error.with("bytes", bytes.len()).with("limit", CHECKPOINT_MAX))
}

/// Holds a run against the fence of a checkpoint.
///
/// # Errors
///
/// `LeaseLost` when the fence is higher.
pub fn check_fence(epoch: Epoch, fence: Epoch) -> Result<()> {
    if epoch >= fence {
        return Ok(());
    }
    Err(Error::new(ErrorKind::LeaseLost, "checkpoint").with("held", epoch).with("current", fence))
}

/// Checkpoints in memory, gone with the process: they outlive runs and agents, but not the host.
#[derive(Debug, Default)]
pub struct MemoryCheckpoints {
    /// A std mutex, held for a look-up.
    kept: Mutex<HashMap<(Tenant, JobId), Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    fence: Epoch,
    bytes: Option<Bytes>,
}

impl MemoryCheckpoints {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<(Tenant, JobId), Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CheckpointStore for MemoryCheckpoints {
    async fn open(&self, tenant: &Tenant, job: JobId, epoch: Epoch) -> Result<Option<Bytes>> {
        let mut kept = self.kept();
        let kept = kept.entry((tenant.clone(), job)).or_default();
        check_fence(epoch, kept.fence)?;
        kept.fence = epoch;
        Ok(kept.bytes.clone())
    }

    async fn save(&self, tenant: &Tenant, job: JobId, epoch: Epoch, bytes: Bytes) -> Result<()> {
        check_size(&bytes)?;
        let mut kept = self.kept();
        let kept = kept.entry((tenant.clone(), job)).or_default();
        check_fence(epoch, kept.fence)?;
        *kept = Kept { fence: epoch, bytes: Some(bytes) };
        Ok(())
    }

    async fn forget(&self, jobs: Vec<(Tenant, JobId)>) -> Result<()> {
        let mut kept = self.kept();
        jobs.iter().for_each(|job| drop(kept.remove(job)));
        Ok(())
    }
}
