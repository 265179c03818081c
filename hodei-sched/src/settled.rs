//! Who waits for which job to end.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hodei_core::JobId;
use hodei_core::store::Change;
use tokio::sync::oneshot;

/// Callers that wait for jobs to end, told by the changes that pass.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    /// A std mutex: held for a look-up, never across an await.
    waiting: Mutex<HashMap<JobId, Vec<oneshot::Sender<()>>>>,
}

impl Waiters {
    /// Waits for a job. Ask the store after this call, not before: what ends in between is told.
    pub(crate) fn wait(&self, job: JobId) -> Waiting<'_> {
        let (told, end) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry(job).or_default().push(told);
        Waiting { of: self, job, end }
    }

    /// Tells those who wait for the jobs that ended.
    pub(crate) fn tell(&self, changes: &[Change]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            return;
        }
        for change in changes.iter().filter(|change| change.to.is_terminal()) {
            for sender in waiting.remove(&change.job).into_iter().flatten() {
                // Whoever no longer waits has no use for it.
                let _ = sender.send(());
            }
        }
    }

    /// Forgets a job whose waiters have gone.
    fn forget(&self, job: JobId) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(senders) = waiting.get_mut(&job) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                waiting.remove(&job);
            }
        }
    }
}

/// Somebody who waits for the end of a job; once dropped, nothing is kept of it.
#[derive(Debug)]
pub(crate) struct Waiting<'w> {
    of: &'w Waiters,
    job: JobId,
    end: oneshot::Receiver<()>,
}

impl Waiting<'_> {
    /// Waits until the job is told to have ended.
    pub(crate) async fn told(&mut self) {
        // Told or not, the store has the last word.
        let _ = (&mut self.end).await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.end.close();
        self.of.forget(self.job);
    }
}
