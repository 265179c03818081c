//! Visits to a tier: bounded in time, counted, and left out while it is broken.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use super::breaker::Breaker;
use super::row;
use super::tier::{CacheTier, TierOptions, TierRow, Timer};
use crate::id::JobId;
use crate::job::Job;
use crate::time::{Clock, Timestamp};

/// What came of the visits so far.
#[derive(Debug, Default)]
pub(in crate::store) struct TierCounters {
    pub(in crate::store) hits: AtomicU64,
    pub(in crate::store) misses: AtomicU64,
    pub(in crate::store) rejected: AtomicU64,
    pub(in crate::store) failures: AtomicU64,
    pub(in crate::store) skipped: AtomicU64,
}

/// A visit that has less than this share of a budget is left out: it would come to nothing.
const LEAST_SHARE: u32 = 4;

/// What a call may still spend on its visits, all of them together.
pub(in crate::store) struct Allowance<'c> {
    clock: &'c dyn Clock,
    left: Duration,
}

impl<'c> Allowance<'c> {
    /// The budget of a call; none at all without a tier.
    pub(in crate::store) fn of(tier: Option<&Tier>, clock: &'c dyn Clock) -> Self {
        Self { clock, left: tier.map_or(Duration::ZERO, |tier| tier.options.budget) }
    }

    fn spend(&mut self, since: Timestamp) {
        // A clock that went back has measured nothing.
        self.left = self.left.saturating_sub(self.clock.now().saturating_since(since));
    }
}

/// Why nothing came of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missed {
    /// It failed, or panicked.
    Failed,
    /// It took all that was left.
    Late,
    /// It took all that the visits before it had left of a budget, which says nothing of the tier.
    CutShort,
    /// It was not made.
    LeftOut,
}

/// A tier, and how it is used.
pub(in crate::store) struct Tier {
    tier: Arc<dyn CacheTier>,
    timer: Arc<dyn Timer>,
    key: [u8; 32],
    options: TierOptions,
    /// A std mutex, held for a look at a few words.
    breaker: Mutex<Breaker>,
    /// Whether the last records were not written, for want of time: the next read leaves asking out, and writes.
    behind: AtomicBool,
    pub(in crate::store) counters: TierCounters,
}

