//! The store, and how its verbs reach the state.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::Stream;

use super::super::*;
use super::state::State;
use crate::error::{Error, Fault, Result};
use crate::id::{JobId, Name, OwnerId, Slot, Tenant};
use crate::job::{Job, Lease, NewJob, Output};
use crate::text::Texts;
use crate::time::{Clock, SystemClock, Timestamp};

/// The store in memory. Cloning shares it.
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// One std mutex for everything: a verb is a transaction, short and without an await.
    state: Mutex<State>,
    /// Taken before `state` is let go, so that the sinks are told in the order of the commits while others already use
    /// the state.
    turn: Mutex<()>,
    feeds: Feeds,
    clock: Arc<dyn Clock>,
    wakeups: WakeupSignal,
}

/// Sets a [`MemoryStore`] up.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct MemoryStoreBuilder {
    clock: Arc<dyn Clock>,
    change_log: ChangeLog,
    max_jobs: usize,
    tenant_max_open: u64,
}

impl MemoryStoreBuilder {
    /// Sets the store's clock. Default: the operating system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets which changes are recorded. Default: all.
    pub fn change_log(mut self, change_log: ChangeLog) -> Self {
        self.change_log = change_log;
        self
    }

    /// Sets how many jobs are kept at most; a submission beyond fails with `Full`. Default: ten million.
    pub fn max_jobs(mut self, max_jobs: usize) -> Self {
        self.max_jobs = max_jobs;
        self
    }

    /// Sets how many jobs of one tenant may be unsettled at once; more are [`Refusal::TooMany`]. Default: no bound
    /// but that of the store.
    pub fn tenant_max_open(mut self, jobs: u64) -> Self {
        self.tenant_max_open = jobs;
        self
    }

    /// Makes the store.
    #[must_use]
    pub fn build(self) -> MemoryStore {
        let state = State {
            change_log: self.change_log,
            max_jobs: self.max_jobs,
            tenant_max_open: self.tenant_max_open,
            ..State::default()
        };
        let inner = Inner {
            state: Mutex::new(state),
            turn: Mutex::new(()),
            feeds: Feeds::new(),
            clock: self.clock,
            wakeups: WakeupSignal::new(),
        };
        MemoryStore(Arc::new(inner))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// Makes an empty store on the operating system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Makes an empty store on another clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self::builder().clock(clock).build()
    }

    /// Begins to set a store up.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder {
            clock: Arc::new(SystemClock),
            change_log: ChangeLog::All,
            max_jobs: 10_000_000,
            tenant_max_open: u64::MAX,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read<R>(&self, read: impl FnOnce(&mut State, Timestamp) -> R) -> R {
        let now = self.0.clock.now();
        read(&mut self.state(), now)
    }

    pub(super) fn write<R>(&self, write: impl FnOnce(&mut State, Timestamp) -> R) -> R {
        self.commit(write).0
    }

    fn committed<R>(
        &self,
        write: impl FnOnce(&mut State, Timestamp) -> Result<Vec<R>>,
    ) -> Result<Committed<R>> {
        let (replies, changes) = self.commit(write);
        Ok(Committed { replies: replies?, changes })
    }

