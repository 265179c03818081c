//! A store that is told to dawdle, to keep quiet and to lose replies.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::error::Result;
use hodei_core::job::{Job, Lease, NewJob, Output};
use hodei_core::store::{
    Applied, Beat, Before, CancelReply, Capabilities, ChangePage, ChangeSink, Claimed, Committed,
    Consistency, Coordination, Counts, Cursor, Exchange, Exchanged, Feed, Feeds, Fired, JobStore, Lanes,
    Limit, LimitOf, LimitUse, Living, MemoryStore, Page, Policies, Pruned, Query, QueueCounts, QueuePolicy,
    QueueQuery, Reaped, Redriven, Retention, Schedule, Scope, Served, StoreStats, SubmitOptions, Submitted,
    SummaryStream, Term, Wakeups,
};
use hodei_core::text::Texts;
use hodei_core::{Error, ErrorKind, JobId, Name, OwnerId, Tenant, Timestamp};

/// A store in memory with a will of its own.
#[derive(Debug)]
pub(crate) struct Scripted {
    inner: MemoryStore,
    exclusive: bool,
    /// Whether it is one of parts that commit each by itself.
    parted: bool,
    /// Whether sinks are told nothing.
    quiet: bool,
    /// While set, reads of jobs are done but not answered.
    pub(crate) dawdles: AtomicBool,
    /// While set, cancellations are done and answered `Indeterminate`; exchanges, reapings and prunings are done, and
    /// answered as if the part of the store that did them had not answered.
    pub(crate) loses_replies: AtomicBool,
    /// While set, cancellations are done and answered `Full`: one part has done its own, another is full.
    pub(crate) fails_partly: AtomicBool,
    /// How many reads of jobs and outputs were asked of it.
    pub(crate) reads: AtomicU64,
}

impl Scripted {
    fn new(inner: MemoryStore, exclusive: bool, quiet: bool) -> Self {
        let no = || AtomicBool::new(false);
        let (reads, fails_partly) = (AtomicU64::new(0), no());
        Self {
            inner,
            exclusive,
            parted: false,
            quiet,
            dawdles: no(),
            loses_replies: no(),
            fails_partly,
            reads,
        }
    }

    /// One that only this process writes to.
    pub(crate) fn exclusive(inner: MemoryStore) -> Self {
        Self::new(inner, true, false)
    }

    /// One that only this process writes to, and that tells its sinks nothing.
    pub(crate) fn quiet(inner: MemoryStore) -> Self {
        Self::new(inner, true, true)
    }

    /// One of parts, that only this process writes to.
    pub(crate) fn parted(inner: MemoryStore) -> Self {
        Self { parted: true, ..Self::new(inner, true, false) }
    }

    /// One that other processes write to: what they commit is told to nobody here.
    pub(crate) fn shared(inner: MemoryStore) -> Self {
        Self::new(inner, false, false)
    }

