//! A store that is slow, loses replies, and may have a bug.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::job::{Epoch, Job, JobSpec, Lease, NewJob, Output, Priority, SpecParts};
use hodei_core::store::*;
use hodei_core::text::Texts;
use hodei_core::{Error, ErrorKind, JobId, Name, OwnerId, Result, Tenant, Timestamp};

/// What a store does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// It acknowledges a submission that it drops.
    ForgetsSubmissions,
    /// It stores a submission again under the same id.
    StoresTwice,
    /// It takes any submission with a known id for the stored one.
    IgnoresContent,
    /// It stores what it says it refused.
    StoresRefused,
    /// It answers a stale report as if it had been applied.
    AcceptsStale,
    /// It refuses the report of the holder.
    RefusesHolder,
    /// It hands a leased job out again under the same epoch.
    ClaimsTwice,
    /// It lets the epoch of a claim stay as it was.
    KeepsEpoch,
    /// It counts every attempt twice in what it says.
    CountsTwice,
    /// It does not keep limits.
    ForgetsLimits,
    /// It takes all jobs for equally urgent.
    IgnoresPriority,
    /// It says that a job is cancelled and leaves it.
    IgnoresCancel,
    /// It reads every tenant's jobs for each of them.
    IgnoresScope,
    /// Its change log misses lines.
    LogDrops,
    /// Its change log has lines twice.
    LogRepeats,
    /// Its change log has neighbours in the wrong order.
    LogReorders,
    /// It counts one job less than there are.
    CountsLess,
    /// It counts one queue less than there are.
    QueueCountsLess,
    /// It gives every owner its first life again.
    ReusesLives,
    /// It lets two leaders hold one term.
    SharesTerms,
    /// It fires twice for the same time.
    FiresTwice,
    /// After it was opened again it has lost its last changes.
    ForgetsAtRestart,
}

/// A store between a caller and the store in memory.
#[derive(Debug)]
pub(crate) struct Mangled {
    inner: MemoryStore,
    random: AtomicU64,
    /// Whether calls wait and fail.
    chaos: bool,
    bug: Option<Bug>,
    restarted: AtomicBool,
    claimed: Mutex<Vec<Claimed>>,
}

impl Mangled {
    pub(crate) fn new(inner: MemoryStore, seed: u64, chaos: bool, bug: Option<Bug>) -> Self {
        let random = AtomicU64::new(mixed(seed));
        Self { inner, random, chaos, bug, restarted: AtomicBool::new(false), claimed: Mutex::default() }
    }

    /// Stops the waits and failures: what follows is the survey.
    pub(crate) fn calm(&mut self) {
        self.chaos = false;
    }

    pub(crate) fn restart(&self) {
        self.restarted.store(true, Ordering::Relaxed);
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Draws below `n`; the order of draws is that of the calls, so that a seed repeats.
    fn below(&self, n: u64) -> u64 {
        mixed(self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)) % n
    }

    /// Whether a bug shows this time.
    fn shows(&self, bug: Bug, one_in: u64) -> bool {
        self.has(bug) && self.below(one_in) == 0
    }

    /// Waits, and fails now and then before anything has happened.
    async fn before(&self) -> Result<()> {
        self.wait().await;
        if self.chaos && self.below(20) == 0 {
            return Err(Error::new(ErrorKind::Unavailable, "store.call"));
        }
        Ok(())
    }

    /// Waits, and loses the reply now and then.
    async fn after<R>(&self, reply: R) -> Result<R> {
        self.wait().await;
        if self.chaos && self.below(20) == 0 {
            return Err(Error::new(ErrorKind::Indeterminate, "store.call"));
        }
        Ok(reply)
    }

    async fn wait(&self) {
        if self.chaos {
            for _ in 0..self.below(4) {
                tokio::task::yield_now().await;
            }
        }
    }

    fn scope(&self, scope: &Scope) -> Scope {
        if self.has(Bug::IgnoresScope) { Scope::All } else { scope.clone() }
    }