    /// Waits until the sinks were told of everything that is committed.
    pub(super) fn told(&self) {
        // Whoever tells took the turn while it held the state.
        drop(self.0.turn.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Runs a verb, counts it, tells the sinks what it changed, and wakes whoever waits for what it made ready.
    fn commit<R>(&self, write: impl FnOnce(&mut State, Timestamp) -> R) -> (R, Vec<Change>) {
        let mut state = self.state();
        // Behind the lock: who came first was told no later time.
        let now = self.0.clock.now();
        state.stats.commits += 1;
        state.look_at_clock(now);
        let result = write(&mut state, now);
        let changes = std::mem::take(&mut state.committing);
        let readied = std::mem::take(&mut state.readied);
        let told = !changes.is_empty() && !self.0.feeds.is_empty();
        let turn = told.then(|| self.0.turn.lock().unwrap_or_else(PoisonError::into_inner));
        drop(state);
        if turn.is_some() {
            self.0.feeds.tell(&changes);
        }
        drop(turn);
        if readied {
            self.0.wakeups.ring();
        }
        (result, changes)
    }
}

#[async_trait]
impl JobStore for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: false, exclusive: true, spans_tenants: true, limits_all: true, rates: true }
    }

    fn stats(&self) -> StoreStats {
        self.read(|state, _| state.stats)
    }

    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>> {
        self.committed(|state, now| {
            // An id of another slot than its tenant's is invalid, wherever that slot is.
            let valid = jobs.iter().filter(|job| job.id.slot() == job.tenant.slot());
            state.slots.writable("store.submit", valid.map(|job| job.id.slot()))?;
            state.submit(jobs, options, now)
        })
    }

    async fn lanes(&self, served: &Served) -> Result<Lanes> {
        let (lanes, readied) = self.read(|state, now| {
            let lanes = state.lanes(served, now);
            (lanes, std::mem::take(&mut state.readied))
        });
        // Whoever asks for all queues knows already.
        if readied && served.queues.is_some() {
            self.0.wakeups.ring();
        }
        Ok(lanes)
    }

    async fn before(&self, job: &Job, most: u64) -> Result<Before> {
        Ok(self.read(|state, now| state.before(job, most, now)))
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged> {
        let (exchanged, changes) = self.commit(|state, now| state.exchange(&exchange, now));
        Ok(Exchanged { changes, ..exchanged })
    }

    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        self.committed(|state, now| {
            state.slots.writable("store.request_cancel", jobs.iter().map(|id| id.slot()))?;
            Ok(state.cancel(scope, &jobs, now))
        })
    }

    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>> {
        Ok(self.read(|state, _| {
            let held = state.leases_of(owner).into_iter().filter_map(|id| state.jobs.get(&id).cloned());
            held.map(|job| state.with_inputs(job)).collect()
        }))
    }

    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>> {
        self.committed(|state, now| {
            state.slots.writable("store.redrive", jobs.iter().map(|id| id.slot()))?;
            Ok(state.redrive(scope, &jobs, now))
        })
    }

    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        let (reaped, changes) = self.commit(|state, now| state.reap(term, lost_max, limit, now));
        Ok(Reaped { changes, ..reaped })
    }

    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired> {
        self.write(|state, now| {
            state.slots.writable("store.fire", std::iter::once(tenant.slot()))?;
            Ok(state.fire(term, tenant, schedule, at, now))
        })
    }

    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        Ok(self.write(|state, now| state.prune(term, retention, limit, now)))
    }

    async fn get_many(&self, scope: &Scope, jobs: Vec<JobId>, _: Consistency) -> Result<Vec<Option<Job>>> {
        self.read(|state, _| {
            state.slots.readable("store.get_many", jobs.iter().map(|id| id.slot()))?;
            let get =
                |id| state.jobs.get(&id).filter(|job| scope.covers(&job.tenant)).map(|job| Job::clone(job));
            Ok(jobs.into_iter().map(get).collect())
        })
    }

    async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        self.read(|state, _| {
            state.slots.readable("store.query", slot_of(scope))?;
            state.query(scope, &query)
        })
    }

    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream {
        Box::pin(Pages {
            store: self.clone(),
            scope: scope.clone(),
            query: Some(query),
            ready: VecDeque::new(),
        })
    }

    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        self.read(|state, _| {
            state.slots.readable("store.outputs", jobs.iter().map(|id| id.slot()))?;
            let job = |id| state.jobs.get(&id).filter(|job| scope.covers(&job.tenant));
            Ok(jobs.into_iter().map(|id| job(id)?.output().cloned()).collect())
        })
    }

    async fn counts(&self, scope: &Scope) -> Result<Counts> {
        self.read(|state, _| {
            state.slots.readable("store.counts", slot_of(scope))?;
            Ok(match scope {
                Scope::All => state.counts,
                Scope::Tenant(tenant) => state.counts_of(tenant),
            })
        })
    }

    async fn queue_counts(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>> {
        query.check()?;
        self.read(|state, _| {
            state.slots.readable("store.queue_counts", slot_of(scope))?;
            Ok(state.queue_counts.page(scope, &query))
        })
    }

    async fn changes(&self, scope: &Scope, after: Option<Cursor>, limit: usize) -> Result<ChangePage> {
        self.read(|state, _| state.changes_after(scope, after.as_ref(), limit))
    }

    async fn changes_end(&self) -> Result<Cursor> {
        Ok(self.read(|state, _| state.changes_end()))
    }

    fn wakeups(&self) -> Wakeups {
        self.0.wakeups.listen()
    }

    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        self.0.feeds.register(sink)
    }

    async fn verify_indexes(&self) -> Result<Vec<String>> {
        Ok(self.read(|state, now| state.contradictions(now)))
    }
}

#[async_trait]
impl Coordination for MemoryStore {
    async fn register(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
        if ttl < OWNER_TTL_MIN {
            let limit = u64::try_from(OWNER_TTL_MIN.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::invalid("store.register", vec![Fault::new("ttl", "too_small").limit(limit)]));
        }
        Ok(self.write(|state, now| state.register(owner, ttl, now)))
    }

