//! The records themselves: bounded by bytes, and never older than what was acknowledged.

use std::fmt;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, Weighter};

use super::stats::{Counters, count};
use super::weight;
use crate::id::{JobId, Tenant};
use crate::job::{Job, Output, State};
use crate::store::{CacheStats, Change, ChangeSink, Scope};
use crate::time::Timestamp;

/// How many stripes the stamps stand in.
const STRIPES: usize = 1_024;
/// How many bytes a record is taken to have when the table is laid out; it grows beyond that.
const TYPICAL: u64 = 1_024;

/// What is known of a job.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// Its record.
    Job(Arc<Job>),
    /// Only what it gave back, and whose it is where that was asked.
    Output { tenant: Option<Tenant>, output: Output },
}

impl Known {
    /// Says whether no transition changes it any more.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Job(job) => job.state == State::Succeeded,
            Self::Output { .. } => true,
        }
    }

    /// Says whether its record moves on without a version and a change: the count of the parents that a job waits for,
    /// down to the last.
    fn moves_unseen(&self) -> bool {
        matches!(self, Self::Job(job) if job.waits_for > 1)
    }
}

/// An entry of the cache.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) known: Known,
    /// The time before it was read.
    pub(super) read_at: Timestamp,
    era: u64,
    weight: u64,
}

impl Entry {
    /// Says whether `self` tells of a later time than `read`, although that came later.
    fn outdoes(&self, read: &Self) -> bool {
        match (&self.known, &read.known) {
            (Known::Job(own), Known::Job(read)) => {
                (own.created_at, own.version) > (read.created_at, read.version)
            }
            // An output is the end of a job: what began to be read before it, and is no end, is older.
            (Known::Output { .. }, Known::Job(_)) => !read.known.is_final() && self.read_at >= read.read_at,
            (_, Known::Output { .. }) => false,
        }
    }
}

/// What a reader takes before it reads, and shows when it brings what it has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    stamp: u64,
    era: u64,
    read_at: Timestamp,
}

impl Ticket {
    /// For what somebody else read at a time.
    pub(super) fn read_at(self, read_at: Timestamp) -> Self {
        Self { read_at, ..self }
    }
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<JobId, Entry> for ByBytes {
    fn weight(&self, _: &JobId, entry: &Entry) -> u64 {
        entry.weight
    }
}

#[derive(Clone, Debug)]
struct CountEvicted(Arc<Counters>);

impl Lifecycle<JobId, Entry> for CountEvicted {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: JobId, _: Entry) {
        count(&self.0.evicted, 1);
    }
}

