//! Bytes that are not what was written: told, or without effect.

use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Instant;

use futures_util::FutureExt as _;
use hodei_core::ManualClock;
use hodei_core::store::JobStore as _;
use hodei_store_redb::testkit::open_on;
use hodei_store_redb::{RedbStore, Verify};

use super::disk::{Disk, Image, SECTOR};
use super::exam::{Exam, Found, tells};
use super::numbers::{Numbers, variable};
use super::watch::Watch;
use crate::env::{Env, Everything, everything, job, submit};
use crate::reopen::populate;

/// How many files are damaged; the environment variable `HODEI_IMAGES` sets another number.
const IMAGES: usize = 150;
const PAGE: usize = 4_096;

/// What happened to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Bit {
        at: usize,
        bit: usize,
    },
    Zeros {
        at: usize,
    },
    Noise {
        at: usize,
        seed: u64,
    },
    Swapped {
        one: usize,
        other: usize,
    },
    Copied {
        from: usize,
        to: usize,
    },
    Cut {
        len: usize,
    },
    /// A write that never came: the page is as it was before the last commits.
    Stale {
        at: usize,
    },
}

impl Damage {
    /// Chooses damage to bytes that say something.
    fn choose(numbers: &mut Numbers, file: &File) -> Self {
        let at = numbers.pick(&file.sectors).expect("a file says something");
        let other = numbers.pick(&file.sectors).expect("a file says something");
        match numbers.below(20) {
            0 | 1 => Self::Zeros { at },
            2 | 3 => Self::Noise { at, seed: numbers.next() },
            4 | 5 => Self::Swapped { one: at / PAGE * PAGE, other: other / PAGE * PAGE },
            6 => Self::Copied { from: at / PAGE * PAGE, to: other / PAGE * PAGE },
            7 => Self::Cut { len: numbers.below(file.whole.len()) },
            8 => Self::Stale { at: at / PAGE * PAGE },
            _ => Self::Bit { at: at + numbers.below(SECTOR), bit: numbers.below(8) },
        }
    }

    fn inflict(self, file: &File) -> Image {
        let mut image = file.whole.clone();
        let page_of = |from: &Image, at: usize| {
            let mut page = [0; PAGE];
            // Beyond the end of an older file there is nothing but zeros.
            let _ = from.read(at, &mut page);
            page
        };
        match self {
            Self::Bit { at, bit } => {
                let mut byte = [0];
                assert!(image.read(at, &mut byte), "it lies within");
                image.write(at, &[byte[0] ^ (1 << bit)]);
            }
            Self::Zeros { at } => image.write(at, &[0; SECTOR]),
            Self::Noise { at, seed } => {
                let mut numbers = Numbers::new(seed);
                let noise: Vec<u8> = (0..SECTOR).map(|_| numbers.next().to_le_bytes()[0]).collect();
                image.write(at, &noise);
            }
            Self::Swapped { one, other } => {
                image.write(one, &page_of(&file.whole, other));
                image.write(other, &page_of(&file.whole, one));
            }
            Self::Copied { from, to } => image.write(to, &page_of(&file.whole, from)),
            Self::Cut { len } => image.set_len(len),
            Self::Stale { at } => image.write(at, &page_of(&file.earlier, at)),
        }
        image
    }
}

/// A sound file, and what is to be read from it.
struct File {
    name: &'static str,
    whole: Image,
    /// The same file some commits before.
    earlier: Image,
    sectors: Vec<usize>,
    before: Everything,
    /// What is to be read of a file that was not closed where the last commit is damaged: it cannot be told from one
    /// that the power cut short, and the one before it counts.
    one_commit_less: Option<Everything>,
    env: Env,
}

impl File {
    fn open(&self, image: Image, verify: Verify) -> hodei_core::Result<RedbStore> {
        open(&self.env, Disk::of(image), verify)
    }
}

fn open(env: &Env, disk: Disk, verify: Verify) -> hodei_core::Result<RedbStore> {
    let clock: Arc<ManualClock> = Arc::clone(&env.clock);
    open_on(RedbStore::builder("in memory").clock(clock).cache_bytes(4 << 20).verify(verify), disk)
}

