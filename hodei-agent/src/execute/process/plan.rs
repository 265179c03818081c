//! What a run is told, and what it tells.

use std::{collections::BTreeMap, ffi::OsString, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{EndedBy, MemoryWatch, OutputSink, Stop};
use crate::sys::{Exit, Privileges, SpawnError, Usage};

/// A process to run, with its limits.
#[derive(Clone, Debug)]
pub(crate) struct CommandPlan {
    /// Names this run to the sweep, as `HODEI_JOB`. Unique per attempt, or the end of one would kill the other.
    pub(crate) job: String,
    /// The program and its arguments, given to the kernel as they are: there is no shell in between.
    pub(crate) argv: Vec<OsString>,
    /// The environment, from [`environment`](super::environment()). The run adds the two variables of the sweep.
    pub(crate) env: BTreeMap<OsString, OsString>,
    /// The working directory.
    pub(crate) cwd: PathBuf,
    /// How long it may run.
    pub(crate) timeout: Option<Duration>,
    /// How long it may take to end after SIGTERM. Zero: it is killed at once.
    pub(crate) grace: Duration,
    /// Whether programs may gain rights.
    pub(crate) privileges: Privileges,
    /// When to look for processes that left the group.
    pub(crate) escapees: Escapees,
    /// What is watched of its memory.
    pub(crate) memory: Option<MemoryWatch>,
}

/// When to look for processes that left the group, at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Escapees {
    /// After every run. One look over `/proc` serves all runs that end while it waits.
    #[default]
    Always,
    /// Only where there is a sign of them: the run had to be stopped, or its output stayed open. For trusted jobs so
    /// short that a look over `/proc` costs more than they do.
    OnSuspicion,
}

/// The strings a run hangs on.
#[derive(Clone)]
pub(crate) struct Control {
    /// The wish of whoever controls the run. When its sender is gone nobody could stop the run any more, so it is
    /// killed.
    pub(crate) stop: watch::Receiver<Stop>,
    /// Gets the output.
    pub(crate) output: Arc<dyn OutputSink>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("stop", &self.stop).finish_non_exhaustive()
    }
}

/// A run that is over: its process is reaped, its group is dead, its output delivered.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    /// How the process ended.
    pub(crate) exit: Exit,
    /// What made it end.
    pub(crate) ended_by: EndedBy,
    /// Whether something still held its output open a bounded time after the group was dead; output may be missing.
    pub(crate) leaked: bool,
    /// How many processes had left the group and were killed.
    pub(crate) escapees: usize,
    /// Whether the last look found none of its processes. Also `true` when there was no sign that called for a look.
    pub(crate) contained: bool,
    /// What it used.
    pub(crate) usage: Usage,
    /// The most memory that it was seen to have at once, in bytes; nothing where nobody could tell.
    pub(crate) memory: Option<u64>,
    /// Whether the kernel killed it because there was no memory left, as far as that can be told.
    pub(crate) starved: bool,
    /// From before the process was created until it was reaped.
    pub(crate) duration: Duration,
    /// Bytes of standard output delivered.
    pub(crate) stdout_bytes: u64,
    /// Bytes of standard error delivered.
    pub(crate) stderr_bytes: u64,
}

/// Why there is no [`Finished`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The process could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The process could not be waited for: something else in the host took its exit status.
    #[error("wait for the process")]
    Wait(#[source] io::Error),
}
