//! How a run ended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::new::NewJob;
use crate::id::Name;

/// The largest output kept in the job's row, in bytes; larger ones are blobs.
pub const OUTPUT_INLINE_MAX: usize = 64 * 1024;
/// The longest message of a failure, in bytes; longer ones are cut.
pub const FAILURE_MESSAGE_MAX: usize = 4 * 1024;

/// What stands before and behind the memory that a run had, in the message of its failure.
const HAVING: &str = "with ";
const BYTES: &str = " bytes of memory: ";

/// What a failure was, as far as retry policies tell failures apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum FailureClass {
    /// The handler returned an error.
    Error = 0,
    /// The handler panicked.
    Panic = 1,
    /// The run took longer than its timeout.
    Timeout = 2,
    /// The command ended with a code other than zero.
    Exit = 3,
    /// A signal ended the command.
    Signal = 4,
    /// The command could not be started.
    Spawn = 5,
    /// The arguments cannot be decoded, or no such handler is there; final by default.
    BadInput = 6,
    /// The output is missing, malformed or too large; final by default.
    BadOutput = 7,
    /// A needed parent failed.
    Parent = 8,
    /// The deadline passed before the job was claimed.
    Deadline = 9,
    /// Owners died under it too often.
    LostTooOften = 10,
    /// The handler said that no retry can help.
    Fatal = 11,
    /// The place to work in was full or could not be made.
    Workspace = 12,
    /// The run needed more memory than was set aside for it, or than the machine had: somebody who knows said so, the kernel,
    /// the agent or the handler. A job that asks for memory asks for more of it in its next run.
    OutOfMemory = 13,
}

impl FailureClass {
    /// Every class, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Error,
        Self::Panic,
        Self::Timeout,
        Self::Exit,
        Self::Signal,
        Self::Spawn,
        Self::BadInput,
        Self::BadOutput,
        Self::Parent,
        Self::Deadline,
        Self::LostTooOften,
        Self::Fatal,
        Self::Workspace,
        Self::OutOfMemory,
    ];

    /// Says whether a policy that does not mention the class retries it.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Error
                | Self::Panic
                | Self::Timeout
                | Self::Exit
                | Self::Signal
                | Self::Spawn
                | Self::Workspace
                | Self::OutOfMemory
        )
    }

    /// Returns the class of a number, as stored rows keep it.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Exit {
    /// With a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Why a run did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure it was.
    pub class: FailureClass,
    /// What happened, for people; at most [`FAILURE_MESSAGE_MAX`] bytes, secrets masked.
    pub message: Arc<str>,
    /// How the process ended, where there was one.
    pub exit: Option<Exit>,
}

impl Failure {
    /// Makes a failure; a message that is too long is cut.
    #[must_use]
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.len() > FAILURE_MESSAGE_MAX {
            message.truncate(message.floor_char_boundary(FAILURE_MESSAGE_MAX));
        }
        Self { class, message: message.into(), exit: None }
    }

    /// Says in front of the message how much memory the run had, in bytes; read again by [`Failure::memory`].
    #[must_use]
    pub fn having(self, memory: u64) -> Self {
        let exit = self.exit;
        let failure = Self::new(self.class, format!("{HAVING}{memory}{BYTES}{}", self.message));
        Self { exit, ..failure }
    }

    /// Returns how much memory the run had, in bytes, where its message says so: of runs that ran out of it, and of those that had
    /// more than their job asks for. That is how whoever runs the job next knows.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let said = self.message.strip_prefix(HAVING)?;
        said.split_once(BYTES)?.0.parse().ok()
    }

    /// Adds how the process ended.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = Some(exit);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Well.
    Succeeded,
    /// Badly.
    Failed(Failure),
    /// Somebody cancelled it.
    Cancelled,
}

/// Where bytes are that are too large for a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// The key in the blob store.
    pub key: Arc<str>,
    /// The length, in bytes.
    pub len: u64,
    /// The BLAKE3 hash of the bytes.
    pub digest: [u8; 32],
}

