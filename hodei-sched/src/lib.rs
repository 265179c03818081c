//! The scheduler and orchestrator of Hodei.
//!
//! [`Orchestrator`] is what an application holds: it submits, cancels, waits and asks through it. Behind it one
//! driver task feeds a pure state machine, [`machine::Scheduler`], with what happened and carries out what the
//! machine wants: ask the store for ready lanes, settle and claim in one exchange, tell agents what to run.
//!
//! ```
//! use hodei_core::job::{JobSpec, NewJob};
//! use hodei_sched::Orchestrator;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> hodei_core::Result<()> {
//! let orchestrator = Orchestrator::builder().start().await?; // in memory, without a bus
//! let job = orchestrator.submit(NewJob::new(JobSpec::command(["true"]).build()?)).await?;
//! println!("{}", orchestrator.explain(job).await?); // no worker is connected
//! orchestrator.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `cron` | no | `cron`: schedules with time zones, missed times and jitter |
//! | `kube` | no | `autoscale::KubeScale`: the replicas of a Kubernetes workload |
//! | `processes` | no | `autoscale::LocalProcesses`: agents as processes of this machine |
//! | `sim` | no | `sim`: the whole engine in virtual time, with faults, from one seed |
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod autoscale;
pub mod balance;
#[cfg(feature = "cron")]
#[cfg_attr(docsrs, doc(cfg(feature = "cron")))]
pub mod cron;
mod driver;
mod herald;
mod lending;
pub mod machine;
mod maintain;
mod orchestrator;
pub mod queue;
mod settled;
#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod sim;
mod standby;
mod sweep;

/// Runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use orchestrator::{AuditPolicy, DeadLetters, Explanation, Orchestrator, OrchestratorBuilder};
