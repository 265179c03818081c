//! The wrapper itself, and how jobs are read through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::records::{Entry, Known, Records, Ticket};
use super::stats::count;
use crate::error::Result;
use crate::id::{JobId, Tenant};
use crate::job::{Job, Output, State};
use crate::store::tiered::{Allowance, CacheTier, Tier, TierOptions, Timer};
use crate::store::{
    CacheStats, Capabilities, Change, ChangeSink, Consistency, Feed, JobStore, Pruned, Scope,
};
use crate::time::{Clock, SystemClock, Timestamp};

/// What `Latest` means for the reads of jobs through a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LatestReads {
    /// As of the last commit, whoever has been told of it: from memory come only jobs that succeeded.
    #[default]
    Committed,
    /// As of the last commit that was acknowledged; of an exclusive store everything can come from memory. Whoever sees
    /// a commit in a list before its writer is answered may read the version before it here.
    Acknowledged,
}

/// Sets up a [`CachedStore`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct CachedStoreBuilder<S> {
    inner: S,
    bytes: u64,
    max_age: Duration,
    final_max_age: Duration,
    latest: LatestReads,
    clock: Arc<dyn Clock>,
    tier: Option<Tier>,
}

impl<S: JobStore> CachedStoreBuilder<S> {
    /// Sets how many bytes the records may take, what they share counted for each. Default: 64 MiB.
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets how old what [`CachedStore::get_cached`] returns may be, where other processes write to the store. Default:
    /// 1 s.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets how long jobs that succeeded are known, where other processes write to the store: so long may one be
    /// answered that another process has pruned. Default: 1 h.
    pub fn final_max_age(mut self, age: Duration) -> Self {
        self.final_max_age = age;
        self
    }

    /// Sets what `Latest` means for reads of jobs. Default: [`LatestReads::Committed`].
    pub fn latest(mut self, latest: LatestReads) -> Self {
        self.latest = latest;
        self
    }

    /// Sets the clock by which records age. Default: the system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Puts a second tier behind the memory, unless the store is exclusive: then no other node shares it. All nodes that share it need the same key, which nobody else may know: who
    /// knows it can make up rows. Default: none.
    pub fn tier(
        mut self,
        tier: Arc<dyn CacheTier>,
        key: [u8; 32],
        timer: Arc<dyn Timer>,
        options: TierOptions,
    ) -> Self {
        self.tier = Some(Tier::new(tier, timer, key, options));
        self
    }

    /// Makes the store, and has the one inside tell it of its commits.
    pub fn build(self) -> CachedStore<S> {
        let records = Arc::new(Records::new(self.bytes));
        let feed = self.inner.feed(Arc::<Records>::clone(&records));
        let Capabilities { exclusive, spans_tenants, .. } = self.inner.capabilities();
        CachedStore {
            exclusive,
            whole: spans_tenants,
            inner: self.inner,
            records,
            _feed: feed,
            pruning: AtomicUsize::new(0),
            max_age: self.max_age,
            final_max_age: self.final_max_age,
            latest: self.latest,
            clock: self.clock,
            tier: self.tier.filter(|_| !exclusive),
        }
    }
}

/// A store before which records of jobs are kept in memory; the rules:
///
/// - `Latest` never answers with an older version than the last commit, `Cached` never with one older than it may be.
/// - Claims and transitions neither read nor fill the memory.
/// - Of an exclusive store, what was read stays known until a commit changes it; of one that other processes write to,
///   for as long as the caller allows, and jobs that succeeded for an hour.
/// - Whatever prunes an exclusive store, or asks running jobs to stop, must do so through this: no change tells of it. Of a
///   pruning around it a job that is gone may still be answered, as it was last; of a request to stop around it a running
///   job may be answered without it until its next transition. `Consistency::Latest` is answered from memory only for jobs that
///   succeeded, unless [`LatestReads`] allows more: then it is so for all.
///
/// ```
/// # use hodei_core::store::{CachedStore, MemoryStore, JobStore, Scope, SubmitOptions, Consistency};
/// # use hodei_core::job::{JobSpec, NewJob};
/// # use std::time::Duration;
/// # async fn example() -> Result<(), hodei_core::Error> {
/// let store = CachedStore::builder(MemoryStore::new()).bytes(16 << 20).build();
/// let job = NewJob::new(JobSpec::command(["true"]).build()?);
/// let id = job.id;
/// store.submit(vec![job], SubmitOptions::each()).await?;
/// store.get_many(&Scope::All, vec![id], Consistency::Cached(Duration::from_secs(1))).await?;
/// assert_eq!(store.get_cached(&Scope::All, id).map(|job| job.id), Some(id));
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example()).unwrap();
/// ```
#[derive(Debug)]
pub struct CachedStore<S> {
    pub(super) inner: S,
    pub(super) records: Arc<Records>,
    /// Dropped with this, so that the store inside tells the records nothing more.
    _feed: Feed,
    pub(super) exclusive: bool,
    /// Whether what is written is committed as a whole or not at all.
    pub(super) whole: bool,
    /// How many prunings are under way.
    pub(super) pruning: AtomicUsize,
    max_age: Duration,
    final_max_age: Duration,
    latest: LatestReads,
    clock: Arc<dyn Clock>,
    tier: Option<Tier>,
}