/// What a run gave back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// The bytes themselves, at most [`OUTPUT_INLINE_MAX`].
    Inline(Bytes),
    /// Where they are.
    Blob(BlobRef),
}

impl Output {
    /// Nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self::Inline(Bytes::new())
    }

    /// Returns the bytes where they are inline.
    #[must_use]
    pub fn inline(&self) -> Option<&Bytes> {
        match self {
            Self::Inline(bytes) => Some(bytes),
            Self::Blob(_) => None,
        }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self::none()
    }
}

/// Which of a run's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Stream {
    /// What it wrote to its standard output.
    Stdout = 0,
    /// What it wrote to its standard error.
    Stderr = 1,
    /// What Hodei and the handler say about the run.
    System = 2,
}

impl Stream {
    /// Every stream, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::System];
}

/// What a stream of logs amounted to when the run ended: received + dropped = written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// Which stream.
    pub stream: Stream,
    /// How many bytes are kept.
    pub kept: u64,
    /// How many bytes were dropped because a limit was reached.
    pub dropped: u64,
    /// The CRC32 of the kept bytes.
    pub crc32: u32,
}

/// A file that a run left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactEntry {
    /// Its name.
    pub name: Name,
    /// Where it is.
    pub blob: BlobRef,
}

/// Everything a run left behind beside its output, committed with its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The ends of its log streams.
    pub logs: Vec<LogEnd>,
    /// Its artifacts.
    pub artifacts: Vec<ArtifactEntry>,
}

/// The end of a run, applied in one transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// How it ended.
    pub outcome: Outcome,
    /// What it gave back.
    pub output: Output,
    /// What else it left behind.
    pub manifest: Option<Arc<Manifest>>,
    /// Jobs to submit in the same transaction, in the same tenant; one that would not be new there is left out.
    pub spawn: Vec<NewJob>,
    /// How long the run took, as whoever ran it measured; tells when it began where its start was not told before.
    pub ran: Duration,
    /// The most memory that the run was seen to have at once, in bytes, where that was measured. No store keeps it.
    pub memory: Option<u64>,
}

impl Finish {
    fn of(outcome: Outcome, output: Output) -> Self {
        Self { outcome, output, manifest: None, spawn: Vec::new(), ran: Duration::ZERO, memory: None }
    }

    /// A run that ended well, with an output.
    #[must_use]
    pub fn succeeded(output: Output) -> Self {
        Self::of(Outcome::Succeeded, output)
    }

    /// A run that ended badly.
    #[must_use]
    pub fn failed(failure: Failure) -> Self {
        Self::of(Outcome::Failed(failure), Output::none())
    }

    /// A run that was cancelled.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::of(Outcome::Cancelled, Output::none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_on_a_character() {
        let failure = Failure::new(FailureClass::Error, "ñ".repeat(FAILURE_MESSAGE_MAX));
        assert_eq!(failure.message.len(), FAILURE_MESSAGE_MAX);
    }

    #[test]
    fn what_a_run_had_comes_back_from_the_message_of_its_failure() {
        let out = |message: String| Failure::new(FailureClass::OutOfMemory, message).exit(Exit::Signal(9));
        let told = out("killed".to_owned()).having(1 << 30);
        assert_eq!(told.to_string(), "with 1073741824 bytes of memory: killed");
        assert_eq!((told.memory(), told.exit), (Some(1 << 30), Some(Exit::Signal(9))));
        // Whoever writes it himself is overruled.
        assert_eq!(told.having(7).memory(), Some(7));
        assert_eq!(out("ñ".repeat(FAILURE_MESSAGE_MAX)).having(u64::MAX).memory(), Some(u64::MAX));
        for none in [out("with bytes of memory: ".to_owned()), out("with x bytes of memory: ".to_owned())] {
            assert_eq!(none.memory(), None);
        }
        assert_eq!(Failure::new(FailureClass::Error, "no").having(1).memory(), Some(1));
    }

    #[test]
    fn numbers_come_back() {
        for (n, class) in FailureClass::ALL.into_iter().enumerate() {
            assert_eq!((FailureClass::from_number(class as u8), class as usize), (Some(class), n));
        }
    }
}
