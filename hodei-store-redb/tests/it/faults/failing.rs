//! A disk that fails at its n-th call: the caller is told, nothing is acknowledged from then on, and what was is there
//! when the file is opened anew.
//!
//! The same work is done once on a sound disk, which tells what there is to be read after each call, and then again and
//! again on disks that fail one call later each time, each in every way.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hodei_core::store::{Consistency, JobStore, Scope, SubmitOptions};
use hodei_core::{Clock, ErrorKind, ManualClock, Result, Timestamp};
use hodei_store_redb::RedbStore;
use hodei_store_redb::testkit::{StorageBackend, open_on};

use super::cut::Playback;
use super::disk::{Disk, Image};
use super::numbers::{Numbers, variable};
use super::watch::Watch;
use super::work::Worker;
use crate::env::{Everything, everything, job, submit};

/// How many disks fail; the environment variable `HODEI_DISK_FAULTS` sets another number.
const FAULTS: usize = 160;
/// How many calls are made on each, unless it fails before.
const STEPS: usize = 40;
/// How many calls follow the one that failed.
const LATER: usize = 4;
/// An answer takes no longer, however the disk fails.
const BOUND: Duration = Duration::from_secs(5);

const BEGIN: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Every call from the n-th on, which does nothing.
    Dead,
    /// The n-th call alone, which does nothing.
    Once,
    /// The n-th call alone, which does what it was asked for.
    Late,
    /// The n-th call alone; a write does half of what it was asked for.
    Short,
    /// From the n-th call on there is no room; whatever writes does nothing.
    Full,
}

const WAYS: [Fault; 5] = [Fault::Dead, Fault::Once, Fault::Late, Fault::Short, Fault::Full];

#[derive(Clone, Debug)]
struct Failing {
    disk: Disk,
    calls: Arc<AtomicU64>,
    at: u64,
    fault: Fault,
}

impl Failing {
    fn new(image: Image, at: u64, fault: Fault) -> Self {
        Self { disk: Disk::of(image), calls: Arc::default(), at, fault }
    }

    /// Counts a call, and says how it fails.
    fn call(&self, writes: bool) -> Option<io::Error> {
        let n = self.calls.fetch_add(1, Ordering::Relaxed);
        let fails = match self.fault {
            Fault::Dead => n >= self.at,
            Fault::Full => n >= self.at && writes,
            Fault::Once | Fault::Late | Fault::Short => n == self.at,
        };
        let why = if self.fault == Fault::Full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        fails.then(|| why.into())
    }

    fn has_failed(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > self.at
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.call(false).map_or_else(|| self.disk.len(), Err)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.call(false).map_or_else(|| self.disk.read(offset, out), Err)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let failed = self.call(true);
        if failed.is_none() || self.fault == Fault::Late {
            self.disk.set_len(len)?;
        }
        failed.map_or(Ok(()), Err)
    }

    fn sync_data(&self) -> io::Result<()> {
        // A disk without room syncs what it has.
        let failed = self.call(false);
        if failed.is_none() || self.fault == Fault::Late {
            self.disk.sync_data()?;
        }
        failed.map_or(Ok(()), Err)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let failed = self.call(true);
        match (&failed, self.fault) {
            (None, _) | (_, Fault::Late) => self.disk.write(offset, data)?,
            (_, Fault::Short) => self.disk.write(offset, &data[..data.len() / 2])?,
            _ => {}
        }
        failed.map_or(Ok(()), Err)
    }
}

fn open(on: impl StorageBackend, clock: &Arc<ManualClock>) -> Result<RedbStore> {
    let clock: Arc<ManualClock> = Arc::clone(clock);
    open_on(RedbStore::builder("in memory").clock(clock).cache_bytes(256 << 10), on)
}

fn made() -> Image {
    let disk = Disk::default();
    drop(open(disk.clone(), &Arc::new(ManualClock::at(BEGIN))).expect("the disk is sound"));
    disk.image()
}

/// What there is to be read before the first call and after each, and when.
async fn sound(seed: u64, made: &Image) -> Vec<(Timestamp, Everything)> {
    let clock = Arc::new(ManualClock::at(BEGIN));
    let mut worker = Worker::new(seed, Arc::clone(&clock)).repeatable();
    let store = open(Disk::of(made.clone()), &clock).expect("the disk is sound");
    let mut states = vec![(clock.now(), everything(&store).await.expect("the disk is sound"))];
    for _ in 0..STEPS {
        worker.step(&store, &|| 0).await.expect("the disk is sound");
        states.push((clock.now(), everything(&store).await.expect("the disk is sound")));
    }
    states
}

/// What came of a life on a disk that fails.
#[derive(Debug)]
struct End {
    /// How many calls were acknowledged.
    acknowledged: usize,
    /// What the first call was told that was not, if it came to that.
    first: Option<ErrorKind>,
    /// What later ones were told.
    later: BTreeSet<String>,
    /// The longest that any answer took.
    slowest: Duration,
}

