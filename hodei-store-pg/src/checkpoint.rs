//! Checkpoints: how far runs have come.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hodei_core::checkpoint::{CheckpointStore, check_fence, check_size};
use hodei_core::job::Epoch;
use hodei_core::{Error, ErrorKind, JobId, Result, Tenant};
use uuid::Uuid;

use crate::ask;
use crate::error::{Stage, of};
use crate::inner::Inner;
use crate::names::column;
use crate::record::uuids;

/// Checkpoints in the database of a store, one for each job, which go when their jobs are pruned; made by
/// [`PgStore::checkpoints`](crate::PgStore::checkpoints). Cloning shares them.
///
/// The fence is held in the statement that writes. What was saved is on the disk of the server when it is acknowledged.
///
/// # Performance
///
/// A round trip for each call. A checkpoint is written anew with every save, at its full size.
#[derive(Clone, Debug)]
pub struct PgCheckpoints(pub(crate) Arc<Inner>);

#[async_trait]
impl CheckpointStore for PgCheckpoints {
    async fn open(&self, tenant: &Tenant, job: JobId, epoch: Epoch) -> Result<Option<Bytes>> {
        const OP: &str = "checkpoint.open";
        let row = self
            .one(OP, tenant, |no| {
                ask::query("SELECT fence, body FROM hodei.open_checkpoint($1, $2, $3)")
                    .bind(no)
                    .bind(Uuid::from_bytes(*job.as_bytes()))
                    .bind(epoch.number().cast_signed())
            })
            .await?;
        check_fence(epoch, fence(column(&row, 0)?))?;
        Ok(column::<Option<&[u8]>>(&row, 1)?.map(Bytes::copy_from_slice))
    }

    async fn save(&self, tenant: &Tenant, job: JobId, epoch: Epoch, bytes: Bytes) -> Result<()> {
        const OP: &str = "checkpoint.save";
        check_size(&bytes)?;
        let row = self
            .one(OP, tenant, |no| {
                ask::query("SELECT hodei.save_checkpoint($1, $2, $3, $4)")
                    .bind(no)
                    .bind(Uuid::from_bytes(*job.as_bytes()))
                    .bind(epoch.number().cast_signed())
                    .bind(bytes.to_vec())
            })
            .await?;
        check_fence(epoch, fence(column(&row, 0)?))
    }

    async fn forget(&self, jobs: Vec<(Tenant, JobId)>) -> Result<()> {
        const OP: &str = "checkpoint.forget";
        let inner = &self.0;
        let names: Vec<String> = jobs.iter().map(|(tenant, _)| tenant.as_str().to_owned()).collect();
        let ids: Vec<JobId> = jobs.iter().map(|(_, job)| *job).collect();
        let mut conn = inner.pools.verbs.acquire(OP).await?;
        inner.trip();
        inner
            .in_time(OP, async {
                ask::query(
                    "DELETE FROM hodei.checkpoint c USING unnest($1::text[], $2::uuid[]) u (tenant, id), hodei.tenant t
                     WHERE t.name = u.tenant AND c.id = u.id AND c.tenant = t.no",
                )
                .bind(names)
                .bind(uuids(&ids))
                .execute(&mut *conn)
                .await
                .map_err(|error| of(OP, Stage::Commit, error))?;
                conn.clean().await.map_err(|error| of(OP, Stage::Commit, error))
            })
            .await
    }
}

impl PgCheckpoints {
    /// Runs a statement about a tenant that returns one row.
    async fn one<'q>(
        &self,
        op: &'static str,
        tenant: &Tenant,
        query: impl FnOnce(i32) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> Result<sqlx::postgres::PgRow> {
        let inner = &self.0;
        let mut conn = inner.pools.verbs.acquire(op).await?;
        inner
            .in_time(op, async {
                if !inner.lives_on(conn.at().home) {
                    conn.clean().await.map_err(|error| of(op, Stage::Before, error))?;
                    return Err(
                        Error::new(ErrorKind::LeaseLost, op).with("server", "on another course of history")
                    );
                }
                let no = conn.names().make_tenant(&mut conn, tenant).await?;
                inner.trip();
                let asked = query(no).fetch_one(&mut *conn).await;
                let row = asked.map_err(|error| of(op, Stage::Commit, error))?;
                conn.clean().await.map_err(|error| of(op, Stage::Commit, error))?;
                inner.wrote(1);
                Ok(row)
            })
            .await
    }
}

fn fence(number: i64) -> Epoch {
    Epoch::from_number(number.cast_unsigned())
}
