//! Bytes that are not what was written: told, or without effect.
//!
//! The files are examined in a process of their own: a panic inside of the database while another unwinds ends the
//! process, and nothing in it can catch that. It is counted, and the process after it goes on with the next file.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::FutureExt as _;
use hodei_core::ManualClock;
use hodei_core::store::JobStore as _;
use hodei_store_redb::testkit::open_on;
use hodei_store_redb::{RedbStore, Verify};

use super::disk::{Disk, Image, SECTOR};
use super::exam::{Exam, Found, tells};
use super::numbers::{Numbers, spread, variable};
use super::watch::Watch;
use crate::child::{Order, say, spawn};
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

/// How a file was opened. What is verified must be exactly right, whether by default or because it was not closed.
const POLICIES: [Verify; 2] = [Verify::Always, Verify::AfterCrash];

/// Where a process begins that examines files.
const FROM: &str = "HODEI_IMAGES_FROM";

/// Panics inside of the database, which the store makes errors of. Their text would drown everything else.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn quiet_panics_of_the_database() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let at = info.location().map_or("", |at| at.file());
        if at.contains("/redb-") {
            PANICS.fetch_add(1, Ordering::Relaxed);
        } else if !at.ends_with("core/src/panicking.rs") {
            usual(info);
        }
    }));
}

/// What became of a damaged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It did not open.
    Refused,
    /// All was as it had been.
    Same,
    /// As it was one commit before.
    OneCommitLess,
    /// It opened, and an error told of it later.
    Told,
    /// Something was not to be seen, and no error told of it.
    Hidden,
}

/// Opens a damaged file and asks it for everything.
async fn examine_one(file: &File, image: Image, verify: Verify) -> End {
    let Ok(store) = file.open(image, verify).inspect_err(tells) else { return End::Refused };
    let end = store.changes_end().await.expect("it is known since the file was opened");
    let (before, same) = match &file.one_commit_less {
        Some(less) if end == less.end => (less, End::OneCommitLess),
        _ => (&file.before, End::Same),
    };
    match Exam::hold(&store, before).await {
        Found { told: 0, hidden: 0 } => same,
        Found { told: 0, .. } => End::Hidden,
        Found { .. } => End::Told,
    }
}

/// Says what becomes of one damaged file after another.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn examine() {
    let (images, seed) = (variable("HODEI_IMAGES", IMAGES), variable("HODEI_IMAGES_SEED", 1));
    quiet_panics_of_the_database();
    let (files, watch) = (files().await, Watch::begin(seed));
    say("");
    for number in variable(FROM, 0)..images * POLICIES.len() {
        let (image, verify) = (number / POLICIES.len(), POLICIES[number % POLICIES.len()]);
        let mut numbers = Numbers::new(spread(seed) ^ spread(image as u64));
        let file = &files[numbers.below(files.len())];
        let damage = Damage::choose(&mut numbers, file);
        let care = Care::of(verify, file);
        let is_verified = care != Care::Unverified;
        // Only whoever verifies can know of a write that never came.
        if matches!(damage, Damage::Stale { .. }) && !is_verified {
            continue;
        }
        let what = format!("{care:?} {number} {}, {verify:?}, {damage:?}", file.name);
        say(format_args!("begin {what}"));
        watch.tell(what);
        let examined = AssertUnwindSafe(examine_one(file, damage.inflict(file), verify)).catch_unwind().await;
        let Ok(end) = examined else {
            // What it was has been printed by then; the others are looked at all the same.
            say(format_args!("end {care:?} Wrong"));
            continue;
        };
        assert!(
            !is_verified || ![End::Told, End::Hidden].contains(&end),
            "what is verified is right: {end:?}"
        );
        say(format_args!("end {care:?} {end:?}"));
    }
    say(format_args!("panics {}", PANICS.load(Ordering::Relaxed)));
}

/// With how much care a file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// It was verified, as every file is unless another policy is asked for.
    Default,
    /// It was verified, by a faster policy, because it was not closed.
    AfterCrash,
    /// It was closed, and a faster policy did not verify it.
    Unverified,
}

impl Care {
    fn of(verify: Verify, file: &File) -> Self {
        match (verify == Verify::default(), file.one_commit_less.is_some()) {
            (true, _) => Self::Default,
            (false, true) => Self::AfterCrash,
            (false, false) => Self::Unverified,
        }
    }
}

