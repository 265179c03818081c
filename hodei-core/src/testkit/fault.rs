//! A store that fails when it is told to, and that waits where a real one could.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, Name, OwnerId, Slot, Tenant};
use crate::job::{Job, Lease, NewJob, Output};
use crate::store::*;
use crate::text::Texts;
use crate::time::Timestamp;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Before anything has happened: `Unavailable`.
    Refused,
    /// After it has happened: the reply is lost, `Indeterminate`.
    ReplyLost,
}

/// What a [`Faulty`] store is to do. Clones are one: several stores can count their calls together.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    calls: u64,
    /// How every call fails.
    all: Option<Fault>,
    /// Which call fails, by its number, and how.
    one: Option<(u64, Fault)>,
    /// Which call waits until everything is let through.
    held: Option<u64>,
    /// What decides how often a call waits; nothing when it never does.
    waits: Option<u64>,
    /// Whether the next look at the lanes panics.
    panics: bool,
}

impl Faults {
    /// Lets everything through.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets every call fail from now on.
    pub fn all(&self, fault: Fault) {
        self.plan().all = Some(fault);
    }

    /// Lets the n-th call from now on fail, counted from zero.
    pub fn one(&self, n: u64, fault: Fault) {
        let mut plan = self.plan();
        plan.one = Some((plan.calls + n, fault));
    }

    /// Lets the n-th call from now on, counted from zero, wait until everything is let through.
    pub fn hold(&self, n: u64) {
        let mut plan = self.plan();
        plan.held = Some(plan.calls + n);
    }

    /// Lets everything through from now on.
    pub fn heal(&self) {
        let mut plan = self.plan();
        (plan.all, plan.one, plan.held) = (None, None, None);
    }

    /// Lets calls wait now and then, before and after they are carried out, so that tasks of one thread meet in every
    /// order. The same seed gives the same order.
    pub fn wait(&self, seed: u64) {
        self.plan().waits = Some(seed);
    }

    /// Lets the next look at the lanes panic, as a bug of a store does: whoever asks for work dies of it, and nobody else.
    pub fn panic(&self) {
        self.plan().panics = true;
    }

    /// Panics where that was asked for.
    fn blow(&self) {
        let blows = std::mem::take(&mut self.plan().panics);
        assert!(!blows, "a bug of the store, as the test asked for");
    }

    /// Returns how many calls there were.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.plan().calls
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, lets it wait while it is held, and says how it fails.
    async fn next(&self) -> Option<Fault> {
        let (number, fault) = {
            let mut plan = self.plan();
            let number = plan.calls;
            plan.calls += 1;
            let one = plan.one.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
            (number, plan.all.or(one))
        };
        while self.plan().held == Some(number) {
            yielded().await;
        }
        fault
    }

    /// Waits as often as the seed says: SplitMix64 (Steele, Lea, Flood 2014), two bits of it.
    async fn pause(&self) {
        let times = {
            let mut plan = self.plan();
            let Some(seed) = &mut plan.waits else { return };
            *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z >> 62
        };
        for _ in 0..times {
            yielded().await;
        }
    }
}

/// Lets the other tasks of the thread go first.
async fn yielded() {
    let mut waited = false;
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A store whose calls fail as its [`Faults`] say. Streams, wake-ups and feeds pass
/// through.
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
    fixed: bool,
    shared: bool,
}

impl<S: fmt::Debug> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("inner", &self.inner).field("faults", &self.faults).finish()
    }
}

impl<S> Faulty<S> {
    /// Wraps a store.
    #[must_use]
    pub const fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults, fixed: false, shared: false }
    }

    /// Lets its slots move no more.
    #[must_use]
    pub fn fixed(mut self) -> Self {
        self.fixed = true;
        self
    }

    /// Lets it say that other processes write to it, so that a cache before it trusts less.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Returns the store inside.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: Sync> Faulty<S> {
    async fn meet<R>(&self, verb: impl Future<Output = Result<R>> + Send) -> Result<R> {
        self.faults.pause().await;
        let done = match self.faults.next().await {
            Some(Fault::Refused) => Err(Error::new(ErrorKind::Unavailable, "store.fault")),
            Some(Fault::ReplyLost) => {
                verb.await.and_then(|_| Err(Error::new(ErrorKind::Indeterminate, "store.fault")))
            }
            None => verb.await,
        };
        self.faults.pause().await;
        done
    }
}

impl<S: Shard> Faulty<S> {
    fn mover(&self) -> Result<&dyn Relocate> {
        self.inner.relocate().ok_or_else(|| Error::new(ErrorKind::Config, "store.relocate"))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: JobStore> JobStore for Faulty<S> {
    fn capabilities(&self) -> Capabilities {
        let inner = self.inner.capabilities();
        Capabilities { exclusive: inner.exclusive && !self.shared, ..inner }
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream {
        self.inner.stream(scope, query)
    }

    fn wakeups(&self) -> Wakeups {
        self.inner.wakeups()
    }

    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        self.inner.feed(sink)
    }

    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>> {
        self.meet(self.inner.submit(jobs, options)).await
    }

    async fn lanes(&self, served: &Served) -> Result<Lanes> {
        self.faults.blow();
        self.meet(self.inner.lanes(served)).await
    }

    async fn before(&self, job: &Job, most: u64) -> Result<Before> {
        self.meet(self.inner.before(job, most)).await
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged> {
        self.meet(self.inner.exchange(exchange)).await
    }

    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        self.meet(self.inner.request_cancel(scope, jobs)).await
    }

    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>> {
        self.meet(self.inner.leases_of(owner)).await
    }

    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>> {
        self.meet(self.inner.redrive(scope, jobs)).await
    }

    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        self.meet(self.inner.reap(term, lost_max, limit)).await
    }

    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired> {
        self.meet(self.inner.fire(term, tenant, schedule, at)).await
    }

    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        self.meet(self.inner.prune(term, retention, limit)).await
    }