    /// Mangles what an exchange says.
    fn exchanged(&self, mut done: Exchanged, steps: &[Transition]) -> Exchanged {
        for (step, applied) in steps.iter().zip(&mut done.applied) {
            match applied {
                Applied::LeaseLost { .. } if self.has(Bug::AcceptsStale) => *applied = Applied::Done,
                Applied::Done if self.shows(Bug::RefusesHolder, 10) => {
                    *applied = Applied::LeaseLost { held: step.epoch, current: step.epoch.next() };
                }
                _ => {}
            }
        }
        let mut claimed = self.claimed.lock().expect("no test panics here");
        if self.shows(Bug::ClaimsTwice, 5) {
            done.claimed.extend(claimed.pop());
        }
        claimed.extend(done.claimed.iter().cloned());
        done
    }

    /// Mangles what is recorded.
    fn logged(&self, mut changes: Vec<Change>) -> Vec<Change> {
        if self.has(Bug::LogDrops) && changes.len() > 3 {
            changes.remove(changes.len() / 2);
        }
        if self.has(Bug::LogRepeats) && !changes.is_empty() {
            changes.push(changes[changes.len() / 2].clone());
        }
        if self.has(Bug::LogReorders)
            && let Some(n) = (1..changes.len()).find(|n| changes[*n].job == changes[n - 1].job)
        {
            changes.swap(n - 1, n);
        }
        if self.has(Bug::ForgetsAtRestart) && self.restarted.load(Ordering::Relaxed) {
            changes.truncate(changes.len().saturating_sub(2));
        }
        let claims = changes.iter_mut().filter(|change| change.cause == hodei_core::job::Cause::Claimed);
        match self.bug {
            Some(Bug::KeepsEpoch) => claims.for_each(|change| {
                change.epoch = Epoch::from_number(change.epoch.number() - 1);
            }),
            Some(Bug::CountsTwice) => changes.iter_mut().for_each(|change| change.attempt *= 2),
            _ => {}
        }
        changes
    }
}

#[async_trait]
impl JobStore for Mangled {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>> {
        self.before().await?;
        if self.shows(Bug::ForgetsSubmissions, 5) {
            let replies = jobs.iter().map(|job| Submitted::New(job.id)).collect();
            return self.after(Committed { replies, changes: Vec::new() }).await;
        }
        let jobs =
            if self.has(Bug::IgnoresPriority) { jobs.into_iter().map(levelled).collect() } else { jobs };
        let mut done = self.inner.submit(jobs, options).await?;
        for reply in &mut done.replies {
            match reply {
                Submitted::Existing(id) if self.has(Bug::StoresTwice) => *reply = Submitted::New(*id),
                Submitted::Conflict(id) if self.has(Bug::IgnoresContent) => *reply = Submitted::Existing(*id),
                Submitted::New(_) if self.shows(Bug::StoresRefused, 10) => {
                    *reply = Submitted::Refused(Refusal::TooMany);
                }
                _ => {}
            }
        }
        self.after(done).await
    }

