//! The store, and how its verbs reach the threads.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join;
use futures_util::stream;
use hodei_core::job::{Job, Lease, NewJob, Output};
use hodei_core::store::{
    Beat, Before, CancelReply, Capabilities, ChangePage, ChangeSink, Claimed, Committed, Consistency,
    Coordination, Counts, Cursor, Exchange, Exchanged, Feed, Fired, JobStore, Lanes, Limit, LimitOf,
    LimitUse, Living, Page, Policies, Pruned, Query, QueueCounts, QueuePolicy, QueueQuery, Reaped, Redriven,
    Retention, Schedule, Scope, Served, StoreStats, SubmitOptions, Submitted, SummaryStream, Term, Wakeups,
};
use hodei_core::text::Texts;
use hodei_core::{Error, ErrorKind, JobId, Name, OwnerId, Result, Tenant, Timestamp};
use tokio::sync::oneshot;

use crate::backup::{self, Backup};
use crate::config::RedbStoreBuilder;
use crate::inner::Inner;
use crate::memory::Index;
use crate::query::{self, Asked};
use crate::reader::{Asker, INLINE_ROWS, Reader, Snapshot};
use crate::sync::{Threads, lock};
use crate::txn::{self, Work};
use crate::verify::contradictions;
use crate::writer::{Size, Writer};

/// From how many jobs on they are read in halves.
const HALVED: usize = 256;

/// A store in one redb file. Cloning shares it; dropping the last clone waits for the writes that were asked for and
/// closes the file.
///
/// # Cancel safety
///
/// A call whose future is dropped may still be carried out, whole; what it would have answered is found out as after
/// a lost reply.
#[derive(Clone, Debug)]
pub struct RedbStore(Arc<Shared>);

/// The order matters: without the ways to them, the threads end, and are waited for.
#[derive(Debug)]
struct Shared {
    inner: Arc<Inner>,
    writer: Writer,
    reader: Reader,
    _threads: Threads,
}

