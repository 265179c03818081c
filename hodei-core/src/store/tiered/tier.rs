//! The port of a second tier.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::breaker::BreakerOptions;
use crate::error::Result;
use crate::id::JobId;

/// A row on its way into a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierRow {
    /// Whose row.
    pub key: JobId,
    /// The version of what it holds.
    pub version: u32,
    /// What it holds; opaque to the tier.
    pub bytes: Bytes,
    /// How long it is kept.
    pub ttl: Duration,
}

/// Rows of bytes that several processes share, on a best effort.
///
/// # Cancel safety
///
/// Every verb may be dropped at any point: a caller that has waited long enough does so. What was written by then may
/// stand or not.
#[async_trait]
pub trait CacheTier: Send + Sync + fmt::Debug {
    /// Reads rows, one reply per key, in order.
    ///
    /// # Errors
    ///
    /// Any; the caller goes on without the tier.
    async fn get_many(&self, keys: &[JobId]) -> Result<Vec<Option<Bytes>>>;

    /// Writes rows. One that is there already in a newer version should stay.
    ///
    /// # Errors
    ///
    /// Any; some rows may be written.
    async fn put_many(&self, rows: Vec<TierRow>) -> Result<()>;

    /// Removes rows, whatever their version.
    ///
    /// # Errors
    ///
    /// Any; some rows may be removed.
    async fn remove_many(&self, keys: &[JobId]) -> Result<()>;
}

const _: fn(&dyn CacheTier) = |_| ();

/// Waits. Core knows no runtime, so whoever wants a bound on the time of a tier lends it a timer: with tokio, one whose
/// `sleep` is `Box::pin(tokio::time::sleep(time))`.
pub trait Timer: Send + Sync + fmt::Debug {
    /// Returns a future that is ready after a while.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

const _: fn(&dyn Timer) = |_| ();

/// How a tier is used.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TierOptions {
    /// How long the visits of a read may take together: 50 ms. It asks, removes what it does not believe, and writes. A visit
    /// for which less than a quarter is left is left out; where that was the writing, the next read does not ask, and writes.
    /// A prune removes, a visit for each batch, each of which has a budget.
    pub budget: Duration,
    /// How long rows are kept: 1 h. So long may a job that was pruned meanwhile be told of;
    /// keep it below [`Retention::KEYS_MIN`](crate::store::Retention::KEYS_MIN).
    pub ttl: Duration,
    /// The longest row that is written, in bytes: 64 KiB.
    pub row_max: usize,
    /// The most rows of one visit: 1,000. What a batch has beyond that is not asked for.
    pub rows_max: usize,
    /// When a failing tier is left alone.
    pub breaker: BreakerOptions,
}

impl Default for TierOptions {
    fn default() -> Self {
        Self {
            budget: Duration::from_millis(50),
            ttl: Duration::from_secs(3_600),
            row_max: 64 * 1024,
            rows_max: 1_000,
            breaker: BreakerOptions::default(),
        }
    }
}

impl TierOptions {
    /// Sets how long the visits of one call may take together.
    #[must_use]
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Sets how long rows are kept.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets the longest row that is written, in bytes.
    #[must_use]
    pub fn row_max(mut self, bytes: usize) -> Self {
        self.row_max = bytes;
        self
    }

    /// Sets the most rows of one visit.
    #[must_use]
    pub fn rows_max(mut self, rows: usize) -> Self {
        self.rows_max = rows;
        self
    }

    /// Sets when a failing tier is left alone.
    #[must_use]
    pub fn breaker(mut self, breaker: BreakerOptions) -> Self {
        self.breaker = breaker;
        self
    }
}
