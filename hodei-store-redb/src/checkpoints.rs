//! The store as the keeper of checkpoints.

use async_trait::async_trait;
use bytes::Bytes;
use hodei_core::checkpoint::{CheckpointStore, check_size};
use hodei_core::job::Epoch;
use hodei_core::{JobId, Result, Tenant};

use crate::store::RedbStore;
use crate::txn;

/// Checkpoints in the file of the jobs: synced with every save, gone with their jobs when these are pruned, part of
/// backups and exports. Saves share the commits of everything else that is written.
#[async_trait]
impl CheckpointStore for RedbStore {
    async fn open(&self, tenant: &Tenant, job: JobId, epoch: Epoch) -> Result<Option<Bytes>> {
        let tenant = tenant.clone();
        self.write("checkpoint.open", 1, move |work| txn::open_checkpoint(work, (&tenant, job), epoch)).await
    }

    async fn save(&self, tenant: &Tenant, job: JobId, epoch: Epoch, bytes: Bytes) -> Result<()> {
        check_size(&bytes)?;
        let tenant = tenant.clone();
        let save =
            move |work: &mut txn::Work<'_, '_>| txn::save_checkpoint(work, (&tenant, job), epoch, &bytes);
        self.write("checkpoint.save", 1, save).await
    }

    async fn forget(&self, jobs: Vec<(Tenant, JobId)>) -> Result<()> {
        self.write("checkpoint.forget", jobs.len(), move |work| txn::forget_checkpoints(work, &jobs)).await
    }
}
