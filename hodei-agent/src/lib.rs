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
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `tracing` | no | `Trace`: a span of `tracing` around every handler |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod agent;
mod checkpoint;
mod crew;
mod driver;
mod execute;
mod log;
pub mod machine;
mod nodes;
mod pace;
mod progress;
mod sys;

pub use agent::{Agent, AgentBuilder, AgentHandle, machine_capacity};
pub use checkpoint::FileCheckpoints;
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub use execute::Trace;
pub use execute::{
    Call, CatchPanic, Chunks, Context, Executor, IntoOutcome, Json, Layer, Next, Observe, Outcome,
    ProcessExecutor, Run, RunFuture, Seen, StopToken, Timeout,
};
