//! What a store keeps, as lines of JSON: to be looked at, kept, or brought to another store.
//!
//! ```text
//! {"line":"header","format":"hodei","version":1}
//! {"line":"queue", …}      how queues are served, by tenant
//! {"line":"limit", …}      limits
//! {"line":"schedule", …}   schedules, with the time each fired last
//! {"line":"job", …}        jobs in the order of their ids, with unique key, lease, output, and the edges from parents
//! {"line":"end","queues":0,"limits":0,"schedules":0,"jobs":[0,0,0,0,0,0,0]}
//! ```
//!
//! The last line counts the lines before it, jobs by the number of their state: a text that was cut off is told from a whole
//! one. Bytes are base64. Recorded changes, owners and terms are not written: they belong to a store and its processes.
//!
//! What is read is held to what is submitted: every spec to the default [`SpecLimits`](crate::job::SpecLimits), every
//! job to [`NewJob::check`](crate::job::NewJob::check) and to what its state says. A line that is refused is named in the
//! error, as `line`, and so is the field, as the [`Fault`](crate::Fault)'s.

mod read;
mod row;
#[cfg(test)]
mod tests;
mod write;

pub use read::LineReader;
pub use write::LineWriter;

use serde::{Deserialize, Serialize};

use super::query::Counts;
use super::shard::SlotRow;

/// The version of the format.
pub const LINES_VERSION: u32 = 1;

/// The longest line that is read: 32 MiB.
pub const LINE_MAX: usize = 32 << 20;

/// How many lines there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineCounts {
    /// Queues.
    pub queues: u64,
    /// Limits.
    pub limits: u64,
    /// Schedules.
    pub schedules: u64,
    /// Jobs, by their state.
    pub jobs: Counts,
}

impl LineCounts {
    fn add(&mut self, row: &SlotRow) {
        match row {
            SlotRow::Queue(_) => self.queues += 1,
            SlotRow::Limit(_) => self.limits += 1,
            SlotRow::Schedule(_) => self.schedules += 1,
            SlotRow::Job { job, .. } => self.jobs.moved(None, Some(job.state)),
        }
    }
}

/// The name of the format.
const FORMAT: &str = "hodei";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    line: &'a str,
    format: &'a str,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End<'a> {
    line: &'a str,
    queues: u64,
    limits: u64,
    schedules: u64,
    jobs: [u64; 7],
}
