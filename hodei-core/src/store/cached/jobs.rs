//! The verbs of jobs.

use std::sync::Arc;

use async_trait::async_trait;

use super::book::{Pruning, Write};
use super::store::CachedStore;
use crate::error::Result;
use crate::id::{JobId, Name, Tenant};
use crate::job::{Job, Lease, NewJob, Output};
use crate::store::{
    Before, CancelReply, Capabilities, ChangePage, ChangeSink, Claimed, Committed, Consistency, Counts,
    Cursor, Exchange, Exchanged, Feed, Fired, JobStore, Lanes, Page, Pruned, Query, QueueCounts, QueueQuery,
    Reaped, Redriven, Retention, Scope, Served, StoreStats, SubmitOptions, Submitted, SummaryStream, Term,
    Wakeups,
};
use crate::time::Timestamp;

/// How many records one read of a verification asks for.
const PAGE: usize = 1_000;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: JobStore> JobStore for CachedStore<S> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn stats(&self) -> StoreStats {
        StoreStats { cache: Some(self.cache_stats()), ..self.inner.stats() }
    }

    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>> {
        let write = Write::begins(&self.records, self.whole);
        write.ended(self.inner.submit(jobs, options).await)
    }

    async fn lanes(&self, served: &Served) -> Result<Lanes> {
        self.inner.lanes(served).await
    }

    async fn before(&self, job: &Job, most: u64) -> Result<Before> {
        self.inner.before(job, most).await
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged> {
        let write = Write::begins(&self.records, self.whole);
        write.ended_in_parts(self.inner.exchange(exchange).await, |done| done.partial)
    }

    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        let write = Write::begins(&self.records, self.whole);
        let done = write.ended(self.inner.request_cancel(scope, jobs.clone()).await)?;
        // That a running job was asked to stop is noted in its record, but is no change.
        let asked = jobs.iter().zip(&done.replies).filter(|(_, reply)| **reply == CancelReply::Requested);
        asked.for_each(|(id, _)| self.records.forget(*id));
        Ok(done)
    }

    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>> {
        self.inner.leases_of(owner).await
    }

    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>> {
        let write = Write::begins(&self.records, self.whole);
        write.ended(self.inner.redrive(scope, jobs).await)
    }

    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        let write = Write::begins(&self.records, self.whole);
        write.ended_in_parts(self.inner.reap(term, lost_max, limit).await, |done| done.partial)
    }

    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired> {
        let write = Write::begins(&self.records, self.whole);
        write.ended(self.inner.fire(term, tenant, schedule, at).await)
    }

    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        let pruning = Pruning::begins(&self.records, &self.pruning);
        let pruned = self.inner.prune(term, retention, limit).await?;
        pruning.ended(&pruned);
        self.forget_in_tier(&pruned).await;
        Ok(pruned)
    }

    async fn get_many(
        &self,
        scope: &Scope,
        jobs: Vec<JobId>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Job>>> {
        self.read_jobs(scope, jobs, consistency).await
    }

    async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        self.inner.query(scope, query).await
    }

    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream {
        self.inner.stream(scope, query)
    }

    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        self.read_outputs(scope, jobs).await
    }

    async fn counts(&self, scope: &Scope) -> Result<Counts> {
        self.inner.counts(scope).await
    }

    async fn queue_counts(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>> {
        self.inner.queue_counts(scope, query).await
    }

    async fn changes(&self, scope: &Scope, after: Option<Cursor>, limit: usize) -> Result<ChangePage> {
        self.inner.changes(scope, after, limit).await
    }

    async fn changes_end(&self) -> Result<Cursor> {
        self.inner.changes_end().await
    }

    fn wakeups(&self) -> Wakeups {
        self.inner.wakeups()
    }

    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        self.inner.feed(sink)
    }

    /// Compares what is in memory too, where the store is exclusive. Writes that go on meanwhile may show as
    /// contradictions.
    async fn verify_indexes(&self) -> Result<Vec<String>> {
        let mut wrong = self.inner.verify_indexes().await?;
        if self.exclusive {
            for known in self.records.jobs().chunks(PAGE) {
                let ids = known.iter().map(|job| job.id).collect();
                let read = self.inner.get_many(&Scope::All, ids, Consistency::Latest).await?;
                let differs = |(known, read): &(&Arc<Job>, Option<Job>)| Some(&***known) != read.as_ref();
                let differing = known.iter().zip(read).filter(differs);
                wrong.extend(
                    differing.map(|(known, _)| format!("the cached record of {} is wrong", known.id)),
                );
            }
        }
        Ok(wrong)
    }
}