impl RedbStore {
    /// Opens a file, or makes it, with the limits of [`RedbStore::builder`] as they are.
    ///
    /// # Errors
    ///
    /// Those of [`RedbStoreBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open()
    }

    /// Begins to say how a file is to be opened.
    pub fn builder(path: impl AsRef<Path>) -> RedbStoreBuilder {
        RedbStoreBuilder::new(path.as_ref())
    }

    /// Copies the store as of now to a file that is not there yet, while it is in use: a store of its own that can be
    /// opened like any other. The checksum of every row is verified on the way.
    ///
    /// # Errors
    ///
    /// `Conflict` when there is something under that path; `Corrupt` for a damaged row, `Io` and `Full` when the copy
    /// cannot be written. Nothing is left under the path then.
    ///
    /// # Cancel safety
    ///
    /// A backup whose future is dropped is made all the same.
    ///
    /// # Performance
    ///
    /// It runs on a thread of its own and holds nobody up; what is written meanwhile takes the room of what it replaces
    /// only when the copy is made. The copy's pages take 32 MiB of memory at most, and no more than the store's may
    /// ([`RedbStoreBuilder::cache_bytes`]).
    ///
    /// # Leftovers
    ///
    /// The copy is made under the name `PATH.new-PROCESS-NUMBER`. A process that is killed meanwhile leaves that behind; the next
    /// copy to the same path removes it once that process is gone, where the system has `/proc`. Elsewhere, and of a path that
    /// nobody copies to again, it may be removed by hand.
    pub async fn backup(&self, to: impl AsRef<Path>) -> Result<Backup> {
        let (inner, to) = (Arc::clone(&self.0.inner), to.as_ref().to_owned());
        let (caller, answer) = oneshot::channel();
        crate::sync::thread("hodei-redb-backup", move || {
            let view = Arc::clone(&lock(&inner.view));
            let done = backup::copy(&view, &to, inner.config.cache_bytes);
            // The file stays open until nobody reads it; whoever closes it once he is answered has closed it.
            drop((view, inner));
            // A caller that went away does not want to know.
            drop(caller.send(done));
        })?;
        answer.await.map_err(|_| Error::new(ErrorKind::Unavailable, "store.backup"))?
    }

    pub(crate) fn start(config: RedbStoreBuilder) -> Result<Self> {
        Self::serve(Inner::open(config)?)
    }

    pub(crate) fn serve(inner: Inner) -> Result<Self> {
        let inner = Arc::new(inner);
        let (reader, mut threads) = Reader::start()?;
        let (writer, writing) = Writer::start(&inner)?;
        threads.extend(writing);
        Ok(Self(Arc::new(Shared { inner, writer, reader, _threads: Threads(threads) })))
    }

    pub(crate) async fn write<R, F>(&self, op: &'static str, items: usize, run: F) -> Result<R>
    where
        R: Send + 'static,
        F: FnMut(&mut Work<'_, '_>) -> Result<R> + Send + 'static,
    {
        self.0.writer.write(op, Size::Items(items), run).await
    }

    /// Writes what depends on lists that are in memory.
    async fn upkeep<R, F>(&self, op: &'static str, items: usize, run: F) -> Result<R>
    where
        R: Send + 'static,
        F: FnMut(&mut Work<'_, '_>) -> Result<R> + Send + 'static,
    {
        self.0.writer.write(op, Size::Begins(items), run).await
    }

    /// Writes in a transaction of its own.
    pub(crate) async fn alone<R, F>(&self, op: &'static str, run: F) -> Result<R>
    where
        R: Send + 'static,
        F: FnMut(&mut Work<'_, '_>) -> Result<R> + Send + 'static,
    {
        self.0.writer.write(op, Size::Begins(usize::MAX), run).await
    }

    /// Counts all that an older schema has not counted by queue, for whoever cannot go on without.
    pub(crate) async fn counted(&self) -> Result<()> {
        while self.look(|index| index.counting.is_some()) {
            let most = self.0.inner.config.migrate_jobs;
            self.alone("store.count", move |work| txn::count_some(work, most)).await?;
        }
        Ok(())
    }

    pub(crate) async fn read<R, F>(&self, op: &'static str, rows: usize, read: F) -> Result<R>
    where
        R: Send + 'static,
        F: FnOnce(&mut Snapshot<'_>) -> Result<R> + Send + 'static,
    {
        self.0.reader.read(&self.0.inner, op, (Asker::Anyone, rows), read).await
    }

    /// Reads what a dispatcher waits for: other reads, however many and large, do not hold it up.
    async fn read_ahead_of_others<R, F>(&self, op: &'static str, rows: usize, read: F) -> Result<R>
    where
        R: Send + 'static,
        F: FnOnce(&mut Snapshot<'_>) -> Result<R> + Send + 'static,
    {
        self.0.reader.read(&self.0.inner, op, (Asker::Dispatch, rows), read).await
    }

    /// Reads jobs in two halves beside each other, both of the last commit; nothing when one of them came upon a later
    /// one after all, so that they have to be read together.
    async fn jobs_in_halves(
        &self,
        scope: &Scope,
        asked: &Arc<Vec<Asked>>,
    ) -> Result<Option<Vec<(usize, Job)>>> {
        let ids = asked.iter().map(|(id, _)| *id).collect();
        let (view, since) = lock(&self.0.inner.committed).pin(Some(ids));
        let half = |part: Range<usize>| {
            let (scope, asked) = (scope.clone(), Arc::clone(asked));
            let pinned = (Arc::clone(&view), Arc::clone(&since));
            let read = move |rows: &mut Snapshot<'_>| {
                rows.go_by(pinned);
                let jobs = query::jobs(rows, &scope, &asked[part])?;
                Ok((jobs, rows.moved_on()))
            };
            self.read("store.get_many", INLINE_ROWS + 1, read)
        };
        let (middle, end) = (asked.len() / 2, asked.len());
        let ((mut jobs, first), (others, second)) = try_join(half(0..middle), half(middle..end)).await?;
        jobs.extend(others);
        Ok((!first && !second).then_some(jobs))
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0.inner
    }

    /// Returns the time on the store's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.0.inner.config.clock.now()
    }

    /// Looks at what is kept in memory.
    fn look<R>(&self, look: impl FnOnce(&Index) -> R) -> R {
        look(&lock(&self.0.inner.committed).index)
    }
}

#[async_trait]
impl JobStore for RedbStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, exclusive: true, spans_tenants: true, limits_all: true, rates: true }
    }

    fn stats(&self) -> StoreStats {
        self.0.inner.stats.snapshot()
    }

    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>> {
        self.write("store.submit", jobs.len(), move |work| {
            txn::submit(work, &jobs, options, work.context.room)
        })
        .await
    }

    async fn lanes(&self, served: &Served) -> Result<Lanes> {
        let (inner, served) = (Arc::clone(&self.0.inner), served.clone());
        let nothing = served.queues.as_ref().is_some_and(Vec::is_empty);
        let lanes = if nothing { 0 } else { self.look(|index| index.lanes.len()) };
        self.read_ahead_of_others("store.lanes", lanes, move |rows| query::lanes(rows, &inner, &served)).await
    }

    async fn before(&self, job: &Job, most: u64) -> Result<Before> {
        Ok(query::before(&self.0.inner, job, most))
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged> {
        let claims: usize = exchange.picks.iter().map(|pick| pick.n as usize).sum();
        let items = exchange.transitions.len().saturating_add(claims);
        self.write("store.exchange", items, move |work| txn::exchange(work, &exchange)).await
    }

    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        let scope = scope.clone();
        self.write("store.request_cancel", jobs.len(), move |work| txn::cancel(work, &scope, &jobs)).await
    }

    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>> {
        let (inner, owner) = (Arc::clone(&self.0.inner), owner.clone());
        let read = move |rows: &mut Snapshot<'_>| query::leases_of(rows, &inner, &owner);
        self.read_ahead_of_others("store.leases_of", INLINE_ROWS + 1, read).await
    }

    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>> {
        let scope = scope.clone();
        self.write("store.redrive", jobs.len(), move |work| txn::redrive(work, &scope, &jobs)).await
    }

    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        let term = term.clone();
        self.upkeep("store.reap", limit, move |work| txn::reap(work, &term, lost_max, limit)).await
    }

    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired> {
        let (term, tenant, schedule) = (term.clone(), tenant.clone(), schedule.clone());
        self.write("store.fire", 1, move |work| txn::fire(work, &term, &tenant, &schedule, at)).await
    }

    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        let term = term.clone();
        self.upkeep("store.prune", limit, move |work| txn::prune(work, &term, retention, limit)).await
    }

    async fn get_many(&self, scope: &Scope, jobs: Vec<JobId>, _: Consistency) -> Result<Vec<Option<Job>>> {
        let mut asked: Vec<Asked> = jobs.iter().copied().zip(0..).collect();
        asked.sort_unstable();
        let (asked, mut found) = (Arc::new(asked), None);
        if jobs.len() >= HALVED {
            found = self.jobs_in_halves(scope, &asked).await?;
        }
        let found = match found {
            Some(found) => found,
            None => {
                let scope = scope.clone();
                let read = move |rows: &mut Snapshot<'_>| {
                    let ids = || Some(asked.iter().map(|(id, _)| *id).collect());
                    rows.of_one_commit(ids, |rows| query::jobs(rows, &scope, &asked))
                };
                self.read("store.get_many", jobs.len() * 3, read).await?
            }
        };
        let mut all = Vec::new();
        all.resize_with(jobs.len(), || None);
        found.into_iter().for_each(|(place, job)| all[place] = Some(job));
        Ok(all)
    }

    async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        let (inner, scope) = (Arc::clone(&self.0.inner), scope.clone());
        let tenants = self.look(|index| index.counts.len());
        let rows = query::rows_of(&scope, &query, tenants);
        self.read("store.query", rows, move |rows| {
            // What a page looks at is bounded, and what moves meanwhile with it.
            rows.of_one_commit(|| None, |rows| query::page(rows, &inner, &scope, &query))
        })
        .await
    }

    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream {
        let start = (self.clone(), scope.clone(), Some(query));
        Box::pin(stream::try_unfold(start, |(store, scope, mut rest)| async move {
            while let Some(query) = rest {
                let page = store.query(&scope, query.clone()).await?;
                rest = page.next.map(|next| query.after(next));
                if !page.jobs.is_empty() {
                    return Ok(Some((page.jobs, (store, scope, rest))));
                }
            }
            Ok(None)
        }))
    }

    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        let scope = scope.clone();
        self.read("store.outputs", jobs.len() * 2, move |rows| {
            let ids = || {
                let mut ids = jobs.clone();
                ids.sort_unstable();
                Some(ids)
            };
            rows.of_one_commit(ids, |rows| query::outputs(rows, &scope, &jobs))
        })
        .await
    }

    async fn counts(&self, scope: &Scope) -> Result<Counts> {
        self.look(|index| {
            index.slots.readable("store.counts", query::slot_of(scope))?;
            Ok(index.counts_of(scope))
        })
    }

    async fn queue_counts(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>> {
        query.check()?;
        self.counted().await?;
        self.look(|index| {
            index.slots.readable("store.queue_counts", query::slot_of(scope))?;
            Ok(index.queues.page(scope, &query))
        })
    }

    async fn changes(&self, scope: &Scope, after: Option<Cursor>, limit: usize) -> Result<ChangePage> {
        let scope = scope.clone();
        let rows = query::changes_examined(&scope, limit);
        self.read("store.changes", rows, move |rows| query::changes(rows, &scope, after.as_ref(), limit))
            .await
    }

    async fn changes_end(&self) -> Result<Cursor> {
        Ok(self.look(|index| query::cursor_before(index.next_change)))
    }

    fn wakeups(&self) -> Wakeups {
        self.0.inner.bell.listen()
    }

    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        self.0.inner.feeds.register(sink)
    }

    async fn verify_indexes(&self) -> Result<Vec<String>> {
        self.counted().await?;
        let inner = Arc::clone(&self.0.inner);
        let (caller, answer) = oneshot::channel();
        crate::sync::thread("hodei-redb-verify", move || {
            let wrong = contradictions(&inner);
            // Whoever closes the file once he is answered has closed it.
            drop(inner);
            // A caller that went away does not want to know.
            drop(caller.send(wrong));
        })?;
        answer.await.map_err(|_| Error::new(ErrorKind::Unavailable, "store.verify_indexes"))?
    }
}

