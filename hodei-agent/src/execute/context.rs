//! What a handler knows of its run.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use hodei_core::gateway::{Peer, StopCause};
use hodei_core::job::{Epoch, Job, JobSpec, NewJob, Parent, Payload, Requires};
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

    /// Returns what is to be done, decoded; the spec of the job has it as it is stored.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        self.run.payload()
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

    /// Returns the other workers on which room was set aside for this job: those of a gang
    /// ([`Resources::workers`](hodei_core::job::Resources::workers)) only. Commands find their names in `HODEI_BESIDE`, with
    /// commas between.
    #[must_use]
    pub fn beside(&self) -> &[Peer] {
        self.run.beside()
    }

    /// Returns how much memory was set aside for this run, in bytes: what the job asks for, or more where runs of it or of its
    /// kind ran out of that; 0 where it asks for none. Commands find it in `HODEI_MEMORY`.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.run.memory()
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

    /// Reads what every direct parent of a name gave back, in the order of the parents: the results of a fan-out. Parents
    /// that did not succeed, or gave nothing back, are left out.
    ///
    /// # Errors
    ///
    /// `Invalid` when one is of another form.
    pub fn inputs<T: serde::de::DeserializeOwned>(&self, parents: &str) -> Result<Vec<T>> {
        let named = self.run.inputs().iter().filter(|input| input.name.as_str() == parents);
        let given = named.filter_map(|input| input.output.inline()).filter(|bytes| !bytes.is_empty());
        let read = given.map(|bytes| {
            serde_json::from_slice(bytes).map_err(|source| {
                Error::new(ErrorKind::Invalid, "context.inputs").with("parents", parents).source_error(source)
            })
        });
        read.collect()
    }

    /// Adds a step to the pipeline of this job, when the run ends well, and returns its id. It runs after this job and
    /// after those that it needs, and sees what all of them gave back. So a step fans out over a list that it has just
    /// made, and lets another step gather what comes of it.
    ///
    /// Steps that were there before do not wait for it: what must follow it is added too.
    pub fn add_step(&self, spec: impl Into<Arc<JobSpec>>, needs: impl IntoIterator<Item = JobId>) -> JobId {
        let parent = |id| Parent { id, requires: Requires::Success };
        let own = self.job().id;
        let parents = std::iter::once(own).chain(needs.into_iter().filter(|id| *id != own)).map(parent);
        let job = NewJob::of(self.job().tenant.clone(), spec).after(parents).in_pipeline_with(self.job());
        let id = job.id;
        self.spawn(job);
        id
    }

    /// Reads what the last run saved, this one's earlier saves included; nothing where none did. From then on no earlier run
    /// saves anything.
    ///
    /// # Errors
    ///
    /// `LeaseLost` when a later run has begun: end this one. `Invalid` when what was saved is of another form, `Config` when
    /// the agent has no checkpoints; else what their store says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn checkpoint<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>>
    where
        S: Send + Sync,
    {
        let job = self.job();
        let saved = self.run.checkpoints()?.open(&job.tenant, job.id, job.epoch).await?;
        let read = |bytes: Bytes| {
            serde_json::from_slice(&bytes)
                .map_err(|source| Error::new(ErrorKind::Invalid, "context.checkpoint").source_error(source))
        };
        saved.map(read).transpose()
    }

    /// Saves how far the run has come, as JSON of at most [`CHECKPOINT_MAX`](hodei_core::checkpoint::CHECKPOINT_MAX) bytes,
    /// for the run that follows if this one does not end well.
    ///
    /// # Errors
    ///
    /// As [`Context::checkpoint`]; `LimitExceeded` when it is too large.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have saved it.
    pub async fn save_checkpoint<T: serde::Serialize + Sync>(&self, progress: &T) -> Result<()>
    where
        S: Send + Sync,
    {
        let job = self.job();
        let bytes = serde_json::to_vec(progress).map_err(|source| {
            Error::new(ErrorKind::Invalid, "context.save_checkpoint").source_error(source)
        })?;
        self.run.checkpoints()?.save(&job.tenant, job.id, job.epoch, bytes.into()).await
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
