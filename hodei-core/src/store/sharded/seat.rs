//! The places of the shards, and what answers in one whose shard is absent.

use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use super::super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, Name, OwnerId, Tenant};
use crate::job::{Job, JobSummary, Lease, NewJob, Output};
use crate::text::Texts;
use crate::time::Timestamp;

/// A place for a shard. It is asked as the shard is; while nobody has taken it, every verb is `Unavailable`.
pub(super) struct Seat {
    store: OnceLock<Arc<dyn Shard>>,
    vacant: Vacant,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.store.get() {
            Some(store) => store.fmt(f),
            None => self.vacant.fmt(f),
        }
    }
}

impl Deref for Seat {
    type Target = dyn Shard;

    fn deref(&self) -> &Self::Target {
        self.store.get().map_or(&self.vacant, |store| &**store)
    }
}

impl Seat {
    /// Makes the place of a shard that is there.
    pub(super) fn of(store: Arc<dyn Shard>) -> Self {
        Self { store: OnceLock::from(store), vacant: Vacant { why: String::new() } }
    }

    /// Makes the place of a shard that is absent, because of an error.
    pub(super) fn vacant(error: &Error) -> Self {
        Self { store: OnceLock::new(), vacant: Vacant { why: error.to_string() } }
    }

    /// Returns the shard that is there.
    pub(super) fn taken(&self) -> Option<&dyn Shard> {
        self.store.get().map(|store| &**store)
    }

    /// Lets a shard take the place; `false` when another one has taken it.
    pub(super) fn take(&self, store: Arc<dyn Shard>) -> bool {
        self.store.set(store).is_ok()
    }

    /// Says whether the shard is there, as an error of an operation where it is not.
    pub(super) fn answers(&self, op: &'static str) -> Result<()> {
        self.taken().map_or_else(|| self.vacant.absent(op), |_| Ok(()))
    }
}

/// What answers for a shard that is absent.
#[derive(Debug)]
struct Vacant {
    /// The error with which it did not open.
    why: String,
}

impl Vacant {
    fn absent<T>(&self, op: &'static str) -> Result<T> {
        Err(Error::new(ErrorKind::Unavailable, op).with("absent", &self.why))
    }
}

/// A list that fails.
struct Failing(Option<Error>);