    async fn get_many(
        &self,
        scope: &Scope,
        jobs: Vec<JobId>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Job>>> {
        self.meet(self.inner.get_many(scope, jobs, consistency)).await
    }

    async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        self.meet(self.inner.query(scope, query)).await
    }

    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        self.meet(self.inner.outputs(scope, jobs)).await
    }

    async fn counts(&self, scope: &Scope) -> Result<Counts> {
        self.meet(self.inner.counts(scope)).await
    }

    async fn queue_counts(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>> {
        self.meet(self.inner.queue_counts(scope, query)).await
    }

    async fn changes(&self, scope: &Scope, after: Option<Cursor>, limit: usize) -> Result<ChangePage> {
        self.meet(self.inner.changes(scope, after, limit)).await
    }

    async fn changes_end(&self) -> Result<Cursor> {
        self.meet(self.inner.changes_end()).await
    }

    async fn verify_indexes(&self) -> Result<Vec<String>> {
        self.meet(self.inner.verify_indexes()).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Coordination> Coordination for Faulty<S> {
    async fn register(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
        self.meet(self.inner.register(owner, ttl)).await
    }

    async fn beat(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>> {
        self.meet(self.inner.beat(owners, ttl)).await
    }

    async fn retire(&self, owner: &Lease) -> Result<()> {
        self.meet(self.inner.retire(owner)).await
    }

    async fn take_term(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>> {
        self.meet(self.inner.take_term(duty, holder, ttl)).await
    }

    async fn keep_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        self.meet(self.inner.keep_term(term, ttl)).await
    }

    async fn round(&self, round: Round) -> Result<Rounded> {
        self.meet(self.inner.round(round)).await
    }

    async fn owners(&self) -> Result<Vec<Living>> {
        self.meet(self.inner.owners()).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.meet(self.inner.now()).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Policies> Policies for Faulty<S> {
    async fn set_queue(&self, policy: QueuePolicy) -> Result<()> {
        self.meet(self.inner.set_queue(policy)).await
    }

    async fn queues(&self, scope: &Scope) -> Result<Vec<QueuePolicy>> {
        self.meet(self.inner.queues(scope)).await
    }

    async fn queue(&self, tenant: &Tenant, queue: &Name) -> Result<Option<QueuePolicy>> {
        self.meet(self.inner.queue(tenant, queue)).await
    }

    async fn set_limit(&self, limit: Limit) -> Result<()> {
        self.meet(self.inner.set_limit(limit)).await
    }

    async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        self.meet(self.inner.remove_limit(of)).await
    }

    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        self.meet(self.inner.limits(scope)).await
    }

    async fn limits_on(&self, tenant: &Tenant, queue: &Name, keys: &Texts) -> Result<Vec<LimitUse>> {
        self.meet(self.inner.limits_on(tenant, queue, keys)).await
    }

    async fn set_schedule(&self, schedule: Schedule) -> Result<()> {
        self.meet(self.inner.set_schedule(schedule)).await
    }

    async fn remove_schedule(&self, tenant: &Tenant, name: &Name) -> Result<bool> {
        self.meet(self.inner.remove_schedule(tenant, name)).await
    }

    async fn schedules(&self, scope: &Scope) -> Result<Vec<Schedule>> {
        self.meet(self.inner.schedules(scope)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Shard> Shard for Faulty<S> {
    fn relocate(&self) -> Option<&dyn Relocate> {
        self.inner.relocate().filter(|_| !self.fixed).map(|_| self as &dyn Relocate)
    }

    async fn note(&self, name: &Name) -> Result<Option<Note>> {
        self.meet(self.inner.note(name)).await
    }

    async fn put_note(&self, name: &Name, expected: u64, value: Bytes) -> Result<bool> {
        self.meet(self.inner.put_note(name, expected, value)).await
    }

    async fn owner_life(&self, owner: &Lease) -> Result<Option<Duration>> {
        self.meet(self.inner.owner_life(owner)).await
    }

    async fn adopt_owner(&self, owner: &Lease, ttl: Duration) -> Result<bool> {
        self.meet(self.inner.adopt_owner(owner, ttl)).await
    }

    async fn term_life(&self, term: &Term) -> Result<Option<Duration>> {
        self.meet(self.inner.term_life(term)).await
    }

    async fn adopt_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        self.meet(self.inner.adopt_term(term, ttl)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Shard> Relocate for Faulty<S> {
    async fn seal_slot(&self, slot: Slot, number: u64) -> Result<Timestamp> {
        self.meet(self.mover()?.seal_slot(slot, number)).await
    }

    async fn export_slot(
        &self,
        slot: Slot,
        number: u64,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<SlotBatch> {
        self.meet(self.mover()?.export_slot(slot, number, after, limit)).await
    }

    async fn import_slot(&self, slot: Slot, number: u64, rows: Vec<SlotRow>) -> Result<()> {
        self.meet(self.mover()?.import_slot(slot, number, rows)).await
    }

    async fn close_slot(&self, slot: Slot, number: u64, limit: usize) -> Result<bool> {
        self.meet(self.mover()?.close_slot(slot, number, limit)).await
    }

    async fn open_slot(&self, slot: Slot, number: u64) -> Result<()> {
        self.meet(self.mover()?.open_slot(slot, number)).await
    }
}