/// The key stays out of every log.
impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier")
            .field("tier", &self.tier)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Tier {
    pub(in crate::store) fn new(
        tier: Arc<dyn CacheTier>,
        timer: Arc<dyn Timer>,
        key: [u8; 32],
        options: TierOptions,
    ) -> Self {
        let breaker = Mutex::new(Breaker::new(options.breaker));
        let (behind, counters) = (AtomicBool::new(false), TierCounters::default());
        Self { tier, timer, key, options, breaker, behind, counters }
    }

    /// Returns the records that the tier has, and when each was written, in the order of the ids; none of them where it
    /// cannot be asked. A row that no such cache wrote is removed.
    pub(in crate::store) async fn find(
        &self,
        ids: &[JobId],
        now: Timestamp,
        allowance: &mut Allowance<'_>,
    ) -> Vec<Option<(Arc<Job>, Timestamp)>> {
        // Relaxed: a hint, and one read more or less that asks.
        if self.behind.swap(false, Ordering::Relaxed) {
            count(&self.counters.skipped, 1);
            return vec![None; ids.len()];
        }
        let asked = &ids[..ids.len().min(self.options.rows_max)];
        let rows = self.visit(now, allowance, || self.tier.get_many(asked)).await;
        let Ok(rows) = rows else { return vec![None; ids.len()] };
        if rows.len() != asked.len() {
            // Which row is whose can only be guessed.
            count(&self.counters.failures, 1);
            return vec![None; ids.len()];
        }
        let mut rejected = Vec::new();
        let mut open = |(id, bytes): (&JobId, Option<bytes::Bytes>)| {
            let bytes = bytes?;
            let job = row::open(&self.key, *id, &bytes, now);
            if job.is_none() {
                rejected.push(*id);
            }
            job.map(|(job, until)| (Arc::new(job), until.saturating_sub(self.options.ttl)))
        };
        let mut found: Vec<_> = asked.iter().zip(rows).map(&mut open).collect();
        let hits = found.iter().flatten().count();
        count(&self.counters.hits, hits);
        count(&self.counters.misses, found.len() - hits);
        count(&self.counters.rejected, rejected.len());
        if !rejected.is_empty() {
            _ = self.visit(now, allowance, || self.tier.remove_many(&rejected)).await;
        }
        found.resize(ids.len(), None);
        found
    }

    /// Writes the records of those jobs that succeeded. Where asking for them has left too little time for that, the next read
    /// does not ask.
    pub(in crate::store) async fn keep<'a>(
        &self,
        jobs: impl Iterator<Item = &'a Job>,
        now: Timestamp,
        allowance: &mut Allowance<'_>,
    ) {
        let (ttl, until) = (self.options.ttl, now.saturating_add(self.options.ttl));
        let row = |job: &Job| {
            let bytes = row::seal(&self.key, job, until)?;
            let row = TierRow { key: job.id, version: job.version, bytes, ttl };
            (row.bytes.len() <= self.options.row_max).then_some(row)
        };
        let rows: Vec<TierRow> = jobs.filter_map(row).take(self.options.rows_max).collect();
        if rows.is_empty() {
            return;
        }
        // Asking was answered, and late.
        let cut = !allowance.left.is_zero() && allowance.left < self.options.budget;
        let kept = self.visit(now, allowance, move || self.tier.put_many(rows)).await;
        if cut && matches!(kept, Err(Missed::CutShort | Missed::LeftOut)) && !self.is_shut() {
            self.behind.store(true, Ordering::Relaxed);
        }
    }

    /// Removes rows, a visit for each batch, each with a budget of its own: what is left would be told of until it ends.
    pub(in crate::store) async fn forget(&self, ids: &[JobId], clock: &dyn Clock) {
        for ids in ids.chunks(self.options.rows_max.max(1)) {
            let mut allowance = Allowance::of(Some(self), clock);
            _ = self.visit(clock.now(), &mut allowance, || self.tier.remove_many(ids)).await;
        }
    }

    /// Says whether the tier is being left alone.
    pub(in crate::store) fn is_shut(&self) -> bool {
        self.breaker().is_open()
    }

    async fn visit<R, F>(
        &self,
        now: Timestamp,
        allowance: &mut Allowance<'_>,
        verb: impl FnOnce() -> F + Send,
    ) -> Result<R, Missed>
    where
        F: Future<Output = crate::error::Result<R>> + Send,
    {
        let budget = self.options.budget;
        let too_little = allowance.left.is_zero() || allowance.left < budget / LEAST_SHARE;
        if too_little || !self.breaker().lets_through(now) {
            count(&self.counters.skipped, 1);
            return Err(Missed::LeftOut);
        }
        let (began, whole) = (allowance.clock.now(), allowance.left == budget);
        let done = within(async { verb().await }, self.timer.sleep(allowance.left)).await;
        let done = done.map_err(|missed| match missed {
            Missed::Late if !whole => Missed::CutShort,
            other => other,
        });
        match &done {
            Err(Missed::Late | Missed::CutShort) => allowance.left = Duration::ZERO,
            Ok(_) | Err(Missed::Failed | Missed::LeftOut) => allowance.spend(began),
        }
        match &done {
            Ok(_) => self.breaker().succeeded(),
            // Who had a whole budget would have been in time, for all that is known.
            Err(Missed::CutShort) => count(&self.counters.skipped, 1),
            Err(_) => {
                self.breaker().failed(now);
                count(&self.counters.failures, 1);
            }
        }
        done
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Awaits a verb until a timer ends.
async fn within<R>(
    verb: impl Future<Output = crate::error::Result<R>> + Send,
    mut timer: Pin<Box<dyn Future<Output = ()> + Send>>,
) -> Result<R, Missed> {
    let mut verb = Box::pin(verb);
    poll_fn(|cx| {
        // A verb that panicked is not polled again, and dropped with this future.
        match catch_unwind(AssertUnwindSafe(|| verb.as_mut().poll(cx))) {
            Ok(Poll::Ready(done)) => Poll::Ready(done.map_err(|_| Missed::Failed)),
            Err(_) => Poll::Ready(Err(Missed::Failed)),
            Ok(Poll::Pending) => timer.as_mut().poll(cx).map(|()| Err(Missed::Late)),
        }
    })
    .await
}

fn count(counter: &AtomicU64, n: usize) {
    // Relaxed: a figure that orders nothing.
    counter.fetch_add(n as u64, Ordering::Relaxed);
}
