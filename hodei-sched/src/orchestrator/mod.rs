//! What an application holds: the builder, the handle, and the node's end of the link to agents.

mod audit;
mod builder;
mod counts;
mod dead_letters;
mod explain;
mod figures;
mod gateway;
mod handle;
mod pipelines;
mod policies;
mod snapshot;
mod tasks;

pub use audit::AuditPolicy;
#[cfg(feature = "cron")]
pub(crate) use audit::{Asked, Auditor};
pub use builder::OrchestratorBuilder;
pub use dead_letters::DeadLetters;
pub use explain::Explanation;
pub use handle::Orchestrator;
