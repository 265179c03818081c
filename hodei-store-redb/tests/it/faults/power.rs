//! Power that fails: whatever of the unsynced writes reached the disk, what was acknowledged is there and nothing else.
//!
//! A worker uses a store on a disk that writes down what is asked of it. Afterwards the power is cut at many points of
//! that journal, and each time a store is opened on what the cut left, read in full, and held against what the worker
//! had seen when the disk had come so far. Some of the openings are cut off too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use hodei_core::job::{State, next};
use hodei_core::store::{Change, JobStore};
use hodei_core::{Clock, JobId, ManualClock, Timestamp};
use hodei_store_redb::RedbStore;
use hodei_store_redb::testkit::open_on;

use super::cut::Playback;
use super::disk::{Disk, Event, Image};
use super::numbers::{Numbers, variable};
use super::watch::Watch;
use super::work::{Done, Worker};
use crate::env::{Everything, everything};

/// How often the power is cut; the environment variable `HODEI_POWER_CUTS` sets another number.
const CUTS: usize = 300;
/// How many calls make a life.
const STEPS: usize = 30;
/// How often a life is cut off, each time as if it were the first.
const CUTS_PER_LIFE: usize = 80;
/// How many lives follow one another on a file.
const LIVES: usize = 5;
/// After how many cuts the indexes are compared with the rows, and the file is closed and opened once more.
const LOOK_TWICE: usize = 16;
/// How often the power fails in a row.
const IN_A_ROW: usize = 3;

const BEGIN: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// What was read when nothing was under way.
struct Mark {
    /// How far the disk had come.
    at: usize,
    /// How far it had come when the call before had replied.
    acknowledged: usize,
    /// What that call was.
    done: Done,
    now: Timestamp,
    state: Everything,
}

fn open(disk: &Disk, now: Timestamp) -> RedbStore {
    let clock = Arc::new(ManualClock::at(now));
    open_with(disk, clock)
}

fn open_with(disk: &Disk, clock: Arc<ManualClock>) -> RedbStore {
    let builder = RedbStore::builder("in memory").clock(clock).cache_bytes(4 << 20);
    open_on(builder, disk.clone()).expect("the file opens")
}

/// Every job's changes follow one another, and each is one that the state machine has. A job that was pruned may be
/// submitted again, and begins anew.
fn follow_paths(changes: &[Change]) {
    let mut last = std::collections::BTreeMap::new();
    for change in changes {
        let before = last.insert(change.job, (change.version, change.to));
        let anew = |(_, state): &(u32, State)| state.is_terminal() && change.from.is_none();
        if let Some((version, state)) = before.filter(|before| !anew(before)) {
            assert_eq!((change.version, change.from), (version + 1, Some(state)), "{change:?}");
        }
        if let Some(from) = change.from {
            assert_eq!(next(from, change.cause), Some(change.to), "{change:?}");
        }
    }
}

/// Uses a store until it is closed, and returns what was seen on the way.
async fn live(
    disk: &Disk,
    worker: &mut Worker,
    clock: &Arc<ManualClock>,
    before: Option<Everything>,
) -> Vec<Mark> {
    let store = open_with(disk, Arc::clone(clock));
    let state = everything(&store).await.expect("the file is sound");
    if let Some(before) = before {
        assert_eq!(state, before, "opening changes nothing that can be seen");
    }
    let mut marks = vec![Mark { at: 0, acknowledged: 0, done: Done::One(None), now: clock.now(), state }];
    for _ in 0..STEPS {
        let before = marks.last().expect("there is a first");
        let asked = || disk.asked();
        let done = worker.step(&store, &asked).await.expect("the disk is sound");
        let acknowledged = if matches!(done, Done::Waited) { before.at } else { disk.asked() };
        let state = everything(&store).await.expect("the disk is sound");
        if let Done::One(Some(changes)) = &done {
            assert!(state.changes.ends_with(changes), "{changes:?} were told");
            assert_eq!(state.changes.len(), before.state.changes.len() + changes.len());
        }
        follow_paths(&state.changes);
        marks.push(Mark { at: disk.asked(), acknowledged, done, now: clock.now(), state });
    }
    assert_eq!(store.verify_indexes().await.expect("the disk is sound"), Vec::<String>::new());
    marks
}

