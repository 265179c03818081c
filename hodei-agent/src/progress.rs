//! How far the runs say that they are, until the agent's loop takes it in.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hodei_core::JobId;
use hodei_core::job::Epoch;
use hodei_core::map::IdState;
use tokio::sync::Notify;

/// Of how many runs the progress is kept until the loop looks: as many as an agent may have. What others tell beyond that is
/// dropped; they will tell more.
const RUNS_MAX: usize = 65_536;

/// Steps done and steps in all.
type Steps = (u32, u32);
type Latest = HashMap<(JobId, Epoch), Steps, IdState>;

/// The latest progress of each run that has told any since the loop looked. However fast a run tells, it takes one place.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// A std mutex, held for an insertion or a swap.
    latest: Mutex<Latest>,
    told: Notify,
}

impl Progress {
    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how far a run is, in the place of what it told before.
    pub(crate) fn tell(&self, run: (JobId, Epoch), steps: Steps) {
        let mut latest = self.latest();
        let first = latest.is_empty();
        if latest.len() < RUNS_MAX || latest.contains_key(&run) {
            latest.insert(run, steps);
        }
        drop(latest);
        if first {
            self.told.notify_one();
        }
    }

    /// Waits until there may be something to take.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was told meanwhile is told to the next call.
    pub(crate) async fn told(&self) {
        self.told.notified().await;
    }

    /// Takes what was told.
    pub(crate) fn take(&self) -> Latest {
        let mut latest = self.latest();
        if latest.is_empty() { Latest::default() } else { std::mem::take(&mut *latest) }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use hodei_core::Tenant;

    use super::*;

    fn run(n: usize) -> (JobId, Epoch) {
        let n = u64::try_from(n).expect("a small number");
        (JobId::from_parts(n, Tenant::default().slot(), 0), Epoch::from_number(1))
    }

    #[test]
    fn a_run_takes_one_place_however_often_it_tells() {
        let progress = Progress::default();
        (0..1_000_000).for_each(|step| progress.tell(run(1), (step, 1_000_000)));
        assert_eq!(progress.told().now_or_never(), Some(()));
        let latest = progress.take();
        assert_eq!((latest.len(), latest[&run(1)]), (1, (999_999, 1_000_000)));
        assert!(progress.take().is_empty() && progress.told().now_or_never().is_none());
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let progress = Progress::default();
        (0..RUNS_MAX + 10).for_each(|n| progress.tell(run(n), (1, 2)));
        progress.tell(run(0), (2, 2));
        let latest = progress.take();
        assert_eq!(
            (latest.len(), latest[&run(0)]),
            (RUNS_MAX, (2, 2)),
            "those that are known may go on telling"
        );
    }
}
