//! A store whose change log is awkward, as those of real stores are now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use hodei_core::job::{Job, Lease, NewJob, Output};
use hodei_core::store::{
    CancelReply, Capabilities, ChangePage, ChangeSink, Claimed, Committed, Consistency, Counts, Cursor,
    Exchange, Exchanged, Feed, Fired, JobStore, Lanes, MemoryStore, Page, Pruned, Query, QueueCounts,
    QueueQuery, Reaped, Redriven, Retention, Scope, Served, StoreStats, SubmitOptions, Submitted,
    SummaryStream, Term, Wakeups,
};
use hodei_core::{Error, ErrorKind, JobId, Name, Result, Tenant, Timestamp};

/// A memory store with a log of its own kind.
#[derive(Debug, Default)]
pub(crate) struct Odd {
    pub(crate) store: MemoryStore,
    /// Pages of a tenant have one change of all at most, and are empty where that is another's.
    pub(crate) short: bool,
    /// How many more times the log cannot be read yet, as below a horizon that an open transaction holds.
    pub(crate) held: AtomicU32,
    /// Whether the next page is asked for too late.
    pub(crate) expired: AtomicBool,
    /// How often the log was read.
    pub(crate) reads: AtomicU32,
}

#[async_trait]
impl JobStore for Odd {
    async fn changes(&self, scope: &Scope, after: Option<Cursor>, limit: usize) -> Result<ChangePage> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.expired.swap(false, Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::CursorExpired, "store.changes"));
        }
        if self.held.load(Ordering::Relaxed) > 0 {
            self.held.fetch_sub(1, Ordering::Relaxed);
            let next = match after {
                Some(after) => after,
                None => MemoryStore::new().changes_end().await?,
            };
            return Ok(ChangePage { changes: Vec::new(), next });
        }
        if !self.short {
            return self.store.changes(scope, after, limit).await;
        }
        let mut page = self.store.changes(&Scope::All, after, 1).await?;
        page.changes.retain(|change| scope.covers(&change.tenant));
        Ok(page)
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>> {
        self.store.submit(jobs, options).await
    }

    async fn lanes(&self, served: &Served) -> Result<Lanes> {
        self.store.lanes(served).await
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged> {
        self.store.exchange(exchange).await
    }

    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        self.store.request_cancel(scope, jobs).await
    }

    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>> {
        self.store.leases_of(owner).await
    }

    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>> {
        self.store.redrive(scope, jobs).await
    }

    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        self.store.reap(term, lost_max, limit).await
    }

    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired> {
        self.store.fire(term, tenant, schedule, at).await
    }

    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        self.store.prune(term, retention, limit).await
    }

    async fn get_many(
        &self,
        scope: &Scope,
        jobs: Vec<JobId>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Job>>> {
        self.store.get_many(scope, jobs, consistency).await
    }

    async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        self.store.query(scope, query).await
    }

    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream {
        self.store.stream(scope, query)
    }

    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        self.store.outputs(scope, jobs).await
    }

    async fn counts(&self, scope: &Scope) -> Result<Counts> {
        self.store.counts(scope).await
    }

    async fn queue_counts(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>> {
        self.store.queue_counts(scope, query).await
    }

    async fn changes_end(&self) -> Result<Cursor> {
        self.store.changes_end().await
    }

    fn wakeups(&self) -> Wakeups {
        self.store.wakeups()
    }

    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        self.store.feed(sink)
    }

    async fn verify_indexes(&self) -> Result<Vec<String>> {
        self.store.verify_indexes().await
    }
}
