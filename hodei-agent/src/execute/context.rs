//! What a handler knows of its run.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use hodei_core::gateway::StopCause;
use hodei_core::job::{Epoch, Job, NewJob};
use hodei_core::{Error, ErrorKind, JobId, Result};

use super::executor::Run;

/// What a handler knows of its run, and the state that the application shares with its handlers.
#[derive(Debug)]
pub struct Context<S> {
    state: Arc<S>,
    run: Run,
}

impl<S> Clone for Context<S> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), run: self.run.share() }
    }
}

impl<S> Context<S> {
    pub(super) fn new(state: Arc<S>, run: Run) -> Self {
        Self { state, run }
    }

    /// Returns the state that the application shares with its handlers.
    #[must_use]
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Returns the job.
    #[must_use]
    pub fn job(&self) -> &Job {
        self.run.job()
    }

    /// Returns the number of this attempt, counted from one.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.job().attempt + 1
    }

    /// Returns the fence of this run: whoever keeps the highest one it has seen of a job can refuse a stale run's
    /// writes.
    #[must_use]
    pub fn fence(&self) -> (JobId, Epoch) {
        (self.job().id, self.job().epoch)
    }

    /// Reads what a direct parent gave back, by the parent's name.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such parent or it gave nothing back, `Invalid` when it is of another form.
    pub fn input<T: serde::de::DeserializeOwned>(&self, parent: &str) -> Result<T> {
        let missing = || Error::new(ErrorKind::NotFound, "context.input").with("parent", parent);
        let input =
            self.run.inputs().iter().find(|input| input.name.as_str() == parent).ok_or_else(missing)?;
        let bytes = input.output.inline().filter(|bytes| !bytes.is_empty()).ok_or_else(missing)?;
        serde_json::from_slice(bytes).map_err(|source| {
            Error::new(ErrorKind::Invalid, "context.input").with("parent", parent).source_error(source)
        })
    }

    /// Tells how far the run is.
    pub fn progress(&self, done: u32, total: u32) {
        self.run.progress(done, total);
    }

    /// Says whether somebody wants this run to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.run.stop().stopped().is_some()
    }

    /// Waits until somebody wants this run to end. A handler that was cancelled is dropped after a grace of a few
    /// seconds; one whose lease is lost at once.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub fn cancelled(&self) -> impl Future<Output = StopCause> + Send + use<S> {
        let stop = self.run.stop().clone();
        async move { stop.wait().await }
    }

    /// Writes a line to the run's own log.
    pub fn log(&self, line: impl AsRef<str>) {
        let mut bytes = Vec::from(line.as_ref());
        bytes.push(b'\n');
        self.run.say(&Bytes::from(bytes));
    }

    /// Submits a job together with the end of this run, when it ends well; of this job's tenant.
    pub fn spawn(&self, job: NewJob) {
        self.run.spawn(job);
    }
}
