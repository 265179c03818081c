//! Pipelines: validated graphs of jobs.
//!
//! A pipeline is not a second engine. Its steps are jobs that start [`Blocked`](crate::job::State::Blocked), and
//! settling a job unblocks its children in the same transaction of the store.

mod dag;
mod progress;
mod spec;
mod steps;

pub use progress::{PipelineProgress, PipelineStatus};
pub use spec::{Pipeline, PipelineBuilder, PipelineLimits, Step};