impl Stream for Failing {
    type Item = Result<Vec<JobSummary>>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.take().map(Err))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl JobStore for Vacant {
    /// None, as nobody knows what it will offer.
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: false,
            exclusive: false,
            spans_tenants: false,
            limits_all: false,
            rates: false,
        }
    }

    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }

    fn stream(&self, _: &Scope, _: Query) -> SummaryStream {
        Box::pin(Failing(self.absent::<()>("store.stream").err()))
    }

    /// Never rings.
    fn wakeups(&self) -> Wakeups {
        WakeupSignal::new().listen()
    }

    /// Tells nothing.
    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        Feeds::new().register(sink)
    }

    async fn submit(&self, _: Vec<NewJob>, _: SubmitOptions) -> Result<Committed<Submitted>> {
        self.absent("store.submit")
    }

    async fn lanes(&self, _: &Served) -> Result<Lanes> {
        self.absent("store.lanes")
    }

    async fn before(&self, _: &Job, _: u64) -> Result<Before> {
        self.absent("store.before")
    }

    async fn exchange(&self, _: Exchange) -> Result<Exchanged> {
        self.absent("store.exchange")
    }

    async fn request_cancel(&self, _: &Scope, _: Vec<JobId>) -> Result<Committed<CancelReply>> {
        self.absent("store.request_cancel")
    }

    async fn leases_of(&self, _: &Lease) -> Result<Vec<Claimed>> {
        self.absent("store.leases_of")
    }

    async fn redrive(&self, _: &Scope, _: Vec<JobId>) -> Result<Committed<Redriven>> {
        self.absent("store.redrive")
    }

    async fn reap(&self, _: &Term, _: u16, _: usize) -> Result<Reaped> {
        self.absent("store.reap")
    }

    async fn fire(&self, _: &Term, _: &Tenant, _: &Name, _: Timestamp) -> Result<Fired> {
        self.absent("store.fire")
    }

    async fn prune(&self, _: &Term, _: Retention, _: usize) -> Result<Pruned> {
        self.absent("store.prune")
    }

    async fn get_many(&self, _: &Scope, _: Vec<JobId>, _: Consistency) -> Result<Vec<Option<Job>>> {
        self.absent("store.get_many")
    }

    async fn query(&self, _: &Scope, _: Query) -> Result<Page> {
        self.absent("store.query")
    }

    async fn outputs(&self, _: &Scope, _: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        self.absent("store.outputs")
    }

    async fn counts(&self, _: &Scope) -> Result<Counts> {
        self.absent("store.counts")
    }

    async fn queue_counts(&self, _: &Scope, _: QueueQuery) -> Result<Vec<QueueCounts>> {
        self.absent("store.queue_counts")
    }

    async fn changes(&self, _: &Scope, _: Option<Cursor>, _: usize) -> Result<ChangePage> {
        self.absent("store.changes")
    }

    async fn changes_end(&self) -> Result<Cursor> {
        self.absent("store.changes_end")
    }

    async fn verify_indexes(&self) -> Result<Vec<String>> {
        self.absent("store.verify_indexes")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Coordination for Vacant {
    async fn register(&self, _: &OwnerId, _: Duration) -> Result<Lease> {
        self.absent("store.register")
    }

    async fn beat(&self, _: Vec<Lease>, _: Duration) -> Result<Vec<Beat>> {
        self.absent("store.beat")
    }

    async fn retire(&self, _: &Lease) -> Result<()> {
        self.absent("store.retire")
    }

    async fn take_term(&self, _: &Name, _: &Lease, _: Duration) -> Result<Option<Term>> {
        self.absent("store.take_term")
    }

    async fn keep_term(&self, _: &Term, _: Duration) -> Result<bool> {
        self.absent("store.keep_term")
    }

    async fn round(&self, _: Round) -> Result<Rounded> {
        self.absent("store.round")
    }

    async fn owners(&self) -> Result<Vec<Living>> {
        self.absent("store.owners")
    }

    async fn now(&self) -> Result<Timestamp> {
        self.absent("store.now")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Policies for Vacant {
    async fn set_queue(&self, _: QueuePolicy) -> Result<()> {
        self.absent("store.set_queue")
    }

    async fn queues(&self, _: &Scope) -> Result<Vec<QueuePolicy>> {
        self.absent("store.queues")
    }

    async fn queue(&self, _: &Tenant, _: &Name) -> Result<Option<QueuePolicy>> {
        self.absent("store.queue")
    }

    async fn set_limit(&self, _: Limit) -> Result<()> {
        self.absent("store.set_limit")
    }

    async fn remove_limit(&self, _: &LimitOf) -> Result<bool> {
        self.absent("store.remove_limit")
    }

    async fn limits(&self, _: &Scope) -> Result<Vec<LimitUse>> {
        self.absent("store.limits")
    }

    async fn limits_on(&self, _: &Tenant, _: &Name, _: &Texts) -> Result<Vec<LimitUse>> {
        self.absent("store.limits_on")
    }

    async fn set_schedule(&self, _: Schedule) -> Result<()> {
        self.absent("store.set_schedule")
    }

    async fn remove_schedule(&self, _: &Tenant, _: &Name) -> Result<bool> {
        self.absent("store.remove_schedule")
    }

    async fn schedules(&self, _: &Scope) -> Result<Vec<Schedule>> {
        self.absent("store.schedules")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Shard for Vacant {
    /// Whoever moves slots looks first whether the shard is there.
    fn relocate(&self) -> Option<&dyn Relocate> {
        None
    }

    async fn note(&self, _: &Name) -> Result<Option<Note>> {
        self.absent("shard.note")
    }

    async fn put_note(&self, _: &Name, _: u64, _: Bytes) -> Result<bool> {
        self.absent("shard.put_note")
    }

    async fn owner_life(&self, _: &Lease) -> Result<Option<Duration>> {
        self.absent("shard.owner_life")
    }

    async fn adopt_owner(&self, _: &Lease, _: Duration) -> Result<bool> {
        self.absent("shard.adopt_owner")
    }

    async fn term_life(&self, _: &Term) -> Result<Option<Duration>> {
        self.absent("shard.term_life")
    }

    async fn adopt_term(&self, _: &Term, _: Duration) -> Result<bool> {
        self.absent("shard.adopt_term")
    }
}
