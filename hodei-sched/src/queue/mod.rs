//! Queues for dispatchers: each decides from its own, and what one hands to another goes without a lock.
//!
//! - [`Intake`] takes what others hand over: nobody who does takes a lock. In the engine those are other dispatchers.
//! - [`ReadyQueue`] is what a dispatcher decides from: strict levels, fair shares, ageing, delays, removal.
//! - [`Seat`] joins the dispatchers of a process: one that has nothing to do is handed a batch by another.
//!
//! What is submitted to the engine passes none of them on its way in: it goes to the store, where what is delayed waits too,
//! and comes into the queue of a dispatcher when that has claimed it. To take jobs in through [`Intake`], or to delay them with
//! [`ReadyQueue::push_delayed`], is for programs that use these queues without the engine.
//!
//! The order of a queue is exact. Between queues of several dispatchers it is so up to the batches: a job may be overtaken by
//! as many jobs of a lower level as the other dispatchers hold at that moment. What a dispatcher claims from a store it looks
//! up every 100 ms at most ([`SchedulerConfig::prefetch_max`](crate::machine::SchedulerConfig::prefetch_max)).

mod crowd;
mod delays;
#[cfg(test)]
mod explored;
mod held;
mod intake;
mod lend;
mod lines;
mod names;
mod ready;
mod rounds;
mod sync;
#[cfg(test)]
mod tests;
mod tree;
mod wheel;

pub use intake::{Intake, Refused};
pub use lend::{Parcel, Seat, seats};
pub use names::Handle;
pub use ready::{Ageing, ClassId, Entry, LaneId, Next, Popped, ReadyQueue, ShareId};
