//! The machine that decides: no clock, no I/O, no spawn.
//!
//! The driver tells it what happened by [`Scheduler::handle`], carries out what [`Scheduler::poll_effect`] returns
//! until it returns nothing, and comes back at [`Scheduler::poll_timeout`] at the latest. Calling it too often does
//! no harm.

mod agents;
mod backfill;
mod behind;
mod buffer;
mod deal;
mod explain;
mod fence;
mod follow;
mod kinds;
mod learned;
mod look;
mod memory;
mod picks;
pub mod placement;
mod preempt;
mod rivals;
mod scheduler;
mod session;
mod sessions;
mod share;
mod snapshot;
mod standby;
mod store;
#[cfg(test)]
mod tests;
mod turns;
mod unstarted;
mod verdict;

pub(crate) use agents::worker_key;
pub use explain::Why;
pub(crate) use fence::trusted;
pub use scheduler::{Effect, Input, Policy, Scheduler, SchedulerConfig, Ticket};
pub use snapshot::{Claims, ClassLoad, QueueLoad, Snapshot, StoreLoad, WorkerLoad};
pub use standby::Standby;