/// The cache in memory.
///
/// Ids are hashed with the keyed hash of the standard library: callers mint them, so somebody could choose ids that
/// collide under a hash without a key. It costs about 20 ns of a hit.
pub(super) struct Records {
    entries: Cache<JobId, Entry, ByBytes, RandomState, CountEvicted>,
    /// A stamp for each stripe of jobs. Std mutexes, held for one insert or removal.
    stamps: Box<[Mutex<u64>]>,
    era: AtomicU64,
    pub(super) counters: Arc<Counters>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Records {
    pub(super) fn new(bytes: u64) -> Self {
        let counters = Arc::<Counters>::default();
        let items = usize::try_from(bytes / TYPICAL).unwrap_or(usize::MAX).clamp(64, 1 << 20);
        let evicted = CountEvicted(Arc::clone(&counters));
        Self {
            entries: Cache::with(items, bytes, ByBytes, RandomState::new(), evicted),
            stamps: (0..STRIPES).map(|_| Mutex::new(0)).collect(),
            era: AtomicU64::new(0),
            counters,
        }
    }

    /// Returns what is known of a job, unless it is of an earlier era.
    pub(super) fn get(&self, id: JobId) -> Option<Entry> {
        let entry = self.entries.get(&id)?;
        (entry.era == self.era()).then_some(entry)
    }

    /// Returns what a reader needs that is about to read a job.
    pub(super) fn ticket(&self, id: JobId, now: Timestamp) -> Ticket {
        Ticket { stamp: *self.stamp(id), era: self.era(), read_at: now }
    }

    /// Takes in what was read, unless a change or a newer read came meanwhile, or nothing would tell when it is wrong.
    pub(super) fn admit(&self, id: JobId, known: Known, ticket: Ticket) {
        if known.moves_unseen() {
            return;
        }
        let Ticket { stamp, era, read_at } = ticket;
        let weight = match &known {
            Known::Job(job) => weight::of_job(job),
            Known::Output { output, .. } => weight::of_output(output),
        };
        let mut entry = Entry { known, read_at, era, weight: (weight + weight::ENTRY) as u64 };
        let now = self.stamp(id);
        if *now != stamp || self.era() != era {
            count(&self.counters.stale_avoided, 1);
            return;
        }
        if let Some(there) = self.entries.peek(&id).filter(|there| there.era == era) {
            if there.outdoes(&entry) {
                count(&self.counters.stale_avoided, 1);
                return;
            }
            if matches!((&there.known, &entry.known), (Known::Job(_), Known::Output { .. }) if there.known.is_final())
            {
                // The record says all that the output does: it is only known to be there still.
                entry = Entry { read_at, ..there };
            }
        }
        self.entries.insert(id, entry);
    }

    /// Takes in that a job which the cache may know is not there, as far as a scope can see.
    pub(super) fn is_gone(&self, id: JobId, scope: &Scope) {
        let _stamp = self.stamp(id);
        let seen = |known: &Known| match known {
            Known::Job(job) => scope.covers(&job.tenant),
            Known::Output { tenant, .. } => tenant.as_ref().is_none_or(|tenant| scope.covers(tenant)),
        };
        if self.entries.peek(&id).is_some_and(|entry| seen(&entry.known)) {
            self.entries.remove(&id);
        }
    }

    /// Takes in a change: what is older than it is forgotten, and so is what readers are about to bring.
    pub(super) fn changed(&self, change: &Change) {
        let mut stamp = self.stamp(change.job);
        *stamp += 1;
        let Some(entry) = self.entries.peek(&change.job) else { return };
        let stands = match &entry.known {
            // A reader may see a commit before the feed tells of it, and a tail tells late.
            Known::Job(job) => change.from.is_some() && job.version >= change.version,
            // A job that succeeded does not change: whatever this is, it is no longer that job's, unless it is its end.
            Known::Output { .. } => change.to == State::Succeeded,
        };
        if !stands {
            self.entries.remove(&change.job);
            count(&self.counters.invalidated, 1);
        }
    }

    /// Forgets a job, and what readers are about to bring of it.
    pub(super) fn forget(&self, id: JobId) {
        let mut stamp = self.stamp(id);
        *stamp += 1;
        if self.entries.remove(&id).is_some() {
            count(&self.counters.invalidated, 1);
        }
    }

    /// Makes everything that is known, or being read, unknown: at once, however much it is.
    pub(super) fn new_era(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes everything.
    pub(super) fn clear(&self) {
        self.new_era();
        self.entries.clear();
    }

    /// Returns the records that could be given out.
    pub(super) fn jobs(&self) -> Vec<Arc<Job>> {
        let era = self.era();
        let current = self.entries.iter().filter(|(_, entry)| entry.era == era);
        let job = |(_, entry): (JobId, Entry)| match entry.known {
            Known::Job(job) => Some(job),
            Known::Output { .. } => None,
        };
        current.filter_map(job).collect()
    }

    pub(super) fn stats(&self) -> CacheStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = CacheStats {
            hits: read(&self.counters.hits),
            misses: read(&self.counters.misses),
            invalidated: read(&self.counters.invalidated),
            stale_avoided: read(&self.counters.stale_avoided),
            evicted: read(&self.counters.evicted),
            entries: self.entries.len() as u64,
            bytes: self.entries.weight(),
            ..CacheStats::default()
        };
        self.counters.ages(stats)
    }

    fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// The last bits of an id are random ones.
    fn stamp(&self, id: JobId) -> MutexGuard<'_, u64> {
        let [.., high, low] = *id.as_bytes();
        let stripe = usize::from(u16::from_be_bytes([high, low])) % STRIPES;
        self.stamps[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChangeSink for Records {
    fn committed(&self, changes: &[Change]) {
        changes.iter().for_each(|change| self.changed(change));
    }
}
