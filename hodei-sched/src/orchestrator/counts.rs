//! How many jobs there are.

use hodei_core::store::{Counts, QueueCounts, QueueQuery, Scope};
use hodei_core::{Name, Result, Tenant};

use super::handle::Orchestrator;

impl Orchestrator {
    /// Returns how many jobs are in each state.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn counts(&self) -> Result<Counts> {
        self.store().counts(&Scope::All).await
    }

    /// Returns how many jobs of a tenant's queue are in each state: how long it is, for dashboards and alarms.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    ///
    /// # Performance
    ///
    /// No job is looked at, however many there are.
    pub async fn queue_counts(&self, tenant: &Tenant, queue: &Name) -> Result<Counts> {
        let scope = Scope::Tenant(tenant.clone());
        let query = QueueQuery::new().queue(queue.clone()).limit(1);
        let found = self.store().queue_counts(&scope, query).await?;
        Ok(found.first().map(|of| of.counts).unwrap_or_default())
    }

    /// Lists the queues that have jobs, with how many of them are in each state.
    ///
    /// # Errors
    ///
    /// As [`JobStore::queue_counts`](hodei_core::store::JobStore::queue_counts).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn queues_counted(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>> {
        self.store().queue_counts(scope, query).await
    }
}
