//! What is asked of every engine alike, and how what it did is checked.
//!
//! The peer that has a workspace of its own takes this file in by its path: it knows nothing but tokio.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// How many jobs go into one submission in bulk.
pub const BATCH: usize = 1_000;

/// How many jobs an engine is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Preloaded, and drained through the whole engine.
    pub drain: usize,
    /// Submitted one by one by a single caller.
    pub single: usize,
    /// Callers that submit one by one beside each other.
    pub callers: usize,
    /// Submitted by each of them.
    pub each: usize,
    /// Submitted in batches of [`BATCH`].
    pub bulk: usize,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} {}", self.drain, self.single, self.callers, self.each, self.bulk)
    }
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let [drain, single, callers, each, bulk] = numbers(text)?;
        Ok(Self { drain, single, callers, each, bulk })
    }
}

/// How many jobs a second an engine took in and settled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// From preloaded to settled.
    pub drain: f64,
    /// One caller, one by one.
    pub single: f64,
    /// Many callers, one by one.
    pub concurrent: f64,
    /// In batches of [`BATCH`].
    pub bulk: f64,
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.drain, self.single, self.concurrent, self.bulk)
    }
}

impl FromStr for Rates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let [drain, single, concurrent, bulk] = numbers(text)?;
        Ok(Self { drain, single, concurrent, bulk })
    }
}

/// Reads exactly as many numbers as are wanted.
fn numbers<T: FromStr, const N: usize>(text: &str) -> Result<[T; N], String> {
    let read: Option<Vec<T>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    read.and_then(|read| read.try_into().ok()).ok_or_else(|| format!("{N} numbers expected, not `{text}`"))
}

/// Returns how many a second that is.
#[must_use]
pub fn per_second(n: usize, took: Duration) -> f64 {
    n as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// How often the handler was called for each job, by the number in the job's arguments.
#[derive(Debug)]
pub struct Marks {
    calls: Box<[AtomicU8]>,
    missing: AtomicUsize,
    strange: AtomicUsize,
    all: Notify,
}

impl Marks {
    /// Expects jobs 0 to n − 1.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self {
            calls: (0..n).map(|_| AtomicU8::new(0)).collect(),
            missing: AtomicUsize::new(n),
            strange: AtomicUsize::new(0),
            all: Notify::new(),
        }
    }

    /// Counts a call.
    pub fn mark(&self, n: usize) {
        let Some(calls) = self.calls.get(n) else {
            self.strange.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        if first && self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all.notify_one();
        }
    }

    /// Waits until every job was called for at least once. For one waiter.
    pub async fn all(&self) {
        if self.missing.load(Ordering::Acquire) > 0 {
            self.all.notified().await;
        }
    }

    /// Says whether every job ran, and ran once.
    ///
    /// # Errors
    ///
    /// How many did not.
    pub fn check(&self) -> Result<(), String> {
        let other =
            |than: u8| self.calls.iter().filter(|calls| calls.load(Ordering::Relaxed) != than).count();
        let (wrong, strange) = (other(1), self.strange.load(Ordering::Relaxed));
        if wrong == 0 && strange == 0 {
            Ok(())
        } else {
            Err(format!("{wrong} of {} jobs did not run just once, {strange} are unknown", self.calls.len()))
        }
    }
}
