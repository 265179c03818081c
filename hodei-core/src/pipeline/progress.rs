//! How far a pipeline is.

use crate::job::{JobSummary, State};
use crate::store::Counts;

/// Where a pipeline is, as its steps tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineStatus {
    /// Some step has not ended.
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
        if self.0.open() > 0 {
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
