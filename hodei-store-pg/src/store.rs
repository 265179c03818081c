//! The store.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use hodei_core::job::{Job, Lease, NewJob, Output};
use hodei_core::store::{
    Before, CancelReply, Capabilities, ChangePage, ChangeSink, Claimed, Committed, Consistency, Counts,
    Cursor, Exchange, Exchanged, Feed, Fired, JobStore, Lanes, Page, Pruned, Query, QueueCounts, QueueQuery,
    Reaped, Redriven, Retention, Scope, Served, StoreStats, SubmitOptions, Submitted, SummaryStream, Term,
    Wakeups,
};
use hodei_core::{JobId, Name, Result, Tenant, Timestamp};

use crate::checkpoint::PgCheckpoints;
use crate::config::PgStoreBuilder;
use crate::error::failed;
use crate::inner::Inner;
use crate::listen;
use crate::pool::Pools;
use crate::schema::{self, Migrated};
use crate::verbs::{Cancel, Fire, Need, Prune, Reap, Redrive, Submit, Tend, Tended};

/// A store on PostgreSQL. Cloning shares it.
#[derive(Clone, Debug)]
pub struct PgStore(Arc<Inner>);

impl PgStore {
    /// Begins to set a store up, on the database of a url: `postgres://user:password@host:port/database`.
    pub fn builder(url: impl Into<String>) -> PgStoreBuilder {
        PgStoreBuilder::new(url.into())
    }

    /// Makes the schema of a database, or brings it up to date, and opens nothing.
    ///
    /// Of many that call it at once one does it. An older program goes on working beside a newer schema only where
    /// the changelog says so.
    ///
    /// # Errors
    ///
    /// As [`PgStoreBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have made some of the steps, or be at one still; another waits for that and makes the rest.
    pub async fn migrate(config: &PgStoreBuilder) -> Result<Migrated> {
        let pools = Pools::connect(config).await?;
        let done = schema::migrate(pools.options()).await;
        pools.close().await;
        done
    }

    /// Closes every connection that nobody uses, and gives nobody another: further calls are `Unavailable`, and so is
    /// what is under way as soon as it needs one more. A connection in use is closed when whoever has it is done with it,
    /// which is not waited for.
    ///
    /// # Cancel safety
    ///
    /// Call it again where it was dropped: the store may be closed to some of its calls only.
    pub async fn close(&self) {
        listen::stop(&self.0);
        self.0.pools.close().await;
    }

    /// Returns the checkpoints of the jobs: how far their runs have come, fenced, in the same database. They go with their
    /// jobs.
    #[must_use]
    pub fn checkpoints(&self) -> PgCheckpoints {
        PgCheckpoints(Arc::clone(&self.0))
    }

    /// Returns how many round trips to the server were made since the store was opened.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.0.trips()
    }

    pub(crate) async fn start(config: PgStoreBuilder) -> Result<Self> {
        let pools = Pools::connect(&config).await?;
        if config.migrate {
            schema::migrate(pools.options()).await?;
        }
        let mut conn = pools.verbs.acquire("store.open").await?;
        let bodies = schema::check(&mut conn).await?;
        conn.clean().await.map_err(failed("store.open"))?;
        let inner = Arc::new(Inner::new(pools, config, bodies));
        listen::start(&inner);
        Ok(Self(inner))
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }
}

fn committed<R>((replies, changes): (Vec<R>, Vec<hodei_core::store::Change>)) -> Committed<R> {
    Committed { replies, changes }
}

#[async_trait]
impl JobStore for PgStore {
    fn capabilities(&self) -> Capabilities {
        let durable = self.0.is_durable();
        Capabilities { durable, exclusive: false, spans_tenants: true, limits_all: true, rates: true }
    }

    fn stats(&self) -> StoreStats {
        self.0.stats()
    }

    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>> {
        if self.0.is_plain(&jobs, options) {
            return self.0.submit_plain(jobs).await;
        }
        self.0.write("store.submit", Submit { jobs, options }).await.map(committed)
    }