impl<S: JobStore> CachedStore<S> {
    /// Begins to set one up.
    pub fn builder(inner: S) -> CachedStoreBuilder<S> {
        CachedStoreBuilder {
            inner,
            bytes: 64 << 20,
            max_age: Duration::from_secs(1),
            final_max_age: Duration::from_secs(3_600),
            latest: LatestReads::default(),
            clock: Arc::new(SystemClock),
            tier: None,
        }
    }

    /// Makes one with all defaults.
    pub fn new(inner: S) -> Self {
        Self::builder(inner).build()
    }
}

impl<S> CachedStore<S> {
    /// Returns the store inside.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the record of a job in a scope, where it is in memory and fresh enough: of an exclusive store as of the
    /// last acknowledged commit, else not older than [`CachedStoreBuilder::max_age`].
    ///
    /// # Performance
    ///
    /// Waits for nobody and copies nothing. `cargo bench --package hodei-benches --bench embedded_figures -- read` says how long
    /// a hit takes.
    #[must_use]
    pub fn get_cached(&self, scope: &Scope, id: JobId) -> Option<Arc<Job>> {
        let hit = self.known(id, Consistency::Cached(self.max_age)).and_then(|entry| match entry.known {
            Known::Job(job) if scope.covers(&job.tenant) => Some(job),
            Known::Job(_) | Known::Output { .. } => None,
        });
        let counters = &self.records.counters;
        count(if hit.is_some() { &counters.hits } else { &counters.misses }, 1);
        hit
    }

    /// Takes in changes that another process committed, as whoever follows the change log of a shared store reads them.
    pub fn follow(&self, changes: &[Change]) {
        self.records.committed(changes);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.records.clear();
    }

    /// Returns what the cache has done.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        let mut stats = self.records.stats();
        if let Some(tier) = &self.tier {
            let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            stats.tier_hits = read(&tier.counters.hits);
            stats.tier_misses = read(&tier.counters.misses);
            stats.tier_rejected = read(&tier.counters.rejected);
            stats.tier_failures = read(&tier.counters.failures);
            stats.tier_skipped = read(&tier.counters.skipped);
            stats.tier_shut = tier.is_shut();
        }
        stats
    }

    /// Returns what is known of a job, where that is fresh enough.
    fn known(&self, id: JobId, consistency: Consistency) -> Option<Entry> {
        // Before the look, so that a pruning that begins after it comes after this read.
        let pruned = || self.pruning.load(Ordering::SeqCst) > 0;
        match (self.exclusive, consistency, self.latest) {
            (false, Consistency::Latest, _) => None,
            (true, Consistency::Latest, LatestReads::Committed) => {
                if pruned() {
                    return None;
                }
                self.records.get(id).filter(|entry| entry.known.is_final())
            }
            (true, Consistency::Latest, LatestReads::Acknowledged) | (true, Consistency::Cached(_), _) => {
                if pruned() {
                    return None;
                }
                self.records.get(id)
            }
            (false, Consistency::Cached(max_age), _) => {
                let entry = self.records.get(id)?;
                let final_max_age = if entry.known.is_final() { self.final_max_age } else { Duration::ZERO };
                let (now, read_at) = (self.clock.now(), entry.read_at);
                // A clock that went back tells no ages.
                let age = (now >= read_at).then(|| now.saturating_since(read_at))?;
                if age > max_age.max(final_max_age) {
                    return None;
                }
                self.records.counters.answered(age);
                Some(entry)
            }
        }
    }

    fn ticket(&self, id: JobId, now: Timestamp) -> Ticket {
        self.records.ticket(id, now)
    }
}

/// A place in a batch whose reply is not in memory.
struct Missing {
    place: usize,
    id: JobId,
    ticket: Ticket,
}