    /// One that others write to, and whose sinks hear nothing: every write is that of another process.
    pub(crate) fn foreign(inner: MemoryStore) -> Self {
        Self::new(inner, false, true)
    }

    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    async fn dawdle(&self) {
        poll_fn(|_| if self.dawdles.load(Ordering::SeqCst) { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

#[async_trait]
impl JobStore for Scripted {
    fn capabilities(&self) -> Capabilities {
        let capabilities = self.inner.capabilities();
        let spans_tenants = capabilities.spans_tenants && !self.parted;
        Capabilities { exclusive: self.exclusive, spans_tenants, ..capabilities }
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>> {
        self.inner.submit(jobs, options).await
    }

    async fn lanes(&self, served: &Served) -> Result<Lanes> {
        self.inner.lanes(served).await
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged> {
        let done = self.inner.exchange(exchange).await?;
        if self.loses_replies.load(Ordering::SeqCst) {
            let applied = vec![Applied::Unavailable; done.applied.len()];
            return Ok(Exchanged { applied, partial: true, ..Exchanged::default() });
        }
        Ok(done)
    }

    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        let done = self.inner.request_cancel(scope, jobs).await?;
        if self.loses_replies.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Indeterminate, "scripted.request_cancel"));
        }
        if self.fails_partly.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Full, "scripted.request_cancel"));
        }
        Ok(done)
    }

    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>> {
        self.inner.leases_of(owner).await
    }

    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>> {
        self.inner.redrive(scope, jobs).await
    }

    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        let done = self.inner.reap(term, lost_max, limit).await?;
        if self.loses_replies.load(Ordering::SeqCst) {
            return Ok(Reaped { more: true, partial: true, ..Reaped::default() });
        }
        Ok(done)
    }

    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired> {
        self.inner.fire(term, tenant, schedule, at).await
    }

    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        let done = self.inner.prune(term, retention, limit).await?;
        if self.loses_replies.load(Ordering::SeqCst) {
            return Ok(Pruned { more: true, partial: true, ..Pruned::default() });
        }
        Ok(done)
    }

    async fn get_many(
        &self,
        scope: &Scope,
        jobs: Vec<JobId>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Job>>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let read = self.inner.get_many(scope, jobs, consistency).await;
        self.dawdle().await;
        read
    }

    async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        self.inner.query(scope, query).await
    }

    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream {
        self.inner.stream(scope, query)
    }

    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.outputs(scope, jobs).await
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

    async fn before(&self, job: &Job, most: u64) -> Result<Before> {
        self.inner.before(job, most).await
    }

    async fn changes_end(&self) -> Result<Cursor> {
        self.inner.changes_end().await
    }

    fn wakeups(&self) -> Wakeups {
        self.inner.wakeups()
    }

    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        if self.quiet { Feeds::new().register(sink) } else { self.inner.feed(sink) }
    }

    async fn verify_indexes(&self) -> Result<Vec<String>> {
        self.inner.verify_indexes().await
    }
}

#[async_trait]
impl Coordination for Scripted {
    async fn register(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
        self.inner.register(owner, ttl).await
    }

    async fn beat(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>> {
        self.inner.beat(owners, ttl).await
    }

    async fn retire(&self, owner: &Lease) -> Result<()> {
        self.inner.retire(owner).await
    }

    async fn take_term(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>> {
        self.inner.take_term(duty, holder, ttl).await
    }

    async fn keep_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        self.inner.keep_term(term, ttl).await
    }

    async fn owners(&self) -> Result<Vec<Living>> {
        self.inner.owners().await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }
}

#[async_trait]
impl Policies for Scripted {
    async fn set_queue(&self, policy: QueuePolicy) -> Result<()> {
        self.inner.set_queue(policy).await
    }

    async fn queues(&self, scope: &Scope) -> Result<Vec<QueuePolicy>> {
        self.inner.queues(scope).await
    }

    async fn queue(&self, tenant: &Tenant, queue: &Name) -> Result<Option<QueuePolicy>> {
        self.inner.queue(tenant, queue).await
    }

    async fn set_limit(&self, limit: Limit) -> Result<()> {
        self.inner.set_limit(limit).await
    }

    async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        self.inner.remove_limit(of).await
    }

    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        self.inner.limits(scope).await
    }

    async fn limits_on(&self, tenant: &Tenant, queue: &Name, keys: &Texts) -> Result<Vec<LimitUse>> {
        self.inner.limits_on(tenant, queue, keys).await
    }

    async fn set_schedule(&self, schedule: Schedule) -> Result<()> {
        self.inner.set_schedule(schedule).await
    }

    async fn remove_schedule(&self, tenant: &Tenant, name: &Name) -> Result<bool> {
        self.inner.remove_schedule(tenant, name).await
    }

    async fn schedules(&self, scope: &Scope) -> Result<Vec<Schedule>> {
        self.inner.schedules(scope).await
    }
}
