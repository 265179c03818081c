//! The entries of a history.

use serde::{Deserialize, Serialize};

use super::call::{Call, Reply};
use super::facts::{Facts, Seen};
use crate::id::{JobId, Name, Tenant};
use crate::job::{Epoch, Lease, Stream};
use crate::log::LogKey;
use crate::store::{Change, LimitOf};

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A call was begun.
    Called {
        /// Its number, by which the reply is found.
        call: u64,
        /// What was asked.
        what: Call,
    },
    /// A call was answered.
    Returned {
        /// Its number.
        call: u64,
        /// The answer.
        reply: Reply,
    },
    /// A call failed.
    Failed {
        /// Its number.
        call: u64,
        /// The kind of the error, for people.
        kind: String,
        /// Whether it may have happened all the same.
        unknown: bool,
    },
    /// Another process said that it would submit a job.
    Attempted {
        /// The job.
        job: Facts,
    },
    /// Another process had a submission acknowledged.
    Acknowledged {
        /// The job.
        job: JobId,
    },
    /// A worker began to run a job.
    RunBegan {
        /// The job.
        job: JobId,
        /// The fencing number it runs under.
        epoch: Epoch,
        /// Who runs it.
        owner: Lease,
    },
    /// A run was over: nothing of it acts any more.
    RunEnded {
        /// The job.
        job: JobId,
        /// The fencing number it ran under.
        epoch: Epoch,
    },
    /// A run handed bytes over to its log, secrets masked.
    LogWritten {
        /// Which stream of which run.
        log: LogSeen,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A reader was given a part of a log.
    LogRead {
        /// Who read, from the first byte on.
        reader: Name,
        /// Which stream of which run.
        log: LogSeen,
        /// Where the bytes begin in the stream as it is kept.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
        /// Where the reader was told to go on.
        next: u64,
        /// Whether it was told that nothing follows.
        ended: bool,
        /// How many bytes it was told were dropped.
        dropped: u64,
    },
    /// What the store holds of a log with the end of its run, which ended well.
    LogEnded {
        /// Which stream of which run.
        log: LogSeen,
        /// How many bytes are kept.
        kept: u64,
        /// How many bytes were dropped.
        dropped: u64,
    },
    /// A value from here on is a secret, whoever says it.
    Secret {
        /// The value.
        value: Vec<u8>,
    },
    /// Something was written down elsewhere: a store's file, an event, a metric, an error.
    Output {
        /// Where.
        place: String,
        /// What.
        bytes: Vec<u8>,
    },
    /// A subscriber without a filter was told of a transition.
    Observed {
        /// Who was told.
        subscriber: Name,
        /// What the job was like after the transition.
        seen: Seen,
    },
    /// A subscriber was told that it had missed something.
    Lagged {
        /// Who was told.
        subscriber: Name,
    },
    /// The process died with everything that it ran, and another opened its store.
    Restarted,
    /// The store is about to be read as a whole, after everything that is to be judged.
    SurveyBegan,
    /// The next line of the store's change log.
    Logged {
        /// The change.
        change: Change,
    },
    /// A job that the store holds.
    Held {
        /// The job.
        seen: Seen,
    },
    /// The store was read as a whole.
    SurveyEnded {
        /// How many jobs are held; nothing where only the change log was read.
        held: Option<u64>,
        /// How many jobs the store counts in each state, in the order of their numbers.
        counts: Option<Vec<u64>>,
        /// How many jobs of each queue it counts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queues: Option<Vec<QueueSeen>>,
        /// What the store says of its limits.
        limits: Vec<LimitSeen>,
    },
}

/// A stream of the log of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogSeen {
    /// Which job.
    pub job: JobId,
    /// Which run of it.
    pub epoch: Epoch,
    /// Which stream of the run.
    pub stream: Stream,
}

impl From<&LogKey> for LogSeen {
    fn from(key: &LogKey) -> Self {
        Self { job: key.job, epoch: key.epoch, stream: key.stream }
    }
}

/// A limit as a read showed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitSeen {
    /// Which jobs it is about.
    pub of: LimitOf,
    /// How many at most.
    pub max: u32,
    /// How many counted against it.
    pub in_use: u32,
}

/// The counts of a queue as a read showed them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSeen {
    /// Whose queue.
    pub tenant: Tenant,
    /// Which one.
    pub queue: Name,
    /// How many of its jobs were in each state, in the order of their numbers.
    pub counts: Vec<u64>,
}
