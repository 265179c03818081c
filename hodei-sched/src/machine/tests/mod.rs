//! The machine by hand: every input and every answer of the store is the test's own.

mod backfill;
mod cancel;
mod company;
mod drain;
mod exact;
mod fair;
mod fence;
mod follow;
mod found;
mod gang;
mod look;
mod loss;
mod memory;
mod order;
mod paced;
mod pipelines;
mod policy;
mod queues;
mod recovery;
mod session;
mod share;
mod standby;
mod unstarted;
mod verdict;
mod window;
mod world;
