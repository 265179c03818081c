//! Pipelines: validated graphs of jobs.
//!
//! A pipeline is not a second engine. Its steps are jobs that start [`Blocked`](crate::job::State::Blocked), and
//! settling a job unblocks its children in the same transaction of the store.

mod batch;
mod dag;
mod progress;
mod spec;
mod steps;
mod when;

pub use batch::Batch;
pub use progress::{PipelineProgress, PipelineStatus};
pub use spec::{Pipeline, PipelineBuilder, PipelineLimits, Step};
pub use when::When;