#[async_trait]
impl Coordination for RedbStore {
    async fn register(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
        let owner = owner.clone();
        self.write("store.register", 1, move |work| txn::register(work, &owner, ttl)).await
    }

    async fn beat(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>> {
        self.upkeep("store.beat", owners.len(), move |work| txn::beat(work, &owners, ttl)).await
    }

    async fn retire(&self, owner: &Lease) -> Result<()> {
        let owner = owner.clone();
        self.write("store.retire", 1, move |work| txn::retire(work, &owner)).await
    }

    async fn take_term(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>> {
        let (duty, holder) = (duty.clone(), holder.clone());
        self.write("store.take_term", 1, move |work| txn::take_term(work, &duty, &holder, ttl)).await
    }

    async fn keep_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        let term = term.clone();
        self.write("store.keep_term", 1, move |work| txn::keep_term(work, &term, ttl)).await
    }

    async fn owners(&self) -> Result<Vec<Living>> {
        let now = self.0.inner.config.clock.now();
        self.read("store.owners", INLINE_ROWS + 1, move |rows| query::owners(rows, now)).await
    }

    async fn now(&self) -> Result<Timestamp> {
        Ok(self.0.inner.config.clock.now())
    }
}

#[async_trait]
impl Policies for RedbStore {
    async fn set_queue(&self, policy: QueuePolicy) -> Result<()> {
        self.write("store.set_queue", 1, move |work| txn::set_queue(work, &policy)).await
    }

