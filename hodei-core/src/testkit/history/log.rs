//! A history, and what of it others may write.

use super::entry::{Entry, LimitSeen, LogSeen, QueueSeen};
use super::facts::{Facts, Seen};
use crate::id::JobId;
use crate::job::{Job, NewJob, State};
use crate::store::{Change, Counts, LimitUse, QueueCounts};

/// What happened, in the order in which it was noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub(super) entries: Vec<Entry>,
    pub(super) torn: bool,
}

/// A store read as a whole, when nothing else was under way.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The whole change log, in its order.
    pub changes: Vec<Change>,
    /// Every job that the store holds; nothing where only the change log was read.
    pub jobs: Option<Vec<Job>>,
    /// How many jobs the store counts in each state.
    pub counts: Option<Counts>,
    /// How many jobs of each queue the store counts; nothing where that was not read.
    pub queues: Option<Vec<QueueCounts>>,
    /// The limits that are set, and their use.
    pub limits: Vec<LimitUse>,
}

impl History {
    /// Makes a history of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a history of entries.
    #[must_use]
    pub fn of(entries: Vec<Entry>) -> Self {
        Self { entries, torn: false }
    }

    /// Returns the entries in their order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Says whether the last line was not written to its end when it was read, and was left out.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Adds that a job was about to be submitted by somebody whose calls are not recorded.
    ///
    /// When a history knows of submissions, by this or by recorded calls, a job that nobody submitted is a violation.
    pub fn attempted(&mut self, job: &NewJob) {
        self.push(Entry::Attempted { job: Facts::of_new(job) });
    }

    /// Adds that a submission was acknowledged to somebody whose calls are not recorded.
    pub fn acknowledged(&mut self, job: JobId) {
        self.push(Entry::Acknowledged { job });
    }

    /// Adds that the process died and its store was opened again.
    pub fn restarted(&mut self) {
        self.push(Entry::Restarted);
    }

    /// Adds a reading of the whole store.
    pub fn surveyed(&mut self, survey: Survey) {
        self.entries.extend(survey.into_entries());
    }

    /// Adds what a later process recorded of the same store, after the death of the one before.
    pub fn continued(&mut self, later: Self) {
        let last = self.entries.iter().filter_map(Entry::call).max();
        let first = last.map_or(0, |last| last + 1);
        self.push(Entry::Restarted);
        self.entries.extend(later.entries.into_iter().map(|entry| entry.renumbered(first)));
        self.torn |= later.torn;
    }
}

impl Survey {
    /// Lists the entries that say it.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.changes.len() + 2);
        entries.push(Entry::SurveyBegan);
        entries.extend(self.changes.into_iter().map(|change| Entry::Logged { change }));
        let jobs = self.jobs.as_deref();
        entries.extend(jobs.unwrap_or_default().iter().map(|job| Entry::Held { seen: Seen::from(job) }));
        entries.extend(jobs.unwrap_or_default().iter().flat_map(log_ends));
        entries.push(Entry::SurveyEnded {
            held: jobs.map(|jobs| jobs.len() as u64),
            counts: self.counts.map(numbers),
            queues: self.queues.map(|queues| queues.iter().map(QueueSeen::from).collect()),
            limits: self.limits.iter().map(LimitSeen::from).collect(),
        });
        entries
    }
}

impl Entry {
    /// Returns the number of the call that it is of.
    #[must_use]
    pub const fn call(&self) -> Option<u64> {
        match self {
            Self::Called { call, .. } | Self::Returned { call, .. } | Self::Failed { call, .. } => {
                Some(*call)
            }
            _ => None,
        }
    }

    fn renumbered(mut self, by: u64) -> Self {
        if let Self::Called { call, .. } | Self::Returned { call, .. } | Self::Failed { call, .. } = &mut self
        {
            *call += by;
        }
        self
    }
}

/// What a job that succeeded has of the logs of its last run.
fn log_ends(job: &Job) -> impl Iterator<Item = Entry> + '_ {
    let settled = job.settled.as_deref().filter(|_| job.state == State::Succeeded);
    let logs = settled.and_then(|settled| settled.manifest.as_deref()).map(|manifest| &manifest.logs);
    logs.into_iter().flatten().map(|end| Entry::LogEnded {
        log: LogSeen { job: job.id, epoch: job.epoch, stream: end.stream },
        kept: end.kept,
        dropped: end.dropped,
    })
}

/// Returns the number of each state, in the order of their numbers.
pub(super) fn numbers(counts: Counts) -> Vec<u64> {
    State::ALL.into_iter().map(|state| counts.of(state)).collect()
}