/// Works until a call fails, and then calls some more.
async fn live(seed: u64, disk: &Failing) -> End {
    let clock = Arc::new(ManualClock::at(BEGIN));
    let mut worker = Worker::new(seed, Arc::clone(&clock)).repeatable();
    let mut end = End { acknowledged: 0, first: None, later: BTreeSet::new(), slowest: Duration::ZERO };
    let store = match open(disk.clone(), &clock) {
        Ok(store) => store,
        Err(error) => return End { first: Some(error.kind()), ..end },
    };
    while end.acknowledged < STEPS {
        let began = Instant::now();
        let done = tokio::time::timeout(BOUND, worker.step(&store, &|| 0)).await.expect("an answer");
        end.slowest = end.slowest.max(began.elapsed());
        match done {
            Ok(_) => end.acknowledged += 1,
            Err(error) => {
                end.first = Some(error.kind());
                break;
            }
        }
    }
    for _ in 0..if end.first.is_some() { LATER } else { 0 } {
        let again = store.submit(vec![job()], SubmitOptions::each());
        let again = tokio::time::timeout(BOUND, again).await.expect("an answer");
        end.later.insert(format!("{:?}", again.map_err(|error| error.kind())));
    }
    end
}

/// What is on the disk afterwards is what was acknowledged, or that and the call that failed, whole; the power may have
/// failed too.
async fn hold(
    disk: &Failing,
    made: &Image,
    end: &End,
    states: &[(Timestamp, Everything)],
    numbers: &mut Numbers,
) {
    let allowed = &states[end.acknowledged..(end.acknowledged + 2).min(states.len())];
    let journal = disk.disk.journal();
    let (cut, kept) = Playback::of(made.clone(), &journal, true).cut(journal.len(), numbers);
    for (image, how) in
        [(disk.disk.image(), "as it was left".to_owned()), (cut, format!("cut off, {kept:?}"))]
    {
        let disk = Disk::of(image);
        for (now, state) in allowed.iter().rev() {
            let store = open(disk.clone(), &Arc::new(ManualClock::at(*now))).expect("the file opens");
            assert_eq!(store.verify_indexes().await.expect("the file is sound"), Vec::<String>::new());
            let found = everything(&store).await.expect("the file is sound");
            if found == *state {
                break;
            }
            assert!(*now != allowed[0].0 || allowed[0].1 != *state, "{how}: {found:#?} is not {state:#?}");
        }
    }
}

#[tokio::test]
async fn a_disk_that_fails_at_any_call_loses_nothing_that_was_acknowledged() {
    let (faults, seed) = (variable("HODEI_DISK_FAULTS", FAULTS), variable("HODEI_DISK_SEED", 1));
    println!("seed {seed}, {faults} disks");
    let (made, watch, mut numbers) = (made(), Watch::begin(seed), Numbers::new(seed));
    let (mut done, mut slowest, mut kinds) = (0, Duration::ZERO, BTreeMap::<String, usize>::new());
    for seed in seed.. {
        let states = sound(seed, &made).await;
        let whole = Failing::new(made.clone(), u64::MAX, Fault::Dead);
        live(seed, &whole).await;
        let calls = usize::try_from(whole.calls.load(Ordering::Relaxed)).expect("few");
        let stride = (calls * WAYS.len()).div_ceil(faults);
        for number in (0..calls * WAYS.len()).step_by(stride).take(faults - done) {
            let (at, fault) = ((number / WAYS.len()) as u64, WAYS[number / stride % WAYS.len()]);
            watch.tell(format!("{fault:?} at call {at} of {calls} of work {seed}"));
            let disk = Failing::new(made.clone(), at, fault);
            let end = live(seed, &disk).await;
            assert!(disk.has_failed());
            if let Some(first) = end.first {
                let told = match fault {
                    Fault::Full => [ErrorKind::Full, ErrorKind::Indeterminate],
                    _ => [ErrorKind::Io, ErrorKind::Indeterminate],
                };
                assert!(told.contains(&first), "{first:?}");
                let refused = ["Err(Io)"].map(str::to_owned).into();
                assert!(end.later == refused || end.later.is_empty(), "until it is opened anew: {end:?}");
            }
            hold(&disk, &made, &end, &states, &mut numbers).await;
            *kinds.entry(format!("{fault:?}: {:?}", end.first)).or_default() += 1;
            (done, slowest) = (done + 1, slowest.max(end.slowest));
        }
        if done >= faults {
            break;
        }
    }
    println!("{done} disks failed, 0 acknowledged lost, slowest answer {slowest:?}: {kinds:#?}");
    assert!(kinds.keys().any(|kind| kind.contains("Full)")) && kinds.keys().any(|kind| kind.contains("Io)")));
}

#[tokio::test]
async fn a_store_whose_disk_failed_still_answers_from_what_it_read_or_says_why_not() {
    let disk = Failing::new(made(), u64::MAX, Fault::Dead);
    let clock = Arc::new(ManualClock::at(BEGIN));
    let store = open(disk.clone(), &clock).unwrap();
    let ids = submit(&store, vec![job()]).await;
    drop(store);
    let disk = Failing { calls: Arc::default(), at: 400, fault: Fault::Dead, ..disk };
    let store = open(disk.clone(), &clock).unwrap();
    while store.submit(vec![job()], SubmitOptions::each()).await.is_ok() {}
    let read = store.get_many(&Scope::All, ids, Consistency::Latest).await;
    assert!(read.map_or_else(|error| error.kind() == ErrorKind::Io, |found| found[0].is_some()));
}