    async fn lanes(&self, served: &Served) -> Result<Lanes> {
        self.inner.lanes(served).await
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged> {
        self.before().await?;
        let steps = exchange.transitions.clone();
        let done = self.inner.exchange(exchange).await?;
        let done = self.exchanged(done, &steps);
        self.after(done).await
    }

    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        self.before().await?;
        if self.has(Bug::IgnoresCancel) {
            let replies = jobs.iter().map(|_| CancelReply::Cancelled).collect();
            return self.after(Committed { replies, changes: Vec::new() }).await;
        }
        let done = self.inner.request_cancel(&self.scope(scope), jobs).await?;
        self.after(done).await
    }

    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>> {
        self.inner.leases_of(owner).await
    }

    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>> {
        self.before().await?;
        let done = self.inner.redrive(&self.scope(scope), jobs).await?;
        self.after(done).await
    }

    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        self.before().await?;
        let done = self.inner.reap(term, lost_max, limit).await?;
        self.after(done).await
    }

    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired> {
        self.before().await?;
        let mut fired = self.inner.fire(term, tenant, schedule, at).await?;
        if self.has(Bug::FiresTwice) && fired == Fired::Already {
            let schedules = self.inner.schedules(&tenant.clone().into()).await?;
            let job = NewJob::of(tenant.clone(), Arc::clone(&schedules[0].spec));
            fired = Fired::New(job.id);
            self.inner.submit(vec![job], SubmitOptions::each()).await?;
        }
        self.after(fired).await
    }

    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        self.before().await?;
        let done = self.inner.prune(term, retention, limit).await?;
        self.after(done).await
    }

    async fn get_many(
        &self,
        scope: &Scope,
        jobs: Vec<JobId>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Job>>> {
        self.before().await?;
        let jobs = self.inner.get_many(&self.scope(scope), jobs, consistency).await?;
        self.after(jobs).await
    }

    async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        self.before().await?;
        let page = self.inner.query(&self.scope(scope), query).await?;
        self.after(page).await
    }

    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream {
        self.inner.stream(&self.scope(scope), query)
    }

    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        self.inner.outputs(&self.scope(scope), jobs).await
    }

    async fn counts(&self, scope: &Scope) -> Result<Counts> {
        let mut counts = self.inner.counts(&self.scope(scope)).await?;
        if self.has(Bug::CountsLess) {
            counts.moved(Some(hodei_core::job::State::Succeeded), None);
        }
        Ok(counts)
    }

    async fn queue_counts(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>> {
        let mut counted = self.inner.queue_counts(&self.scope(scope), query).await?;
        if self.has(Bug::QueueCountsLess) {
            counted.pop();
        }
        Ok(counted)
    }

    async fn changes(&self, scope: &Scope, after: Option<Cursor>, limit: usize) -> Result<ChangePage> {
        let page = self.inner.changes(scope, after, limit).await?;
        Ok(ChangePage { changes: self.logged(page.changes), next: page.next })
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

    async fn verify_indexes(&self) -> Result<Vec<String>> {
        self.inner.verify_indexes().await
    }
}

#[async_trait]
impl Coordination for Mangled {
    async fn register(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
        self.before().await?;
        let mut lease = self.inner.register(owner, ttl).await?;
        if self.has(Bug::ReusesLives) {
            lease.incarnation = 1;
        }
        self.after(lease).await
    }

    async fn beat(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>> {
        self.before().await?;
        let beats = self.inner.beat(owners, ttl).await?;
        self.after(beats).await
    }

    async fn retire(&self, owner: &Lease) -> Result<()> {
        self.before().await?;
        self.inner.retire(owner).await?;
        self.after(()).await
    }

    async fn take_term(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>> {
        self.before().await?;
        let mut term = self.inner.take_term(duty, holder, ttl).await?;
        if self.has(Bug::SharesTerms) && term.is_none() {
            term = Some(Term { duty: duty.clone(), number: 1, holder: holder.clone() });
        }
        self.after(term).await
    }

    async fn keep_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        self.before().await?;
        let kept = self.inner.keep_term(term, ttl).await?;
        self.after(kept).await
    }

    async fn owners(&self) -> Result<Vec<Living>> {
        self.inner.owners().await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }
}

#[async_trait]
impl Policies for Mangled {
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
        self.before().await?;
        let max = if self.has(Bug::ForgetsLimits) { u32::MAX } else { limit.max };
        self.inner.set_limit(Limit { max, ..limit }).await?;
        self.after(()).await
    }

    async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        self.inner.remove_limit(of).await
    }

    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        self.inner.limits(&self.scope(scope)).await
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

/// Makes a job as urgent as every other, and lets nothing else show it.
fn levelled(mut job: NewJob) -> NewJob {
    let parts = SpecParts { priority: Priority::DEFAULT, ..job.spec.parts().clone() };
    job.spec = JobSpec::restore(parts, job.spec.class(), job.spec.fingerprint()).into();
    job
}

/// SplitMix64's finaliser: spreads a number.
pub(crate) const fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