/// What may be read after a cut.
struct Allowed<'m> {
    before: &'m Mark,
    /// What the call that was under way made of it.
    after: Option<&'m Mark>,
    at: usize,
    /// How many calls had been acknowledged by then.
    calls: usize,
}

impl<'m> Allowed<'m> {
    fn after_cut(marks: &'m [Mark], at: usize) -> Self {
        let last = marks.partition_point(|mark| mark.at <= at) - 1;
        Self { before: &marks[last], after: marks.get(last + 1), at, calls: last }
    }

    fn now(&self) -> Timestamp {
        self.after.unwrap_or(self.before).now
    }

    fn hold(&self, found: &Everything) {
        let Some(after) = self.after else {
            assert_eq!(found, &self.before.state, "what was acknowledged, and nothing else");
            return;
        };
        if let Done::Together(batches) = &after.done {
            let stored: BTreeSet<JobId> = found.jobs.iter().map(|job| job.id).collect();
            for batch in batches {
                let kept = batch.ids.iter().filter(|id| stored.contains(id)).count();
                assert!(kept == 0 || kept == batch.ids.len(), "{kept} of {batch:?}");
                assert!(kept > 0 || batch.ids.is_empty() || self.at < batch.acknowledged, "lost: {batch:?}");
            }
            let new = |id: &JobId| batches.iter().any(|batch| batch.ids.contains(id));
            let old: Vec<_> = found.jobs.iter().filter(|job| !new(&job.id)).collect();
            assert_eq!(old, self.before.state.jobs.iter().collect::<Vec<_>>());
            assert!(found.changes.starts_with(&self.before.state.changes));
            follow_paths(&found.changes);
        } else if self.at >= after.acknowledged {
            assert_eq!(found, &after.state, "what was acknowledged, and nothing else");
        } else if found != &after.state {
            assert_eq!(found, &self.before.state, "a call is carried out whole or not at all");
        }
    }
}

/// What a run of cuts found.
#[derive(Debug, Default)]
struct Tally {
    cuts: usize,
    in_recovery: usize,
    lives: usize,
    /// Calls that had been acknowledged and were looked for after a cut, summed over the cuts.
    acknowledged: usize,
    looked_twice: usize,
}

/// What a store makes of what a cut left.
struct Recovered {
    /// What the disk was asked for meanwhile.
    journal: Vec<Event>,
    /// What is on it then. It was not closed.
    image: Image,
    state: Everything,
    now: Timestamp,
}

async fn recover(image: Image, now: Timestamp) -> Recovered {
    let disk = Disk::of(image);
    let store = open(&disk, now);
    let state = everything(&store).await.expect("the file is sound");
    Recovered { journal: disk.journal(), image: disk.image(), state, now }
}

/// A run of power cuts, from a seed.
struct Run {
    numbers: Numbers,
    honest: bool,
    tally: Tally,
    watch: Watch,
}

impl Run {
    /// Cuts a life off at many points. Returns what one of them left.
    async fn cut_life(
        &mut self,
        start: &Image,
        journal: &[Event],
        marks: &[Mark],
        refused: &BTreeSet<JobId>,
    ) -> Recovered {
        let mut points: Vec<usize> =
            (0..CUTS_PER_LIFE).map(|_| self.numbers.below(journal.len() + 1)).collect();
        points.sort_unstable();
        let heir = self.numbers.below(points.len());
        let (mut playback, mut left) = (Playback::of(start.clone(), journal, self.honest), None);
        for (number, at) in points.into_iter().enumerate() {
            let (image, kept) = playback.cut(at, &mut self.numbers);
            self.tally.cuts += 1;
            self.watch.tell(format!("cut {} at {at} of {}: {kept:?}", self.tally.cuts, journal.len()));
            let allowed = Allowed::after_cut(marks, at);
            self.tally.acknowledged += allowed.calls;
            let found = recover(image.clone(), allowed.now()).await;
            allowed.hold(&found.state);
            assert!(found.state.jobs.iter().all(|job| !refused.contains(&job.id)), "it was refused");
            if self.numbers.chance(30) {
                self.cut_recovery(image, &found).await;
            }
            if self.tally.cuts.is_multiple_of(LOOK_TWICE) {
                self.look_twice(&found).await;
            }
            if number == heir {
                left = Some(found);
            }
        }
        left.expect("there is a cut")
    }