impl<S: JobStore> CachedStore<S> {
    pub(super) async fn read_jobs(
        &self,
        scope: &Scope,
        ids: Vec<JobId>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Job>>> {
        let mut replies = Vec::with_capacity(ids.len());
        let mut missing = Vec::new();
        let now = self.clock.now();
        for (place, id) in ids.into_iter().enumerate() {
            match self.known(id, consistency).map(|entry| entry.known) {
                // Another tenant's job does not exist for the call.
                Some(Known::Job(job)) => replies.push(scope.covers(&job.tenant).then(|| Job::clone(&job))),
                Some(Known::Output { .. }) | None => {
                    missing.push(Missing { place, id, ticket: self.ticket(id, now) });
                    replies.push(None);
                }
            }
        }
        self.noted(replies.len(), missing.len());
        let mut allowance = Allowance::of(self.tier.as_ref(), &*self.clock);
        if !matches!(consistency, Consistency::Latest) {
            self.read_tier(scope, &mut missing, &mut replies, now, &mut allowance).await;
        }
        if missing.is_empty() {
            return Ok(replies);
        }
        // The age of what comes back is counted from here, so nothing that is older will do.
        let ids = missing.iter().map(|missing| missing.id).collect();
        let read = self.inner.get_many(scope, ids, Consistency::Latest).await?;
        for (missing, job) in missing.iter().zip(&read) {
            match job {
                Some(job) => {
                    self.records.admit(missing.id, Known::Job(Arc::new(job.clone())), missing.ticket)
                }
                None => self.records.is_gone(missing.id, scope),
            }
        }
        if let Some(tier) = &self.tier {
            let ended = read.iter().flatten().filter(|job| job.state == State::Succeeded);
            tier.keep(ended, now, &mut allowance).await;
        }
        for (missing, job) in missing.iter().zip(read) {
            replies[missing.place] = job;
        }
        Ok(replies)
    }

    /// Asks the second tier for what is missing; what it has is missing no more.
    async fn read_tier(
        &self,
        scope: &Scope,
        missing: &mut Vec<Missing>,
        replies: &mut [Option<Job>],
        now: Timestamp,
        allowance: &mut Allowance<'_>,
    ) {
        let Some(tier) = self.tier.as_ref().filter(|_| !missing.is_empty()) else { return };
        let ids: Vec<JobId> = missing.iter().map(|missing| missing.id).collect();
        let mut found = tier.find(&ids, now, allowance).await.into_iter();
        missing.retain(|missing| {
            let Some((job, read_at)) = found.next().flatten() else { return true };
            replies[missing.place] = scope.covers(&job.tenant).then(|| Job::clone(&job));
            self.records.admit(missing.id, Known::Job(job), missing.ticket.read_at(read_at));
            false
        });
    }

    /// Has the second tier forget what was removed. Where it does not, its rows end by themselves.
    pub(super) async fn forget_in_tier(&self, pruned: &Pruned) {
        if let Some(tier) = self.tier.as_ref().filter(|_| !pruned.gone.is_empty()) {
            let ids: Vec<JobId> = pruned.gone.iter().map(|(_, id)| *id).collect();
            tier.forget(&ids, &*self.clock).await;
        }
    }

    pub(super) async fn read_outputs(&self, scope: &Scope, ids: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        let mut replies = Vec::with_capacity(ids.len());
        let mut missing = Vec::new();
        let now = self.clock.now();
        for (place, id) in ids.into_iter().enumerate() {
            let reply = self.known_output(scope, id);
            if reply.is_none() {
                missing.push(Missing { place, id, ticket: self.ticket(id, now) });
            }
            replies.push(reply);
        }
        self.noted(replies.len(), missing.len());
        if missing.is_empty() {
            return Ok(replies);
        }
        let ids = missing.iter().map(|missing| missing.id).collect();
        let read = self.inner.outputs(scope, ids).await?;
        for (missing, output) in missing.iter().zip(read) {
            if let Some(output) = &output {
                let known = Known::Output { tenant: tenant_of(scope), output: output.clone() };
                self.records.admit(missing.id, known, missing.ticket);
            }
            replies[missing.place] = output;
        }
        Ok(replies)
    }

    /// Returns the output of a job that succeeded, where the scope is known to cover it.
    fn known_output(&self, scope: &Scope, id: JobId) -> Option<Output> {
        let consistency =
            if self.exclusive { Consistency::Latest } else { Consistency::Cached(Duration::ZERO) };
        let entry = self.known(id, consistency).filter(|entry| entry.known.is_final())?;
        match entry.known {
            Known::Job(job) if scope.covers(&job.tenant) => job.output().cloned(),
            Known::Output { tenant: Some(tenant), output } if scope.covers(&tenant) => Some(output),
            Known::Output { tenant: None, output } if *scope == Scope::All => Some(output),
            Known::Job(_) | Known::Output { .. } => None,
        }
    }

    fn noted(&self, asked: usize, missing: usize) {
        count(&self.records.counters.hits, asked - missing);
        count(&self.records.counters.misses, missing);
    }
}

fn tenant_of(scope: &Scope) -> Option<Tenant> {
    match scope {
        Scope::Tenant(tenant) => Some(tenant.clone()),
        Scope::All => None,
    }
}
