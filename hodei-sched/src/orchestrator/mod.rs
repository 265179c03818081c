//! What an application holds: the builder, the handle, and the node's end of the link to agents.

mod builder;
mod explain;
mod gateway;
mod handle;

pub use builder::OrchestratorBuilder;
pub use explain::Explanation;
pub use handle::Orchestrator;
