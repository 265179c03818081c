//! Noting what happens.

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use super::call::{Call, Reply};
use super::entry::Entry;
use super::facts::Seen;
use super::jsonl::{failed, line};
use super::log::{History, Survey};
use crate::error::{Error, ErrorKind, Result};
use crate::event::JobEvent;
use crate::id::{JobId, Name};
use crate::job::{Epoch, Lease, Secret};
use crate::log::{LogKey, LogRead};

/// Notes what happens, in the order in which it is told. Cloning shares it; any thread may note.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// A std mutex: an entry is pushed or one line written, and nothing is awaited. Its order is the history's order.
    pad: Arc<Mutex<Pad>>,
}

struct Pad {
    calls: u64,
    kept: Vec<Entry>,
    /// Where lines go instead, if they are not kept.
    writer: Option<Box<dyn Write + Send>>,
    failed: Option<Error>,
}

impl fmt::Debug for Pad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pad")
            .field("calls", &self.calls)
            .field("kept", &self.kept.len())
            .finish_non_exhaustive()
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// Makes a recorder that keeps its entries in memory.
    #[must_use]
    pub fn new() -> Self {
        Self::with(None)
    }

    /// Makes a recorder that writes each entry at once as a line, in one write, and keeps nothing.
    ///
    /// With a file opened for appending and no buffer in between, what was noted survives the death of the process.
    #[must_use]
    pub fn writing(writer: impl Write + Send + 'static) -> Self {
        Self::with(Some(Box::new(writer)))
    }

    fn with(writer: Option<Box<dyn Write + Send>>) -> Self {
        Self { pad: Arc::new(Mutex::new(Pad { calls: 0, kept: Vec::new(), writer, failed: None })) }
    }

    /// Copies what was kept so far.
    #[must_use]
    pub fn history(&self) -> History {
        History::of(self.on_pad(|pad| pad.kept.clone()))
    }

    /// Takes out what was kept since it was last taken out; whoever does so keeps the history.
    #[must_use]
    pub fn take(&self) -> Vec<Entry> {
        self.on_pad(|pad| std::mem::take(&mut pad.kept))
    }

    /// Returns the first failure to write, and forgets it. Entries after it may be missing.
    ///
    /// # Errors
    ///
    /// `Io` when the writer failed.
    pub fn written(&self) -> Result<()> {
        self.on_pad(|pad| pad.failed.take()).map_or(Ok(()), Err)
    }

    /// Notes an entry.
    pub fn note(&self, entry: Entry) {
        self.on_pad(|pad| pad.note(entry));
    }

    /// Notes that a run begins, and its end when the returned guard is dropped.
    #[must_use = "dropping it notes the end of the run"]
    pub fn executed(&self, job: JobId, epoch: Epoch, owner: &Lease) -> Run {
        self.note(Entry::RunBegan { job, epoch, owner: owner.clone() });
        Run { recorder: self.clone(), job, epoch }
    }

    /// Notes that a submission was acknowledged, where the call itself is not recorded.
    pub fn acknowledged(&self, job: JobId) {
        self.note(Entry::Acknowledged { job });
    }

    /// Notes what a run hands over to its log, secrets masked.
    pub fn log_written(&self, key: &LogKey, bytes: &[u8]) {
        self.note(Entry::LogWritten { log: key.into(), bytes: bytes.to_vec() });
    }

    /// Notes what a reader of a log was given who began with its first byte.
    pub fn log_read(&self, reader: &Name, key: &LogKey, offset: u64, read: &LogRead) {
        self.note(Entry::LogRead {
            reader: reader.clone(),
            log: key.into(),
            // What is missing is what `next` is ahead of the bytes.
            offset: if read.bytes.is_empty() {
                offset
            } else {
                read.next.saturating_sub(read.bytes.len() as u64)
            },
            bytes: read.bytes.to_vec(),
            next: read.next,
            ended: read.ended,
            dropped: read.dropped,
        });
    }

    /// Notes that nobody is to be shown a value from here on. The history itself keeps it.
    pub fn secret(&self, secret: &Secret) {
        self.note(Entry::Secret { value: secret.expose().to_vec() });
    }

    /// Notes what was written down somewhere: a store's file, an event, a metric, an error.
    pub fn output(&self, place: impl Into<String>, bytes: &[u8]) {
        self.note(Entry::Output { place: place.into(), bytes: bytes.to_vec() });
    }

    /// Notes what a subscriber without a filter was told.
    pub fn observed(&self, subscriber: &Name, event: &JobEvent) {
        let seen = Seen {
            job: event.job,
            tenant: event.tenant.clone(),
            state: event.to,
            cause: event.cause,
            version: event.version,
            attempt: event.attempt,
            epoch: event.epoch,
        };
        self.note(Entry::Observed { subscriber: subscriber.clone(), seen });
    }

    /// Notes that a subscriber was told that it had missed something.
    pub fn lagged(&self, subscriber: &Name) {
        self.note(Entry::Lagged { subscriber: subscriber.clone() });
    }

    /// Notes that the process died with everything that it ran, and its store was opened again.
    pub fn restarted(&self) {
        self.note(Entry::Restarted);
    }

    /// Notes a reading of the whole store; all of it at once, so that nothing stands in between.
    pub fn surveyed(&self, survey: Survey) {
        let entries = survey.into_entries();
        self.on_pad(|pad| entries.into_iter().for_each(|entry| pad.note(entry)));
    }

    /// Notes that a call begins and returns its number.
    pub(super) fn called(&self, what: Call) -> u64 {
        self.on_pad(|pad| {
            let call = pad.calls;
            pad.calls += 1;
            pad.note(Entry::Called { call, what });
            call
        })
    }

    /// Notes how a call ended.
    pub(super) fn ended(&self, call: u64, reply: Result<Reply, &Error>) {
        self.note(match reply {
            Ok(reply) => Entry::Returned { call, reply },
            Err(error) => {
                let kind = error.kind();
                let unknown = matches!(
                    kind,
                    ErrorKind::Indeterminate | ErrorKind::Timeout | ErrorKind::Cancelled | ErrorKind::Bug
                );
                Entry::Failed { call, kind: format!("{kind:?}"), unknown }
            }
        });
    }

    fn on_pad<R>(&self, act: impl FnOnce(&mut Pad) -> R) -> R {
        act(&mut self.pad.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pad {
    fn note(&mut self, entry: Entry) {
        let Some(writer) = &mut self.writer else {
            self.kept.push(entry);
            return;
        };
        let written = line(&entry).and_then(|line| writer.write_all(&line).map_err(failed("history.write")));
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }
}

/// A run under way. Dropping it notes its end.
#[derive(Debug)]
pub struct Run {
    recorder: Recorder,
    job: JobId,
    epoch: Epoch,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.recorder.note(Entry::RunEnded { job: self.job, epoch: self.epoch });
    }
}