    async fn lanes(&self, served: &Served) -> Result<Lanes> {
        self.0.lanes(served).await
    }

    async fn before(&self, job: &Job, most: u64) -> Result<Before> {
        self.0.before(job, most).await
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged> {
        self.0.exchange(exchange).await
    }

    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        let scope = scope.clone();
        self.0.write("store.request_cancel", Cancel { scope, jobs }).await.map(committed)
    }

    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>> {
        self.0.leases_of(owner).await
    }

    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>> {
        let scope = scope.clone();
        self.0.write("store.redrive", Redrive { scope, jobs }).await.map(committed)
    }

    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        let verb = Reap { term: term.clone(), lost_max, limit };
        let (reaped, changes) = self.0.write("store.reap", verb).await?;
        Ok(Reaped { changes, ..reaped })
    }

    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired> {
        let verb = Fire { term: term.clone(), tenant: tenant.clone(), schedule: schedule.clone(), at };
        Ok(self.0.write("store.fire", verb).await?.0)
    }

    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        let mut tended = false;
        for need in Need::ALL {
            let tend = |need| Tend { need, term: term.clone(), retention };
            let mut done = self.0.write("store.prune", tend(need)).await?.0;
            if done == Tended::Unproved {
                done = self.0.write("store.prune", tend(Need::Proof)).await?.0;
            }
            tended |= done == Tended::Some;
        }
        let verb = Prune { term: term.clone(), retention, limit };
        let (pruned, _) = self.0.write("store.prune", verb).await?;
        Ok(Pruned { more: pruned.more || (tended && !pruned.term_lost), ..pruned })
    }

    async fn get_many(&self, scope: &Scope, jobs: Vec<JobId>, _: Consistency) -> Result<Vec<Option<Job>>> {
        self.0.get_many(scope, &jobs).await
    }

    async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        self.0.query(scope, &query).await
    }

    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream {
        Box::pin(Pages { inner: Arc::clone(&self.0), scope: scope.clone(), query: Some(query), page: None })
    }

    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        self.0.outputs(scope, &jobs).await
    }

    async fn counts(&self, scope: &Scope) -> Result<Counts> {
        self.0.counts(scope).await
    }

    async fn queue_counts(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>> {
        self.0.queue_counts(scope, &query).await
    }

    async fn changes(&self, scope: &Scope, after: Option<Cursor>, limit: usize) -> Result<ChangePage> {
        self.0.changes(scope, after.as_ref(), limit).await
    }

    async fn changes_end(&self) -> Result<Cursor> {
        self.0.changes_end().await
    }

    fn wakeups(&self) -> Wakeups {
        self.0.wakeups.listen()
    }

    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        let feed = self.0.teller.feed(sink);
        self.0.announcer.followed.notify_one();
        feed
    }

    async fn verify_indexes(&self) -> Result<Vec<String>> {
        self.0.verify_indexes().await
    }
}

/// The pages of a query, one after the other.
struct Pages {
    inner: Arc<Inner>,
    scope: Scope,
    query: Option<Query>,
    page: Option<BoxFuture<'static, Result<Page>>>,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("query", &self.query).finish_non_exhaustive()
    }
}

impl Stream for Pages {
    type Item = Result<Vec<hodei_core::job::JobSummary>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(page) = &mut self.page {
                let read = ready!(page.as_mut().poll(cx));
                self.page = None;
                match read {
                    Ok(page) => {
                        match page.next {
                            Some(next) => self.query = self.query.take().map(|query| query.after(next)),
                            None => self.query = None,
                        }
                        if !page.jobs.is_empty() {
                            return Poll::Ready(Some(Ok(page.jobs)));
                        }
                    }
                    Err(error) => {
                        self.query = None;
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
            let Some(query) = self.query.clone() else { return Poll::Ready(None) };
            let (inner, scope) = (Arc::clone(&self.inner), self.scope.clone());
            self.page = Some(Box::pin(async move { inner.query(&scope, &query).await }));
        }
    }
}
