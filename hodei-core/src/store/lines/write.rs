//! Writing.

use std::io::{self, Write};

use serde::Serialize;

use super::line::{End, FORMAT, Header, LINE_MAX, LINES_VERSION, LineCounts};
use super::row::{CheckpointLine, JobLine, LimitLine, QueueLine, ScheduleLine};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::job::State;
use crate::store::SlotRow;

const OP: &str = "lines.write";
/// How much room for a line is kept for the next one.
const KEPT: usize = 1 << 20;

/// Writes what a store keeps, line by line. Each line is made whole and written at once.
#[derive(Debug)]
pub struct LineWriter<W> {
    out: W,
    /// The line that is being made.
    line: Vec<u8>,
    counts: LineCounts,
}

impl<W: Write> LineWriter<W> {
    /// Begins with the header.
    ///
    /// # Errors
    ///
    /// `Io` and `Full`, when it cannot be written.
    pub fn new(out: W) -> Result<Self> {
        let mut lines = Self { out, line: Vec::new(), counts: LineCounts::default() };
        lines.line(&Header { line: "header", format: FORMAT, version: LINES_VERSION })?;
        Ok(lines)
    }

    /// Writes a row.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` for a line longer than [`LINE_MAX`], which no reader would take; `Io` and `Full`, when it cannot be
    /// written.
    pub fn row(&mut self, row: &SlotRow) -> Result<()> {
        match row {
            SlotRow::Queue(policy) => self.line(&QueueLine::of(policy))?,
            SlotRow::Limit(limit, spent) => self.line(&LimitLine::of(limit, *spent))?,
            SlotRow::Schedule(schedule) => self.line(&ScheduleLine::of(schedule))?,
            SlotRow::Job { job, edges, last } => self.line(&JobLine::of(job, edges, *last))?,
        }
        self.counts.add(row);
        Ok(())
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    ///
    /// `Io` and `Full`, when it cannot be written.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.line(&CheckpointLine::of(checkpoint))?;
        self.counts.checkpoints += 1;
        Ok(())
    }

    /// Returns how many rows were written.
    #[must_use]
    pub const fn counts(&self) -> LineCounts {
        self.counts
    }

    /// Ends with the counts, and flushes.
    ///
    /// # Errors
    ///
    /// `Io` and `Full`, when it cannot be written.
    pub fn finish(mut self) -> Result<LineCounts> {
        let LineCounts { queues, limits, schedules, jobs, checkpoints } = self.counts;
        let jobs = State::ALL.map(|state| jobs.of(state));
        self.line(&End { line: "end", queues, limits, schedules, jobs, checkpoints })?;
        self.out.flush().map_err(failed)?;
        Ok(self.counts)
    }

    fn line(&mut self, line: &impl Serialize) -> Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line).map_err(|error| failed(error.into()))?;
        self.line.push(b'\n');
        if self.line.len() > LINE_MAX {
            let error = Error::new(ErrorKind::LimitExceeded, OP).with("bytes", self.line.len());
            return Err(error.with("limit", LINE_MAX));
        }
        let written = self.out.write_all(&self.line).map_err(failed);
        // One long line does not keep its room.
        self.line.shrink_to(KEPT);
        written
    }
}

fn failed(source: io::Error) -> Error {
    let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    Error::new(if full { ErrorKind::Full } else { ErrorKind::Io }, OP).source_error(source)
}
