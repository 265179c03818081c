//! The agent of Hodei: runs typed handlers and processes, keeps their logs, and reports how they ended.
//!
//! ```
//! use hodei_agent::{Agent, Context};
//! use hodei_core::job::JobKind;
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Greet { name: String }
//!
//! impl JobKind for Greet {
//!     const KIND: &'static str = "greet";
//! }
//!
//! async fn greet(_: Context<()>, job: Greet) -> String {
//!     format!("hello, {}", job.name)
//! }
//!
//! # async fn start(gateway: std::sync::Arc<dyn hodei_core::gateway::WorkerGateway>) -> hodei_core::Result<()> {
//! let agent = Agent::builder(gateway).handler(greet).start().await?;
//! agent.shutdown().await;
//! # Ok(()) }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod agent;
mod crew;
mod driver;
mod execute;
mod log;
pub mod machine;
mod sys;

pub use agent::{Agent, AgentBuilder, AgentHandle, machine_capacity};
pub use execute::{
    Context, Executor, IntoOutcome, Json, Outcome, ProcessExecutor, Run, RunFuture, StopToken,
};
