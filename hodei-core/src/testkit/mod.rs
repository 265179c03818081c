//! What tests and figures share: the job that every size, memory and codec figure is of.

pub mod history;
mod typical;

pub use typical::{typical_job, typical_spec};
