//! How far a pipeline is.

use crate::job::{JobSummary, State};
use crate::store::Counts;

/// Where a pipeline is, as its steps tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineStatus {
    /// Some step has not ended, or no step is there yet.
    Running,
    /// Every step succeeded.
    Succeeded,
    /// Every step has ended and one of them failed.
    Failed,
    /// Every step has ended, none failed and one was cancelled.
    Cancelled,
}

/// How many steps of a pipeline are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineProgress(Counts);

impl PipelineProgress {
    /// Counts the steps of a pipeline.
    #[must_use]
    pub fn of(steps: &[JobSummary]) -> Self {
        let mut counts = Counts::default();
        steps.iter().for_each(|step| counts.moved(None, Some(step.state)));
        Self(counts)
    }

    /// Returns how many steps are in each state.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.0
    }

    /// Returns where the pipeline is.
    #[must_use]
    pub fn status(&self) -> PipelineStatus {
        if self.0.open() > 0 || self.0.total() == 0 {
            PipelineStatus::Running
        } else if self.0.of(State::Failed) > 0 {
            PipelineStatus::Failed
        } else if self.0.of(State::Cancelled) > 0 {
            PipelineStatus::Cancelled
        } else {
            PipelineStatus::Succeeded
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{JobId, Name, Tenant};
    use crate::job::{Cause, Epoch, Priority};
    use crate::time::Timestamp;

    fn summary(state: State) -> JobSummary {
        let tenant = Tenant::default();
        JobSummary {
            id: JobId::from_parts(1, tenant.slot(), 0),
            tenant,
            name: Name::literal("a"),
            queue: Name::literal("default"),
            priority: Priority::DEFAULT,
            pipeline: None,
            state,
            cause: Cause::Submitted,
            cancel_requested: false,
            version: 1,
            attempt: 0,
            epoch: Epoch::from_number(0),
            created_at: Timestamp::EPOCH,
            eligible_at: Timestamp::EPOCH,
            moved_at: Timestamp::EPOCH,
            started_at: None,
        }
    }

    #[test]
    fn the_status_is_that_of_the_steps() {
        use State::{Blocked, Cancelled, Failed, Pending, Running, Scheduled, Succeeded};
        let cases: [(&[State], PipelineStatus); 11] = [
            (&[], PipelineStatus::Running),
            (&[Blocked], PipelineStatus::Running),
            (&[Pending], PipelineStatus::Running),
            (&[Scheduled], PipelineStatus::Running),
            (&[Running], PipelineStatus::Running),
            (&[Succeeded, Running], PipelineStatus::Running),
            (&[Failed, Blocked], PipelineStatus::Running),
            (&[Succeeded, Succeeded], PipelineStatus::Succeeded),
            (&[Succeeded, Failed, Cancelled], PipelineStatus::Failed),
            (&[Succeeded, Cancelled], PipelineStatus::Cancelled),
            (&[Cancelled], PipelineStatus::Cancelled),
        ];
        for (states, expected) in cases {
            let steps: Vec<JobSummary> = states.iter().copied().map(summary).collect();
            let progress = PipelineProgress::of(&steps);
            assert_eq!(progress.status(), expected, "{states:?}");
            for state in State::ALL {
                let count = states.iter().filter(|s| **s == state).count() as u64;
                assert_eq!(progress.counts().of(state), count, "{states:?} {state:?}");
            }
        }
    }
}
