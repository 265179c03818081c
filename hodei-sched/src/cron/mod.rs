//! Schedules: work that comes again and again, by a cron expression in a time zone.
//!
//! The store keeps a schedule as a row whose rule it does not read, and fences its firing: each pair of a schedule and a
//! fire time gives one job, whoever asks and however often. What is here reads the rules. [`CronRule`] says when, the
//! plan decides which times of the past still fire, and the duty, led by one node at a time under a term, fires them by
//! the clock of the store.
//!
//! ```
//! use hodei_core::job::JobSpec;
//! use hodei_sched::Orchestrator;
//! use hodei_sched::cron::{CronJob, CronRule, Misfire};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> hodei_core::Result<()> {
//! let report = JobSpec::command(["make-report"]).build()?;
//! let rule = CronRule::new("30 8 * * MON-FRI").zone("Europe/Madrid").misfire(Misfire::CatchUp { at_most: 3 });
//! let orchestrator = Orchestrator::builder().cron(CronJob::new("report", rule, report)).start().await?;
//! let listed = orchestrator.schedules().list(&hodei_core::store::Scope::All).await?;
//! assert!(listed[0].next.is_some());
//! orchestrator.shutdown().await;
//! # Ok(()) }
//! ```

mod duty;
mod plan;
mod rule;
mod schedules;
mod times;

#[cfg(feature = "sim")]
pub(crate) use duty::Duty;
pub(crate) use duty::{Bell, run};
pub use rule::{CronRule, Misfire};
pub use schedules::{CronJob, Listed, Schedules};
#[cfg(feature = "sim")]
pub(crate) use times::Times;
