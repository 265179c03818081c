//! The port of executors, and what a run is given.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use hodei_core::checkpoint::CheckpointStore;
use hodei_core::gateway::{Assignment, News, Peer, StopCause};
use hodei_core::job::{Failure, FailureClass, Finish, Job, Manifest, NewJob, Payload, Runs, Stream};
use hodei_core::log::LogKey;
use hodei_core::pipeline::When;
use hodei_core::store::Input;
use hodei_core::{Error, ErrorKind, Result};
use tokio::sync::Notify;

use crate::log::{LogStore, LogWriter};
use crate::progress::Progress;

/// How a run ends.
pub type RunFuture = Pin<Box<dyn Future<Output = News> + Send>>;

/// Runs one kind of work. Dropping the future it returns must end the run.
pub trait Executor: Send + Sync + fmt::Debug {
    /// Returns what it can run.
    fn runs(&self) -> Vec<Runs>;

    /// Runs a job to its end; ends it early when the run's [`StopToken`] says so.
    ///
    /// # Performance
    ///
    /// A run that ends at its first poll shares its task with others; every other one has a task to itself from then on.
    /// One that blocks its thread holds up no other run, but whatever else needs that thread.
    fn execute(self: Arc<Self>, run: Run) -> RunFuture;
}

const _: fn(&dyn Executor) = |_| ();

/// What the runs of an agent have in common.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) logs: Arc<LogStore>,
    pub(crate) checkpoints: Option<Arc<dyn CheckpointStore>>,
    pub(crate) progress: Progress,
}

/// Tells a run that it must end.
#[derive(Clone, Debug)]
pub struct StopToken(Arc<Inner>);

/// Everything of a run, in one allocation.
#[derive(Debug)]
struct Inner {
    job: Arc<Job>,
    inputs: Arc<[Input]>,
    beside: Option<Arc<[Peer]>>,
    memory: u64,
    home: Arc<Home>,
    /// 0: go on; else 1 + the cause's number.
    cause: AtomicU8,
    told: Notify,
    /// Std mutexes, each held for a push.
    spawned: Mutex<Vec<NewJob>>,
    log: Mutex<Option<LogWriter>>,
    /// What is to be done, where it had to be decoded.
    opened: OnceLock<Payload>,
}

impl StopToken {
    pub(crate) fn stop(&self, why: StopCause) {
        let number = match why {
            StopCause::Cancelled => 1,
            StopCause::LeaseLost => 2,
        };
        // A lost lease outweighs a cancellation. Release: whoever sees the cause sees what came before it.
        self.0.cause.fetch_max(number, Ordering::Release);
        self.0.told.notify_waiters();
    }

    /// Returns why the run must end, if it must.
    #[must_use]
    pub fn stopped(&self) -> Option<StopCause> {
        match self.0.cause.load(Ordering::Acquire) {
            0 => None,
            1 => Some(StopCause::Cancelled),
            _ => Some(StopCause::LeaseLost),
        }
    }

    /// Waits until the run must end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait(&self) -> StopCause {
        loop {
            // Listen first, then look: a stop in between is not missed.
            let told = self.0.told.notified();
            if let Some(why) = self.stopped() {
                return why;
            }
            told.await;
        }
    }
}

/// A job to run, and what belongs to the run.
#[derive(Debug)]
pub struct Run {
    stop: StopToken,
}

impl Run {
    pub(crate) fn new(assignment: Assignment, home: Arc<Home>) -> Self {
        let inner = Inner {
            job: assignment.job,
            inputs: assignment.inputs,
            beside: assignment.beside,
            memory: assignment.memory,
            home,
            cause: AtomicU8::new(0),
            told: Notify::new(),
            spawned: Mutex::default(),
            log: Mutex::default(),
            opened: OnceLock::new(),
        };
        Self { stop: StopToken(Arc::new(inner)) }
    }

    /// The same run, for another who works on it.
    pub(super) fn share(&self) -> Self {
        Self { stop: self.stop.clone() }
    }

    /// Returns the job, with the epoch to run it under.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.stop.0.job
    }

    /// Returns what is to be done, decoded.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        self.stop.0.opened.get().unwrap_or_else(|| self.job().spec.payload())
    }

    /// Notes what is to be done once it is decoded.
    pub(super) fn opened(&self, payload: Payload) {
        // It is decoded once, before anybody asks.
        let _ = self.stop.0.opened.set(payload);
    }

    /// Returns what the direct parents gave back.
    #[must_use]
    pub fn inputs(&self) -> &[Input] {
        &self.stop.0.inputs
    }

    /// Returns the other workers on which room was set aside for the job; those of a gang only.
    #[must_use]
    pub fn beside(&self) -> &[Peer] {
        self.stop.0.beside.as_deref().unwrap_or_default()
    }

    /// Returns how much memory was set aside for the run, in bytes; 0 where the job asks for none.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.stop.0.memory
    }

    /// Says how the run ends without having begun, when the conditions of its step do not hold.
    pub(crate) fn unwanted(&self) -> Option<News> {
        let conditions = self.job().spec.labels().get(When::LABEL)?;
        match When::all_hold(conditions, self.inputs()) {
            Ok(true) => None,
            Ok(false) => Some(News::Ended(Box::new(Finish::cancelled()))),
            Err(error) => {
                let failure = Failure::new(FailureClass::BadInput, error.to_string());
                Some(News::Ended(Box::new(Finish::failed(failure))))
            }
        }
    }

    /// Returns what tells the run to end.
    #[must_use]
    pub fn stop(&self) -> &StopToken {
        &self.stop
    }

    /// Tells how far the run is. Only what it told last counts, so it may tell as often as it likes.
    pub fn progress(&self, done: u32, total: u32) {
        self.stop.0.home.progress.tell((self.job().id, self.job().epoch), (done, total));
    }

    /// Returns where the agent keeps checkpoints.
    pub(super) fn checkpoints(&self) -> Result<&dyn CheckpointStore> {
        let missing =
            || Error::new(ErrorKind::Config, "checkpoint").with("why", "the agent has no checkpoints");
        self.stop.0.home.checkpoints.as_deref().ok_or_else(missing)
    }

    pub(crate) fn log(&self, stream: Stream) -> LogWriter {
        let (tenant, job, epoch) = (self.job().tenant.clone(), self.job().id, self.job().epoch);
        self.stop.0.home.logs.writer(LogKey { tenant, job, epoch, stream })
    }

    /// Writes to the run's own log.
    pub(super) fn say(&self, bytes: &Bytes) {
        let mut log = self.stop.0.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.get_or_insert_with(|| self.log(Stream::System)).write(bytes);
    }

    pub(super) fn take_said(&self) -> Option<LogWriter> {
        self.stop.0.log.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn spawn(&self, job: NewJob) {
        self.stop.0.spawned.lock().unwrap_or_else(PoisonError::into_inner).push(job);
    }

    /// Puts what was spawned in another form.
    pub(super) fn encoded(&self, jobs: Vec<NewJob>) {
        *self.stop.0.spawned.lock().unwrap_or_else(PoisonError::into_inner) = jobs;
    }

    pub(super) fn take_spawned(&self) -> Vec<NewJob> {
        std::mem::take(&mut self.stop.0.spawned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn manifest(logs: impl IntoIterator<Item = LogWriter>) -> Option<Arc<Manifest>> {
        let logs: Vec<_> = logs.into_iter().filter_map(LogWriter::end).collect();
        (!logs.is_empty()).then(|| Arc::new(Manifest { logs, artifacts: Vec::new() }))
    }
}