    /// Cuts the opening off that follows a cut, and the one that follows that.
    async fn cut_recovery(&mut self, mut image: Image, first: &Recovered) {
        let mut journal = first.journal.clone();
        for _ in 1..IN_A_ROW {
            let at = self.numbers.below(journal.len() + 1);
            let (next, kept) = Playback::of(image, &journal, self.honest).cut(at, &mut self.numbers);
            self.tally.cuts += 1;
            self.tally.in_recovery += 1;
            self.watch.tell(format!(
                "cut {} of a recovery at {at} of {}: {kept:?}",
                self.tally.cuts,
                journal.len()
            ));
            let found = recover(next.clone(), first.now).await;
            assert_eq!(found.state, first.state, "a recovery that was cut off is done again, alike");
            (image, journal) = (next, found.journal);
        }
    }

    /// Opens what was recovered, compares its indexes, closes it, and opens it again.
    async fn look_twice(&mut self, found: &Recovered) {
        self.tally.looked_twice += 1;
        let disk = Disk::of(found.image.clone());
        for _ in 0..2 {
            let store = open(&disk, found.now);
            assert_eq!(store.verify_indexes().await.expect("the file is sound"), Vec::<String>::new());
            assert_eq!(everything(&store).await.expect("the file is sound"), found.state);
        }
    }

    /// Lives on one file after another until the power was cut so often.
    async fn until(&mut self, cuts: usize) {
        while self.tally.cuts < cuts {
            let mut clock = Arc::new(ManualClock::at(BEGIN));
            let disk = Disk::default();
            drop(open_with(&disk, Arc::clone(&clock)));
            let (mut start, mut before) = (disk.image(), None);
            let mut worker = Worker::new(self.numbers.next() >> 24, Arc::clone(&clock));
            for _ in 0..LIVES {
                if self.tally.cuts >= cuts {
                    break;
                }
                let disk = Disk::of(start.clone());
                let marks = live(&disk, &mut worker, &clock, before).await;
                self.tally.lives += 1;
                let left = self.cut_life(&start, &disk.journal(), &marks, &worker.refused).await;
                (start, before) = (left.image, Some(left.state));
                clock = Arc::new(ManualClock::at(left.now));
                worker.live_again(Arc::clone(&clock));
            }
        }
    }
}

async fn cut_power(seed: u64, cuts: usize, honest: bool) -> Tally {
    let numbers = Numbers::new(seed);
    let mut run = Run { numbers, honest, tally: Tally::default(), watch: Watch::begin(seed) };
    run.until(cuts).await;
    run.tally
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_when_the_power_fails() {
    let (cuts, seed) = (variable("HODEI_POWER_CUTS", CUTS), variable("HODEI_POWER_SEED", 1));
    println!("seed {seed}, {cuts} power cuts");
    let began = Instant::now();
    let tally = cut_power(seed, cuts, true).await;
    let rate = tally.cuts as f64 / began.elapsed().as_secs_f64();
    println!("{tally:?}, 0 lost, 0 that do not open, {rate:.0} cuts/s");
    assert!(tally.cuts >= cuts && tally.in_recovery > 0 && tally.looked_twice > 0);
}

/// The checks are checked: a disk that says that it synced and did not is found out.
#[test]
fn a_disk_that_lies_is_found_out() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let found =
        (1..=3).map(|seed| std::thread::spawn(move || runtime().block_on(cut_power(seed, 80, false))));
    let found: Vec<_> = found.map(std::thread::JoinHandle::join).collect();
    assert!(found.iter().all(Result::is_err), "{found:?}");
}
