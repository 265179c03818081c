//! The lines that are no rows, and the limits of all.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::store::query::Counts;
use crate::store::shard::SlotRow;

/// The version of the format.
pub const LINES_VERSION: u32 = 1;

/// The longest line that is written, and that is read: 256 MiB. As JSON a row of 16 MiB may be six times as long.
pub const LINE_MAX: usize = 256 << 20;

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
    /// Checkpoints.
    pub checkpoints: u64,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub enum LineRow {
    /// A row of a slot.
    Row(SlotRow),
    /// How far a run had come.
    Checkpoint(Checkpoint),
}

impl LineCounts {
    pub(super) fn add(&mut self, row: &SlotRow) {
        match row {
            SlotRow::Queue(_) => self.queues += 1,
            SlotRow::Limit(..) => self.limits += 1,
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
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) checkpoints: u64,
}

/// A text without checkpoints is as it was before there were any.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it asks about by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
