//! The port of the logs that runs write.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::id::{JobId, Tenant};
use crate::job::{Epoch, Stream};

/// Whose log: a stale writer can only touch its own epoch's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogKey {
    /// Whose job.
    pub tenant: Tenant,
    /// Which job.
    pub job: JobId,
    /// Which run of it.
    pub epoch: Epoch,
    /// Which stream of the run.
    pub stream: Stream,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// Whose log.
    pub key: LogKey,
    /// Where the bytes begin in the stream as it is kept.
    pub offset: u64,
    /// The bytes, secrets masked.
    pub bytes: Bytes,
}

/// What a reader found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRead {
    /// The bytes from the offset on; empty when there are none yet.
    pub bytes: Bytes,
    /// Where to go on.
    pub next: u64,
    /// Whether nothing will follow.
    pub ended: bool,
    /// How many bytes of the whole stream were dropped because a limit was reached.
    pub dropped: u64,
}

/// Reads logs, of runs that are over and of runs that go on.
///
/// # Cancel safety
///
/// Cancel safe: it only reads, unless a method says otherwise.
#[async_trait]
pub trait LogReader: Send + Sync + fmt::Debug {
    /// Reads up to `max` bytes from an offset, or from the first byte after it that is still kept: what is missing in
    /// between is what [`LogRead::next`] is ahead of the bytes.
    ///
    /// # Errors
    ///
    /// `NotFound` when nothing is known of that run; `Io` when its file cannot be read.
    async fn read(&self, key: &LogKey, offset: u64, max: usize) -> Result<LogRead>;

    /// As [`LogReader::read`], but waits until there are bytes after the offset or the stream has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    ///
    /// # Errors
    ///
    /// As [`LogReader::read`].
    async fn follow(&self, key: &LogKey, offset: u64, max: usize) -> Result<LogRead>;
}

/// Keeps logs until the jobs are gone.
#[async_trait]
pub trait LogStore: LogReader {
    /// Removes every log of these jobs; of those that have none there is nothing to do.
    ///
    /// # Errors
    ///
    /// `Io` with the first that could not be removed; the others are.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have removed some; repeating it does no harm.
    async fn forget(&self, jobs: Vec<(Tenant, JobId)>) -> Result<()>;
}

const _: fn(&dyn LogReader) = |_| ();
const _: fn(&dyn LogStore) = |_| ();