/// A file with jobs in every state that was closed, and one that was not.
async fn files() -> [File; 2] {
    let env = [Env::new(), Env::new()];
    let mut files = Vec::new();
    for (env, name) in env.into_iter().zip(["closed", "not closed"]) {
        let disk = Disk::default();
        let store = open(&env, disk.clone(), Verify::AfterCrash).expect("the disk is sound");
        populate(&env, &store).await;
        let earlier = disk.image();
        submit(&store, (0..20).map(|_| job()).collect()).await;
        let one_commit_less = everything(&store).await.expect("the disk is sound");
        submit(&store, (0..3).map(|_| job()).collect()).await;
        let before = everything(&store).await.expect("the disk is sound");
        let not_closed = disk.image();
        drop(store);
        let closed = name == "closed";
        let whole = if closed { disk.image() } else { not_closed };
        let (sectors, one_commit_less) = (whole.sectors(), (!closed).then_some(one_commit_less));
        files.push(File { name, whole, earlier, sectors, before, one_commit_less, env });
    }
    files.try_into().unwrap_or_else(|_| unreachable!("two were made"))
}

/// Panics inside of the database, which the store makes errors of. Their text would drown everything else.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn quiet_panics_of_the_database() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if info.location().is_some_and(|at| at.file().contains("/redb-")) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            } else {
                usual(info);
            }
        }));
    });
}

/// What became of damaged files.
#[derive(Debug, Default)]
struct Tally {
    images: usize,
    refused_at_open: usize,
    told_later: usize,
    /// As it was one commit before.
    one_commit_less: usize,
    hidden: usize,
    without_effect: usize,
}

impl Tally {
    fn add(&mut self, end: End) {
        self.images += 1;
        match end {
            End::Refused => self.refused_at_open += 1,
            End::OneCommitLess(_) => self.one_commit_less += 1,
            End::Read(Found { told: 0, hidden: 0 }) => self.without_effect += 1,
            End::Read(Found { told: 0, .. }) => self.hidden += 1,
            End::Read(_) => self.told_later += 1,
        }
    }
}

/// What became of a damaged file.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It did not open.
    Refused,
    Read(Found),
    OneCommitLess(Found),
}

/// Opens a damaged file and asks it for everything.
async fn examine(file: &File, image: Image, verify: Verify) -> End {
    let Ok(store) = file.open(image, verify).inspect_err(tells) else { return End::Refused };
    let end = store.changes_end().await.expect("it is known since the file was opened");
    match &file.one_commit_less {
        Some(less) if end == less.end => End::OneCommitLess(Exam::hold(&store, less).await),
        _ => End::Read(Exam::hold(&store, &file.before).await),
    }
}

#[tokio::test]
async fn damaged_files_say_what_was_written_or_that_they_are_damaged() {
    let (images, seed) = (variable("HODEI_IMAGES", IMAGES), variable("HODEI_IMAGES_SEED", 1));
    println!("seed {seed}, {images} images");
    quiet_panics_of_the_database();
    let (files, watch, mut numbers) = (files().await, Watch::begin(seed), Numbers::new(seed));
    let (mut verified, mut unverified, began) = (Tally::default(), Tally::default(), Instant::now());
    for number in 0..images {
        let file = &files[number % files.len()];
        let damage = Damage::choose(&mut numbers, file);
        let image = damage.inflict(file);
        for verify in [Verify::Always, Verify::AfterCrash] {
            watch.tell(format!("image {number}, {}, {verify:?}: {damage:?}", file.name));
            let is_verified = verify == Verify::Always || file.name == "not closed";
            // Only whoever verifies can know of a write that never came.
            if matches!(damage, Damage::Stale { .. }) && !is_verified {
                continue;
            }
            let examined = AssertUnwindSafe(examine(file, image.clone(), verify)).catch_unwind().await;
            let Ok(end) = examined else { panic!("a panic came out of the store, or an answer was wrong") };
            if let (true, End::Read(found) | End::OneCommitLess(found)) = (is_verified, end) {
                assert_eq!(found, Found::default(), "what was verified is right: {end:?}");
            }
            if is_verified { &mut verified } else { &mut unverified }.add(end);
        }
    }
    let rate = images as f64 / began.elapsed().as_secs_f64();
    let panics = PANICS.load(Ordering::Relaxed);
    println!("{panics} panics of the database were caught, 0 came out; {rate:.0} images/s");
    println!("verified: {verified:?}\nnot verified: {unverified:?}");
    for tally in [&verified, &unverified] {
        assert!(tally.refused_at_open > 0 && tally.without_effect > 0, "both are seen: {tally:?}");
    }
    assert!(unverified.told_later > 0);
}