    async fn queues(&self, scope: &Scope) -> Result<Vec<QueuePolicy>> {
        let scope = scope.clone();
        self.read("store.queues", INLINE_ROWS + 1, move |rows| query::queues(rows, &scope)).await
    }

    async fn queue(&self, tenant: &Tenant, queue: &Name) -> Result<Option<QueuePolicy>> {
        let (tenant, queue) = (tenant.clone(), queue.clone());
        self.read("store.queue", 1, move |rows| query::queue(rows, &tenant, &queue)).await
    }

    async fn set_limit(&self, limit: Limit) -> Result<()> {
        self.write("store.set_limit", 1, move |work| txn::set_limit(work, &limit)).await
    }

    async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        let of = of.clone();
        self.write("store.remove_limit", 1, move |work| txn::remove_limit(work, &of)).await
    }

    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        let (inner, scope) = (Arc::clone(&self.0.inner), scope.clone());
        self.read("store.limits", INLINE_ROWS + 1, move |rows| query::limits(rows, &inner, &scope)).await
    }

    async fn limits_on(&self, tenant: &Tenant, queue: &Name, keys: &Texts) -> Result<Vec<LimitUse>> {
        let (inner, slot) = (Arc::clone(&self.0.inner), tenant.slot());
        let of: BTreeSet<LimitOf> = LimitOf::of_jobs(tenant, queue, keys).collect();
        self.read("store.limits_on", of.len(), move |rows| query::limits_on(rows, &inner, slot, &of)).await
    }

    async fn set_schedule(&self, schedule: Schedule) -> Result<()> {
        self.write("store.set_schedule", 1, move |work| txn::set_schedule(work, &schedule)).await
    }

    async fn remove_schedule(&self, tenant: &Tenant, name: &Name) -> Result<bool> {
        let (tenant, name) = (tenant.clone(), name.clone());
        self.write("store.remove_schedule", 1, move |work| txn::remove_schedule(work, &tenant, &name)).await
    }

    async fn schedules(&self, scope: &Scope) -> Result<Vec<Schedule>> {
        let scope = scope.clone();
        self.read("store.schedules", INLINE_ROWS + 1, move |rows| query::schedules(rows, &scope)).await
    }
}
