//! Showing other numbers than the store below has.

use std::collections::HashMap;

use hodei_core::JobId;
use hodei_core::job::{Cause, Epoch, Job, State};
use hodei_core::map::JobMap;
use hodei_core::store::Change;

use super::super::bug::Bug;

/// What a job looks like from outside, where that is not what it is.
#[derive(Clone, Copy, Debug, Default)]
struct Offset {
    /// Attempts that were burnt.
    attempts: u32,
    /// Transitions that nobody sees.
    versions: u32,
    /// Epochs that nobody sees.
    epochs: u64,
}

/// The view that a planted bug gives of the jobs.
#[derive(Debug)]
pub(super) struct Disguise {
    bug: Bug,
    offsets: JobMap<Offset>,
    /// How each change that looks different, or not at all, is shown when the log is read.
    shown: HashMap<(JobId, u32), Option<Change>>,
    /// Children that the next two changes release before their time.
    released: JobMap<()>,
}

impl Disguise {
    pub(super) fn of(bug: Bug) -> Self {
        Self { bug, offsets: JobMap::default(), shown: HashMap::new(), released: JobMap::default() }
    }

    /// Notes that a child is released: what it does next below is shown as the end of its waiting.
    pub(super) fn release(&mut self, child: JobId) {
        self.released.insert(child, ());
    }

    /// Shows what was just committed.
    pub(super) fn committed(&mut self, changes: &[Change]) -> Vec<Change> {
        changes.iter().filter_map(|change| self.commit(change)).collect()
    }

    fn commit(&mut self, change: &Change) -> Option<Change> {
        let key = (change.job, change.version);
        let shown = self.look(change);
        if shown.as_ref() != Some(change) {
            self.shown.insert(key, shown.clone());
        }
        shown
    }

    fn look(&mut self, change: &Change) -> Option<Change> {
        let offset = self.offsets.entry(change.job).or_default();
        match change.cause {
            Cause::Lost if self.bug == Bug::AttemptBurntOnLoss => offset.attempts += 1,
            Cause::Preempted if self.bug == Bug::PreemptionCosts => offset.attempts += 1,
            Cause::Redriven => offset.attempts = 0,
            _ => {}
        }
        let mut shown = change.clone();
        if self.released.contains_key(&change.job) {
            if change.cause == Cause::Cancelled {
                (offset.versions, offset.epochs) = (offset.versions + 1, offset.epochs + 1);
                return None;
            }
            self.released.remove(&change.job);
            (shown.from, shown.cause) = (Some(State::Blocked), Cause::ParentsSettled);
        }
        shown.attempt += offset.attempts;
        shown.version -= offset.versions;
        shown.epoch = self.epoch(change.job, change.epoch);
        Some(shown)
    }

    /// Shows what is read back from the log.
    pub(super) fn read(&self, changes: Vec<Change>) -> Vec<Change> {
        let read = |change: Change| match self.shown.get(&(change.job, change.version)) {
            Some(shown) => shown.clone(),
            None => Some(change),
        };
        changes.into_iter().filter_map(read).collect()
    }

    /// Shows a record.
    pub(super) fn job(&self, job: &mut Job) {
        let offset = self.offsets.get(&job.id).copied().unwrap_or_default();
        job.attempt += offset.attempts;
        job.version -= offset.versions;
        job.epoch = self.epoch(job.id, job.epoch);
    }

    /// Shows an epoch of a job.
    pub(super) fn epoch(&self, job: JobId, epoch: Epoch) -> Epoch {
        if self.bug == Bug::NoEpochBump {
            return Epoch::from_number(epoch.number().min(1));
        }
        let hidden = self.offsets.get(&job).map_or(0, |offset| offset.epochs);
        Epoch::from_number(epoch.number().saturating_sub(hidden))
    }

    /// Returns the epoch below of one that was shown.
    pub(super) fn under(&self, job: JobId, shown: Epoch) -> Epoch {
        let hidden = self.offsets.get(&job).map_or(0, |offset| offset.epochs);
        Epoch::from_number(shown.number() + hidden)
    }
}
