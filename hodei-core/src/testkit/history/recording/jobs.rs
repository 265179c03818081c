//! The verbs of jobs.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use futures_core::Stream;

use super::super::call::{Call, Reply, Step, Want, duty_of, tenant_of};
use super::super::entry::QueueSeen;
use super::super::facts::{Facts, Seen};
use super::super::log::numbers;
use super::super::recorder::Recorder;
use super::store::RecordingStore;
use crate::error::Result;
use crate::id::{JobId, Name, Tenant};
use crate::job::{Job, JobSummary, Lease, NewJob, Output};
use crate::store::{
    Before, CancelReply, Capabilities, ChangePage, ChangeSink, Claimed, Committed, Consistency, Counts,
    Cursor, Exchange, Exchanged, Feed, Fired, JobStore, Lanes, Page, Pruned, Query, QueueCounts, QueueQuery,
    Reaped, Redriven, Retention, Scope, Served, StoreStats, SubmitOptions, Submitted, SummaryStream, Term,
    Wakeups,
};
use crate::time::Timestamp;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: JobStore> JobStore for RecordingStore<S> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>> {
        let facts = jobs.iter().map(Facts::of_new).collect();
        let call = Call::Submit { jobs: facts, atomic: options.atomic };
        let reply = |done: &Committed<Submitted>| Reply::Submitted {
            replies: done.replies.clone(),
            changes: done.changes.clone(),
        };
        self.noted(call, self.inner.submit(jobs, options), reply).await
    }

    async fn lanes(&self, served: &Served) -> Result<Lanes> {
        self.noted(Call::Lanes, self.inner.lanes(served), |_| Reply::Done).await
    }

    async fn before(&self, job: &Job, most: u64) -> Result<Before> {
        self.noted(Call::Lanes, self.inner.before(job, most), |_| Reply::Done).await
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged> {
        let call = Call::Exchange {
            owner: exchange.owner.clone(),
            steps: exchange.transitions.iter().map(Step::from).collect(),
            wants: exchange.picks.iter().map(Want::from).collect(),
        };
        let reply = |done: &Exchanged| Reply::Exchanged {
            applied: done.applied.clone(),
            claimed: done
                .claimed
                .iter()
                .map(|Claimed { job, .. }| (Seen::from(&**job), Facts::of_job(job)))
                .collect(),
            owner_lost: done.owner_lost,
            changes: done.changes.clone(),
            partial: done.partial,
        };
        self.noted(call, self.inner.exchange(exchange), reply).await
    }

    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        let call = Call::RequestCancel { scope: tenant_of(scope), jobs: jobs.clone() };
        let reply = |done: &Committed<CancelReply>| Reply::Cancelled {
            replies: done.replies.clone(),
            changes: done.changes.clone(),
        };
        self.noted(call, self.inner.request_cancel(scope, jobs), reply).await
    }

    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>> {
        let call = Call::LeasesOf { owner: owner.clone() };
        let reply = |held: &Vec<Claimed>| Reply::Jobs {
            jobs: held.iter().map(|claimed| Some(Seen::from(&*claimed.job))).collect(),
        };
        self.noted(call, self.inner.leases_of(owner), reply).await
    }

    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>> {
        let call = Call::Redrive { scope: tenant_of(scope), jobs: jobs.clone() };
        let reply = |done: &Committed<Redriven>| Reply::Redriven {
            replies: done.replies.clone(),
            changes: done.changes.clone(),
        };
        self.noted(call, self.inner.redrive(scope, jobs), reply).await
    }

    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        let (duty, number) = duty_of(term);
        let call = Call::Reap { duty, term: number, lost_max };
        let reply = |done: &Reaped| Reply::Reaped {
            changes: done.changes.clone(),
            term_lost: done.term_lost,
            partial: done.partial,
        };
        self.noted(call, self.inner.reap(term, lost_max, limit), reply).await
    }

    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired> {
        let (duty, number) = duty_of(term);
        let call = Call::Fire { duty, term: number, tenant: tenant.clone(), schedule: schedule.clone(), at };
        let reply = |fired: &Fired| Reply::Fired { fired: *fired };
        self.noted(call, self.inner.fire(term, tenant, schedule, at), reply).await
    }

    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        let (duty, number) = duty_of(term);
        let call = Call::Prune { duty, term: number, keep: retention.changes };
        let reply = |done: &Pruned| Reply::Pruned {
            jobs: done.jobs,
            changes: done.changes,
            term_lost: done.term_lost,
            partial: done.partial,
        };
        self.noted(call, self.inner.prune(term, retention, limit), reply).await
    }

    async fn get_many(
        &self,
        scope: &Scope,
        jobs: Vec<JobId>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Job>>> {
        let latest = consistency == Consistency::Latest;
        let call = Call::GetMany { scope: tenant_of(scope), jobs: jobs.clone(), latest };
        let reply = |jobs: &Vec<Option<Job>>| Reply::Jobs {
            jobs: jobs.iter().map(|job| job.as_ref().map(Seen::from)).collect(),
        };
        self.noted(call, self.inner.get_many(scope, jobs, consistency), reply).await
    }

    async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        let call = Call::Query { scope: tenant_of(scope) };
        self.noted(call, self.inner.query(scope, query), |page: &Page| listed(&page.jobs)).await
    }

    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream {
        Box::pin(Batches {
            inner: self.inner.stream(scope, query),
            recorder: self.recorder.clone(),
            scope: tenant_of(scope),
            call: None,
        })
    }

    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        let call = Call::Outputs { scope: tenant_of(scope), jobs: jobs.clone() };
        let reply = |outputs: &Vec<Option<Output>>| Reply::Outputs {
            known: outputs.iter().map(Option::is_some).collect(),
        };
        self.noted(call, self.inner.outputs(scope, jobs), reply).await
    }

    async fn counts(&self, scope: &Scope) -> Result<Counts> {
        let call = Call::Counts { scope: tenant_of(scope) };
        let reply = |counts: &Counts| Reply::Counts { counts: numbers(*counts) };
        self.noted(call, self.inner.counts(scope), reply).await
    }

    async fn queue_counts(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>> {
        let call = Call::QueueCounts { scope: tenant_of(scope), queue: query.queue.clone() };
        let reply = |counted: &Vec<QueueCounts>| Reply::QueueCounts {
            counted: counted.iter().map(QueueSeen::from).collect(),
        };
        self.noted(call, self.inner.queue_counts(scope, query), reply).await
    }

    async fn changes(&self, scope: &Scope, after: Option<Cursor>, limit: usize) -> Result<ChangePage> {
        let call = Call::Changes { scope: tenant_of(scope) };
        let reply = |page: &ChangePage| Reply::Changes { changes: page.changes.clone() };
        self.noted(call, self.inner.changes(scope, after, limit), reply).await
    }

    async fn changes_end(&self) -> Result<Cursor> {
        self.noted(Call::ChangesEnd, self.inner.changes_end(), |_| Reply::Done).await
    }

    fn wakeups(&self) -> Wakeups {
        self.inner.wakeups()
    }

    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        self.inner.feed(sink)
    }

    async fn verify_indexes(&self) -> Result<Vec<String>> {
        self.noted(Call::VerifyIndexes, self.inner.verify_indexes(), |_| Reply::Done).await
    }
}

fn listed(jobs: &[JobSummary]) -> Reply {
    Reply::Listed { jobs: jobs.iter().map(Seen::from).collect() }
}

/// The batches of a stream, each noted as a query of its own.
struct Batches {
    inner: SummaryStream,
    recorder: Recorder,
    scope: Option<Tenant>,
    /// The call that waits for the next batch.
    call: Option<u64>,
}

impl Stream for Batches {
    type Item = Result<Vec<JobSummary>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.call.is_none() {
            let scope = self.scope.clone();
            self.call = Some(self.recorder.called(Call::Query { scope }));
        }
        let batch = ready!(self.inner.as_mut().poll_next(cx));
        if let Some(call) = self.call.take() {
            let reply = match &batch {
                Some(Ok(jobs)) => Ok(listed(jobs)),
                Some(Err(error)) => Err(error),
                None => Ok(Reply::Done),
            };
            self.recorder.ended(call, reply);
        }
        Poll::Ready(batch)
    }
}
