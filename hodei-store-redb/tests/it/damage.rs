//! Bytes of a closed file that are not what was written: told, or without effect.

use std::fs;
use std::path::Path;

use hodei_core::ErrorKind;
use hodei_core::job::Job;
use hodei_core::store::{Consistency, JobStore, Scope};
use hodei_store_redb::Verify;

use crate::env::{Env, Everything, everything};
use crate::reopen::populate;

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    /// The next number below a bound (splitmix64).
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("below a bound")
    }
}

/// How often each test damages its file; the environment variable `HODEI_DAMAGES` sets another number.
const DAMAGES: usize = 150;
const PAGE: usize = 4_096;
const SECTOR: usize = 512;

/// What happened to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Bit { at: usize, bit: usize },
    Zeros { at: usize },
    Swapped { one: usize, other: usize },
}

impl Damage {
    /// Chooses damage to bytes that say something: most of a small file are zeros.
    fn choose(numbers: &mut Numbers, file: &[u8]) -> Self {
        let says = |at: usize| file[at..at + SECTOR].iter().any(|byte| *byte != 0);
        let sectors: Vec<usize> =
            (0..file.len() / SECTOR).map(|n| n * SECTOR).filter(|at| says(*at)).collect();
        let at = sectors[numbers.below(sectors.len())];
        match numbers.below(8) {
            0 => Self::Zeros { at },
            1 => {
                let other = sectors[numbers.below(sectors.len())];
                Self::Swapped { one: at / PAGE * PAGE, other: other / PAGE * PAGE }
            }
            _ => Self::Bit { at: at + numbers.below(SECTOR), bit: numbers.below(8) },
        }
    }

    fn inflict(self, file: &mut [u8]) {
        match self {
            Self::Bit { at, bit } => file[at] ^= 1 << bit,
            Self::Zeros { at } => file[at..at + SECTOR].fill(0),
            Self::Swapped { one, other } if one != other => {
                let (low, high) = file.split_at_mut(one.max(other));
                low[one.min(other)..][..PAGE].swap_with_slice(&mut high[..PAGE]);
            }
            Self::Swapped { .. } => {}
        }
    }
}

/// Which errors tell of damage. Damage to the header can look like the file of another version of the database.
const TOLD: [ErrorKind; 3] = [ErrorKind::Corrupt, ErrorKind::Io, ErrorKind::Locked];

/// Reads each job by its id, and says of those that were read in full that they are what was written.
async fn read_each(store: &dyn JobStore, before: &Everything) -> usize {
    let mut read = 0;
    for job in &before.jobs {
        match store.get_many(&Scope::All, vec![job.id], Consistency::Latest).await {
            Ok(found) => read += usize::from(is_right(found[0].as_ref(), job)),
            Err(error) => assert!(TOLD.contains(&error.kind()), "{error:?}"),
        }
    }
    read
}

/// A job may be hidden by damage to its key; it may not be another.
fn is_right(found: Option<&Job>, job: &Job) -> bool {
    assert!(found.is_none_or(|found| found == job), "{found:?} is not {job:?}");
    found.is_some()
}

/// Damages a sound file again and again: (how often it was told, how often there was no effect).
async fn survive(seed: u64, verify: Verify) -> (usize, usize) {
    let times = std::env::var("HODEI_DAMAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(DAMAGES);
    let env = Env::new();
    let store = env.open();
    populate(&env, &store).await;
    let before = everything(&store).await.expect("the file is sound");
    drop(store);
    let whole = fs::read(env.path()).expect("the file is there");
    let (mut numbers, mut told, mut same) = (Numbers(seed), 0, 0);
    for _ in 0..times {
        let damage = Damage::choose(&mut numbers, &whole);
        write_damaged(&env.path(), &whole, damage);
        let store = match env.builder().verify(verify).open() {
            Ok(store) => store,
            Err(error) => {
                assert!(TOLD.contains(&error.kind()), "{damage:?}: {error:?}");
                told += 1;
                continue;
            }
        };
        let after = everything(&store).await;
        let read = read_each(&store, &before).await;
        match after {
            Ok(after) if verify == Verify::Always => {
                assert_eq!((&after, read), (&before, before.jobs.len()), "{damage:?}");
                same += 1;
            }
            Ok(_) => same += 1,
            Err(error) => {
                assert!(
                    verify != Verify::Always && error.kind() == ErrorKind::Corrupt,
                    "{damage:?}: {error:?}"
                );
                told += 1;
            }
        }
    }
    (told, same)
}

fn write_damaged(path: &Path, whole: &[u8], damage: Damage) {
    let mut file = whole.to_vec();
    damage.inflict(&mut file);
    fs::write(path, file).expect("room for the file");
}

#[tokio::test]
async fn a_file_that_is_verified_says_exactly_what_was_written_or_that_it_is_damaged() {
    let (told, same) = survive(1, Verify::Always).await;
    assert!(told > 0 && same > 0, "{told} told, {same} without effect: both are seen");
}

#[tokio::test]
async fn a_file_that_is_not_verified_never_gives_a_wrong_job() {
    let (told, same) = survive(2, Verify::AfterCrash).await;
    assert!(told > 0 && same > 0, "{told} told, {same} without effect: both are seen");
}
