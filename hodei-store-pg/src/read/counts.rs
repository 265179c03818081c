//! How many jobs are in each state, in all and by queue.

use std::sync::Arc;

use hodei_core::job::State;
use hodei_core::store::{Counts, QueueCounts, QueueQuery, Scope};
use hodei_core::{ErrorKind, Name, Result, Tenant};
use sqlx::postgres::PgRow;

use crate::ask;
use crate::codec::name_of;
use crate::error::failed;
use crate::inner::{Inner, reading};
use crate::names::column;
use crate::policies::tenant_name;

const OP: &str = "store.counts";
const QUEUES_OP: &str = "store.queue_counts";

impl Inner {
    pub(crate) async fn counts(self: &Arc<Self>, scope: &Scope) -> Result<Counts> {
        let tenant = tenant_name(scope);
        let row = reading!(self, OP, scope, conn => {
            self.trip();
            ask::query(
                "SELECT coalesce(sum(blocked), 0)::int8, coalesce(sum(pending), 0)::int8,
                         coalesce(sum(scheduled), 0)::int8, coalesce(sum(running), 0)::int8,
                         coalesce(sum(succeeded), 0)::int8, coalesce(sum(failed), 0)::int8,
                         coalesce(sum(cancelled), 0)::int8
                     FROM (
                         SELECT tenant, blocked, pending, scheduled, running, succeeded, failed, cancelled
                         FROM hodei.total
                         UNION ALL
                         SELECT tenant, blocked, pending, scheduled, running, succeeded, failed, cancelled
                         FROM hodei.delta
                     ) c
                     WHERE $1::text IS NULL OR c.tenant = (SELECT no FROM hodei.tenant WHERE name = $1)",
            )
            .bind(&tenant)
            .fetch_one(&mut *conn)
            .await
            .map_err(failed(OP))
        })?;
        counts_from(&row, 0)
    }

    /// Reads a page of the counts of queues. Where something has no queue, it is found first: jobs that were counted while
    /// the schema came to counting queues.
    pub(crate) async fn queue_counts(
        self: &Arc<Self>,
        scope: &Scope,
        query: &QueueQuery,
    ) -> Result<Vec<QueueCounts>> {
        query.check()?;
        let mut rows = self.queue_rows(scope, query).await?;
        if rows.iter().any(|row| row.0.is_none()) {
            reading!(self, QUEUES_OP, conn => {
                self.trip();
                ask::query("SELECT hodei.attribute()").execute(&mut *conn).await.map_err(failed(QUEUES_OP))
            })
            .map_err(|error| match error.kind() {
                // Of very many jobs; a migration takes its time.
                ErrorKind::Timeout => error.with("counted", "in part: migrate counts the rest"),
                _ => error,
            })?;
            rows = self.queue_rows(scope, query).await?;
        }
        let page = rows
            .into_iter()
            .filter_map(|(queue, tenant, counts)| queue.map(|queue| QueueCounts { tenant, queue, counts }));
        Ok(page.collect())
    }

    /// Reads rows of the counts of queues: the queue, whose it is, and how many of its jobs are in each state.
    async fn queue_rows(
        self: &Arc<Self>,
        scope: &Scope,
        query: &QueueQuery,
    ) -> Result<Vec<(Option<Name>, Tenant, Counts)>> {
        let (tenant, after) = (tenant_name(scope), query.after.as_ref());
        let rows = reading!(self, QUEUES_OP, scope, conn => {
            self.trip();
            ask::query("SELECT * FROM hodei.queue_counts($1, $2, $3, $4, $5)")
                .bind(&tenant)
                .bind(query.queue.as_ref().map(Name::as_str))
                .bind(after.map(|(tenant, _)| tenant.as_str()))
                .bind(after.map(|(_, queue)| queue.as_str()))
                .bind(i64::try_from(query.limit).unwrap_or(i64::MAX))
                .fetch_all(&mut *conn)
                .await
                .map_err(failed(QUEUES_OP))
        })?;
        let row = |row: &PgRow| {
            let queue = Some(column::<&str>(row, 1)?).filter(|queue| !queue.is_empty()).map(name_of);
            let tenant = Tenant::from(name_of(column(row, 0)?)?);
            Ok((queue.transpose()?, tenant, counts_from(row, 2)?))
        };
        rows.iter().map(row).collect()
    }
}

/// Reads how many are in each state from a column on.
fn counts_from(row: &PgRow, first: usize) -> Result<Counts> {
    let mut numbers = [0_u64; State::ALL.len()];
    for (n, number) in numbers.iter_mut().enumerate() {
        *number = column::<i64>(row, first + n)?.max(0).cast_unsigned();
    }
    Ok(Counts::from_numbers(numbers))
}