    async fn beat(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>> {
        Ok(self.write(|state, now| state.beat(&owners, ttl, now)))
    }

    async fn retire(&self, owner: &Lease) -> Result<()> {
        self.write(|state, _| state.retire(owner));
        Ok(())
    }

    async fn take_term(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>> {
        Ok(self.write(|state, now| state.take_term(duty, holder, ttl, now)))
    }

    async fn keep_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        Ok(self.write(|state, now| state.keep_term(term, ttl, now)))
    }

    async fn owners(&self) -> Result<Vec<Living>> {
        Ok(self.read(|state, now| state.owners(now)))
    }

    async fn now(&self) -> Result<Timestamp> {
        Ok(self.read(|_, now| now))
    }
}

#[async_trait]
impl Policies for MemoryStore {
    async fn set_queue(&self, policy: QueuePolicy) -> Result<()> {
        if policy.weight == 0 {
            return Err(Error::invalid("store.set_queue", vec![Fault::new("weight", "zero")]));
        }
        self.write(|state, _| {
            state.slots.writable("store.set_queue", std::iter::once(policy.tenant.slot()))?;
            state.readied = true;
            state.queues.insert((policy.tenant.clone(), policy.queue.clone()), policy);
            Ok(())
        })
    }

    async fn queues(&self, scope: &Scope) -> Result<Vec<QueuePolicy>> {
        self.read(|state, _| {
            state.slots.readable("store.queues", slot_of(scope))?;
            Ok(state.queues.values().filter(|row| scope.covers(&row.tenant)).cloned().collect())
        })
    }

    async fn queue(&self, tenant: &Tenant, queue: &Name) -> Result<Option<QueuePolicy>> {
        self.read(|state, _| {
            state.slots.readable("store.queue", std::iter::once(tenant.slot()))?;
            Ok(state.queues.get(&(tenant.clone(), queue.clone())).cloned())
        })
    }

    async fn set_limit(&self, limit: Limit) -> Result<()> {
        limit.check()?;
        self.write(|state, now| {
            state.slots.writable("store.set_limit", limit.of.tenant().map(Tenant::slot).into_iter())?;
            state.set_limit(limit, now);
            Ok(())
        })
    }

    async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        self.write(|state, _| {
            state.slots.writable("store.remove_limit", of.tenant().map(Tenant::slot).into_iter())?;
            Ok(state.put_limit(of.clone(), None))
        })
    }

    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        self.read(|state, _| {
            state.slots.readable("store.limits", slot_of(scope))?;
            let covered = |of: &LimitOf| of.tenant().is_none_or(|tenant| scope.covers(tenant));
            let rows = state.limits.iter().filter(|(of, _)| covered(of));
            Ok(rows.map(|(of, set)| state.limit_use(of, set)).collect())
        })
    }

    async fn limits_on(&self, tenant: &Tenant, queue: &Name, keys: &Texts) -> Result<Vec<LimitUse>> {
        self.read(|state, _| {
            state.slots.readable("store.limits_on", std::iter::once(tenant.slot()))?;
            let named: BTreeSet<LimitOf> = LimitOf::of_jobs(tenant, queue, keys).collect();
            let set = named.iter().filter_map(|of| Some(state.limit_use(of, state.limits.get(of)?)));
            Ok(set.collect())
        })
    }

    async fn set_schedule(&self, mut schedule: Schedule) -> Result<()> {
        self.write(|state, _| {
            state.slots.writable("store.set_schedule", std::iter::once(schedule.tenant.slot()))?;
            let key = (schedule.tenant.clone(), schedule.name.clone());
            schedule.last_fired = state.schedules.get(&key).and_then(|old| old.last_fired);
            state.schedules.insert(key, schedule);
            Ok(())
        })
    }

    async fn remove_schedule(&self, tenant: &Tenant, name: &Name) -> Result<bool> {
        self.write(|state, _| {
            state.slots.writable("store.remove_schedule", std::iter::once(tenant.slot()))?;
            Ok(state.schedules.remove(&(tenant.clone(), name.clone())).is_some())
        })
    }

    async fn schedules(&self, scope: &Scope) -> Result<Vec<Schedule>> {
        self.read(|state, _| {
            state.slots.readable("store.schedules", slot_of(scope))?;
            Ok(state.schedules.values().filter(|row| scope.covers(&row.tenant)).cloned().collect())
        })
    }
}

/// The slot that a scope names.
fn slot_of(scope: &Scope) -> impl Iterator<Item = Slot> {
    let slot = match scope {
        Scope::All => None,
        Scope::Tenant(tenant) => Some(tenant.slot()),
    };
    slot.into_iter()
}

/// The pages of a query, one after the other.
struct Pages {
    store: MemoryStore,
    scope: Scope,
    query: Option<Query>,
    ready: VecDeque<Result<Vec<crate::job::JobSummary>>>,
}

impl Stream for Pages {
    type Item = Result<Vec<crate::job::JobSummary>>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while self.ready.is_empty() {
            let Some(query) = self.query.take() else { return Poll::Ready(None) };
            let page = self.store.read(|state, _| {
                state.slots.readable("store.stream", slot_of(&self.scope))?;
                state.query(&self.scope, &query)
            });
            match page {
                Ok(page) => {
                    self.query = page.next.map(|next| query.after(next));
                    if !page.jobs.is_empty() {
                        self.ready.push_back(Ok(page.jobs));
                    }
                }
                Err(error) => self.ready.push_back(Err(error)),
            }
        }
        Poll::Ready(self.ready.pop_front())
    }
}