/// What a process said of the files that it examined.
#[derive(Debug, Default)]
struct Tally {
    ends: BTreeMap<String, usize>,
    panics: u64,
    /// What it had begun and not ended.
    begun: Option<String>,
}

impl Tally {
    fn hear(&mut self, line: &str) {
        if let Some(what) = line.strip_prefix("begin ") {
            self.begun = Some(what.to_owned());
        } else if let Some(end) = line.strip_prefix("end ") {
            if end.ends_with("Wrong") {
                eprintln!("wrong: {:?}", self.begun);
            }
            *self.ends.entry(end.to_owned()).or_default() += 1;
            self.begun = None;
        } else if let Some(panics) = line.strip_prefix("panics ") {
            self.panics += panics.parse::<u64>().expect("a number");
        }
    }

    fn of(&self, care: Care, end: &str) -> usize {
        self.ends.get(&format!("{care:?} {end}")).copied().unwrap_or(0)
    }

    /// How many files were opened with so much care.
    fn files(&self, care: Care) -> usize {
        self.ends.iter().filter(|(end, _)| end.starts_with(&format!("{care:?} "))).map(|(_, n)| n).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#?}\n{} panics of the database became errors", self.ends, self.panics)?;
        for care in [Care::Default, Care::AfterCrash, Care::Unverified] {
            let [wrong, aborted, hidden] = ["Wrong", "Aborted", "Hidden"].map(|end| self.of(care, end));
            write!(f, "\n{care:?}: {} files, {wrong} wrong, ", self.files(care))?;
            write!(f, "{aborted} ended the process, {hidden} hid something")?;
        }
        Ok(())
    }
}

/// How many of a thousand files that a faster policy than the default opens unverified may end the process, and how many may
/// say what was so some commits before. Both are told in the documentation of [`Verify`]; among those that are verified, all
/// by default, there is none.
const FAULTS_IN_A_THOUSAND: usize = 1;

#[test]
fn damaged_files_say_what_was_written_or_that_they_are_damaged() {
    let images = variable("HODEI_IMAGES", IMAGES);
    let (began, mut tally, mut from) = (Instant::now(), Tally::default(), 0);
    println!("seed {}, {images} images, each opened twice", variable("HODEI_IMAGES_SEED", 1));
    loop {
        let mut child = spawn(Order::Examine, Path::new("in memory"), &[(FROM, &from.to_string())]);
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        said.lines().for_each(|line| tally.hear(&line.expect("text")));
        let ended = child.wait().expect("it has ended");
        if ended.success() {
            break;
        }
        let begun = tally.begun.take().expect("it fails at a file");
        assert_eq!(ended.signal(), Some(6), "{ended:?} at {begun}");
        let unverified = format!("{:?} ", Care::Unverified);
        assert!(begun.starts_with(&unverified), "a file that was verified ended the process: {begun}");
        println!("the process ended: {begun}");
        *tally.ends.entry(unverified + "Aborted").or_default() += 1;
        from = begun.split(' ').nth(1).and_then(|number| number.parse::<usize>().ok()).expect("a number") + 1;
    }
    let rate = images as f64 / began.elapsed().as_secs_f64();
    println!("{tally}\n{rate:.0} images/s");
    let seen = [(Care::Default, "Refused"), (Care::Default, "Same"), (Care::Unverified, "Refused")];
    for (care, end) in seen.into_iter().chain([(Care::Unverified, "Same"), (Care::Unverified, "Told")]) {
        assert!(tally.of(care, end) > 0, "{care:?} {end} is seen");
    }
    assert_eq!(tally.files(Care::Default), images, "each was opened by default too");
    for care in [Care::Default, Care::AfterCrash] {
        let faults = ["Wrong", "Aborted", "Hidden", "Told"].map(|end| tally.of(care, end));
        assert_eq!(faults, [0; 4], "{care:?}: wrong, ended the process, hid something, was told late");
    }
    // Damage may lead to a page as it was before, whose rows are whole: only whoever verifies the file can know.
    let few = images.div_ceil(1_000) * FAULTS_IN_A_THOUSAND;
    assert!(["Wrong", "Aborted"].iter().all(|end| tally.of(Care::Unverified, end) <= few));
}
