//! The lines that are no rows, and the limits of all.

use serde::{Deserialize, Serialize};

use crate::store::query::Counts;
use crate::store::shard::SlotRow;

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
    pub(super) fn add(&mut self, row: &SlotRow) {
        match row {
            SlotRow::Queue(_) => self.queues += 1,
            SlotRow::Limit(_) => self.limits += 1,
            SlotRow::Schedule(_) => self.schedules += 1,
            SlotRow::Job { job, .. } => self.jobs.moved(None, Some(job.state)),
        }
    }
}

/// The name of the format.
pub(super) const FORMAT: &str = "hodei";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header<'a> {
    pub(super) line: &'a str,
    pub(super) format: &'a str,
    pub(super) version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End<'a> {
    pub(super) line: &'a str,
    pub(super) queues: u64,
    pub(super) limits: u64,
    pub(super) schedules: u64,
    pub(super) jobs: [u64; 7],
}
