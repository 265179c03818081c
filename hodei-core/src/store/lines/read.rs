//! Reading.

use std::io::{BufRead, Read as _};

use serde::Deserialize;

use super::line::{End, FORMAT, Header, LINE_MAX, LINES_VERSION, LineCounts, LineRow};
use super::row::{CheckpointLine, JobLine, LimitLine, QueueLine, ScheduleLine};
use crate::checkpoint::CHECKPOINT_MAX;
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::id::JobId;
use crate::job::{Job, NewJob, State};
use crate::store::SlotRow;

const OP: &str = "lines.read";

/// Reads what a [`LineWriter`](super::LineWriter) wrote, one line at a time.
#[derive(Debug)]
pub struct LineReader<R> {
    input: R,
    bytes: Vec<u8>,
    number: u64,
    counts: LineCounts,
    ended: bool,
}

/// The kind of a line.
#[derive(Deserialize)]
struct Kind<'a> {
    line: &'a str,
}

impl<R: BufRead> LineReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// `Invalid`: it is none, or of another format. `SchemaTooNew`: of a version of the format that is not known.
    /// `Io`, when it cannot be read.
    pub fn new(input: R) -> Result<Self> {
        let counts = LineCounts::default();
        let mut lines = Self { input, bytes: Vec::new(), number: 0, counts, ended: false };
        if !lines.advance()? {
            return Err(lines.refuse(Fault::new("line", "missing")));
        }
        let header: Header<'_> = lines.parse()?;
        if header.line != "header" || header.format != FORMAT {
            return Err(lines.refuse(Fault::new("format", "unknown")));
        }
        if header.version != LINES_VERSION {
            let error = Error::new(ErrorKind::SchemaTooNew, OP).with("version", header.version);
            return Err(error.with("known", LINES_VERSION));
        }
        Ok(lines)
    }

    /// Reads the next row; nothing when the line at the end has come, and counts what was read.
    ///
    /// # Errors
    ///
    /// `Invalid`: the line is refused; its number is the context `line`. `Io`, when it cannot be read.
    pub fn next_row(&mut self) -> Result<Option<LineRow>> {
        if self.ended {
            return Ok(None);
        }
        if !self.advance()? {
            // A whole text says that it ends.
            return Err(self.refuse(Fault::new("line", "cut_off")));
        }
        let kind: Kind<'_> = self.parse()?;
        let row = match kind.line {
            QueueLine::LINE => SlotRow::Queue(self.parse::<QueueLine<'_>>()?.into_policy()),
            LimitLine::LINE => {
                let limit = self.parse::<LimitLine<'_>>()?.into_limit();
                let (limit, spent) = limit.ok_or_else(|| self.refuse(Fault::new("limit", "of_nothing")))?;
                limit.check().map_err(|error| self.at(&error))?;
                SlotRow::Limit(limit, spent)
            }
            ScheduleLine::LINE => {
                let line: ScheduleLine<'_> = self.parse()?;
                SlotRow::Schedule(line.into_schedule().map_err(|error| self.at(&error))?)
            }
            JobLine::LINE => {
                let line: JobLine<'_> = self.parse()?;
                let (job, edges, last) = line.into_job().map_err(|error| self.at(&error))?;
                check(&job, &edges).map_err(|error| self.at(&error))?;
                SlotRow::Job { job: Box::new(job), edges, last }
            }
            CheckpointLine::LINE => {
                let line: CheckpointLine<'_> = self.parse()?;
                let checkpoint = line.into_checkpoint();
                if checkpoint.saved.as_ref().is_some_and(|saved| saved.len() > CHECKPOINT_MAX) {
                    return Err(self.refuse(Fault::new("saved", "too_long").limit(CHECKPOINT_MAX as u64)));
                }
                self.counts.checkpoints += 1;
                return Ok(Some(LineRow::Checkpoint(checkpoint)));
            }
            "end" => return self.end(),
            _ => return Err(self.refuse(Fault::new("line", "unknown"))),
        };
        if let SlotRow::Queue(policy) = &row
            && policy.weight == 0
        {
            return Err(self.refuse(Fault::new("weight", "zero")));
        }
        self.counts.add(&row);
        Ok(Some(LineRow::Row(row)))
    }

    /// Returns the number of the line that was read last, from 1 on.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Returns how many rows were read.
    #[must_use]
    pub const fn counts(&self) -> LineCounts {
        self.counts
    }

    /// Makes the error that refuses the line that was read last, for a fault that only a store can see.
    #[must_use]
    pub fn refuse(&self, fault: Fault) -> Error {
        Error::invalid(OP, vec![fault]).with("line", self.number)
    }

    /// Says of what line an error is.
    fn at(&self, error: &Error) -> Error {
        Error::invalid(OP, error.faults().to_vec()).with("line", self.number)
    }

    fn end(&mut self) -> Result<Option<LineRow>> {
        let end: End<'_> = self.parse()?;
        let LineCounts { queues, limits, schedules, jobs, checkpoints } = self.counts;
        let jobs = State::ALL.map(|state| jobs.of(state));
        let counted = [("queues", end.queues == queues), ("limits", end.limits == limits)];
        let more = [
            ("schedules", end.schedules == schedules),
            ("jobs", end.jobs == jobs),
            ("checkpoints", end.checkpoints == checkpoints),
        ];
        if let Some((field, _)) = counted.into_iter().chain(more).find(|(_, same)| !same) {
            return Err(self.refuse(Fault::new(field, "another_count")));
        }
        self.ended = true;
        if self.advance()? {
            return Err(self.refuse(Fault::new("line", "behind_the_end")));
        }
        Ok(None)
    }

    /// Reads a line; `false` at the end of the text.
    fn advance(&mut self) -> Result<bool> {
        self.bytes.clear();
        let limit = LINE_MAX as u64 + 1;
        let read = self.input.by_ref().take(limit).read_until(b'\n', &mut self.bytes);
        let read = read.map_err(|source| Error::new(ErrorKind::Io, OP).source_error(source))?;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        if self.bytes.pop() != Some(b'\n') {
            let over = read > LINE_MAX;
            let fault = if over {
                Fault::new("line", "too_long").limit(LINE_MAX as u64)
            } else {
                Fault::new("line", "cut_off")
            };
            return Err(self.refuse(fault));
        }
        Ok(true)
    }

    fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        let mut json = serde_json::Deserializer::from_slice(&self.bytes);
        let parsed = serde_path_to_error::deserialize(&mut json);
        let parsed = parsed.map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { "line".to_owned() } else { path };
            self.refuse(Fault::new(field, "bad_value").detail(error.into_inner().to_string()))
        })?;
        let whole = json.end();
        whole.map_err(|error| self.refuse(Fault::new("line", "bad_value").detail(error.to_string())))?;
        Ok(parsed)
    }
}

