//! Jobs that are processes: started, read, stopped and cleaned up after, with nothing of theirs left running.
//!
//! ```text
//!  Processes::run ─┬─ supervise   exit | timeout | stop ─▶ ladder: TERM ── grace ──▶ KILL, always to the whole group
//!                  │                └─ leader is a zombie: kill the group ─▶ sweep escapees ─▶ reap ─▶ "dead"
//!                  ├─ drain stdout ─▶ OutputSink      ends at end of file, or a bounded time after "dead"
//!                  └─ drain stderr ─▶ OutputSink
//! ```
//!
//! The three run side by side in one task, so a sink that is slow slows the job (its pipe fills up) and never the
//! ladder. What a job prints is data: nothing in it is interpreted.
//!
//! A killed agent takes each job's leader with it (the death signal); whatever the leader had started is found by
//! its mark when the agent starts again: call [`Processes::sweep_all`] before the first job.

mod drain;
mod environment;
mod ladder;
mod memory;
mod plan;
mod run;
mod supervise;
mod sweeper;
#[cfg(test)]
mod tests;

pub(crate) use drain::{OutputSink, Stream};
pub(crate) use environment::{INHERITED_BY_DEFAULT, environment};
pub(crate) use ladder::{EndedBy, Stop};
pub(crate) use memory::MemoryWatch;
pub(crate) use plan::{CommandPlan, Control, Escapees, Finished, RunError};
pub(crate) use run::Processes;
