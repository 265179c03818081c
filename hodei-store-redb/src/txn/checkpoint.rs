//! How far runs have come.

use bytes::Bytes;
use hodei_core::checkpoint::{Checkpoint, check_fence};
use hodei_core::job::Epoch;
use hodei_core::{JobId, Result, Tenant};

use super::work::Work;
use crate::codec;
use crate::error::corrupt;
use crate::key;
use crate::rows::{Rows, Span};
use crate::table::Tab;

/// Opens the checkpoint of a job for a run: lower epochs are shut out from then on.
pub(crate) fn open_checkpoint(
    work: &mut Work<'_, '_>,
    (tenant, job): (&Tenant, JobId),
    epoch: Epoch,
) -> Result<Option<Bytes>> {
    let key = key::checkpoint(job, tenant);
    let (fence, saved) = work.read(Tab::Checkpoints, &key, codec::checkpoint)?.unwrap_or_default();
    check_fence(epoch, fence)?;
    if epoch > fence {
        work.put(Tab::Checkpoints, &key, &codec::checkpoint_row(epoch, saved.as_deref())?)?;
    }
    Ok(saved)
}

/// Saves how far a run has come; the caller has held its size to the limit.
pub(crate) fn save_checkpoint(
    work: &mut Work<'_, '_>,
    (tenant, job): (&Tenant, JobId),
    epoch: Epoch,
    bytes: &Bytes,
) -> Result<()> {
    let key = key::checkpoint(job, tenant);
    let (fence, _) = work.read(Tab::Checkpoints, &key, codec::checkpoint)?.unwrap_or_default();
    check_fence(epoch, fence)?;
    work.put(Tab::Checkpoints, &key, &codec::checkpoint_row(epoch, Some(bytes))?)
}

/// Removes the checkpoints of jobs.
pub(crate) fn forget_checkpoints(work: &mut Work<'_, '_>, jobs: &[(Tenant, JobId)]) -> Result<()> {
    jobs.iter()
        .try_for_each(|(tenant, job)| work.remove(Tab::Checkpoints, &key::checkpoint(*job, tenant)).map(drop))
}

/// Stores a checkpoint that comes from elsewhere.
pub(crate) fn bring_checkpoint(work: &mut Work<'_, '_>, of: &Checkpoint) -> Result<()> {
    let row = codec::checkpoint_row(of.fence, of.saved.as_deref())?;
    work.put(Tab::Checkpoints, &key::checkpoint(of.job, &of.tenant), &row)
}

impl Work<'_, '_> {
    /// Says whether there is any checkpoint.
    pub(super) fn has_checkpoints(&mut self) -> Result<bool> {
        let mut any = false;
        self.scan(Tab::Checkpoints, Span::ALL, |_, _| {
            any = true;
            Ok(false)
        })?;
        Ok(any)
    }
}

/// Reads all checkpoints.
pub(crate) fn checkpoints(
    rows: &mut impl Rows,
    mut take: impl FnMut(&Checkpoint) -> Result<()>,
) -> Result<()> {
    rows.scan(Tab::Checkpoints, Span::ALL, |key, row| {
        let of = key::split_checkpoint(key);
        let (job, tenant) = of.ok_or_else(|| corrupt("store.export", "a bad key"))?;
        let (fence, saved) = codec::checkpoint(row)?;
        take(&Checkpoint { tenant, job, fence, saved })?;
        Ok(true)
    })
}