/// Holds a job to what was submitted, and to what its state says.
fn check(job: &Job, edges: &[(JobId, bool)]) -> Result<()> {
    let new = NewJob {
        id: job.id,
        tenant: job.tenant.clone(),
        spec: std::sync::Arc::clone(&job.spec),
        run_at: None,
        deadline: job.deadline,
        unique: job.unique.clone(),
        parents: job.asked_parents().collect(),
        pipeline: job.pipeline,
    };
    new.check()?;
    let leased = matches!(job.state, State::Scheduled | State::Running);
    let untold = edges.iter().filter(|(_, told)| !told).count();
    let mut parents = edges.iter().map(|(parent, _)| parent);
    let mut apart: Vec<JobId> = edges.iter().map(|(parent, _)| *parent).collect();
    apart.sort_unstable();
    apart.dedup();
    let blocked = job.state == State::Blocked;
    let incarnation = job.lease.as_ref().map_or(0, |lease| lease.incarnation);
    let faults = [
        ("version", "zero", job.version == 0),
        ("lease", "not_of_this_state", leased != job.lease.is_some()),
        ("settled", "missing", job.state.is_terminal() && job.settled.is_none()),
        ("edges", "no_parent", !parents.all(|id| job.parents.iter().any(|of| of.id == *id))),
        ("edges", "duplicate", apart.len() != edges.len()),
        ("edges", "missing", blocked && untold == 0),
        ("waits_for", "another_count", blocked && job.waits_for as usize != untold),
        ("version", "too_high", job.version > u32::MAX / 2),
        ("attempt", "too_high", job.attempt > u32::MAX / 2),
        ("epoch", "too_high", job.epoch.number() > u64::MAX / 2),
        ("lease", "too_high", incarnation > u64::MAX / 2),
    ];
    match faults.into_iter().find(|(.., wrong)| *wrong) {
        Some((field, code, _)) => Err(Error::invalid(OP, vec![Fault::new(field, code)])),
        None => Ok(()),
    }
}
