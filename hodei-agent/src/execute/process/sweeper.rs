//! One look over `/proc` for all the jobs that ended meanwhile.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::sys::{Jobs, Swept, sweep};

/// How long a sweep looks again and again before it gives up.
const SWEEP_BOUND: Duration = Duration::from_secs(2);

/// Sweeps the jobs of one agent. A look costs a few milliseconds however many jobs it serves, so jobs that end while
/// one is under way share the next.
#[derive(Debug)]
pub(super) struct Sweeper {
    mark: Arc<str>,
    /// Jobs no sweep has begun for. A std mutex: held for a push or a take, never across an await.
    waiting: Mutex<Vec<Waiting>>,
    /// Whoever holds it sweeps.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Waiting {
    job: String,
    answer: oneshot::Sender<Outcome>,
}

/// What a sweep found of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// How many of its processes were killed.
    pub(super) killed: usize,
    /// Whether the last look found none.
    pub(super) clean: bool,
}

impl Sweeper {
    pub(super) fn new(mark: Arc<str>) -> Self {
        Self { mark, waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Kills what is left of a job, by a sweep that begins after this call.
    ///
    /// # Errors
    ///
    /// When `/proc` can not be listed.
    ///
    /// # Cancel safety
    ///
    /// A sweep under way goes on; those who waited for its answer sweep for themselves.
    pub(super) async fn sweep_job(&self, job: &str) -> io::Result<Outcome> {
        let (answer, mut answered) = oneshot::channel();
        self.lock_waiting().push(Waiting { job: job.to_owned(), answer });
        let _turn = self.turn.lock().await;
        if let Ok(outcome) = answered.try_recv() {
            return Ok(outcome);
        }
        let others = std::mem::take(&mut *self.lock_waiting());
        // This job by name as well: it is not among the waiting when a sweep that took it along was cancelled.
        let jobs: BTreeSet<_> =
            others.iter().map(|other| other.job.clone()).chain([job.to_owned()]).collect();
        let mark = Arc::clone(&self.mark);
        let swept = blocking(move || sweep(&mark, Jobs::Only(&jobs), SWEEP_BOUND)).await?;
        let outcome_of =
            |job: &str| Outcome { killed: swept.killed.get(job).copied().unwrap_or(0), clean: swept.clean };
        for other in others {
            // A run that was dropped meanwhile does not want to know.
            let _ = other.answer.send(outcome_of(&other.job));
        }
        Ok(outcome_of(job))
    }

    /// Kills every process with the agent's mark.
    pub(super) async fn sweep_all(&self) -> io::Result<Swept> {
        let mark = Arc::clone(&self.mark);
        blocking(move || sweep(&mark, Jobs::All, SWEEP_BOUND)).await
    }

    fn lock_waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<Swept> + Send + 'static) -> io::Result<Swept> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
