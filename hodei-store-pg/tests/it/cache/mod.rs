//! The second tier in a real Redis: what it keeps, and that no answer changes when it is killed, frozen, flushed or
//! poisoned.

mod conformance;
mod faults;
mod rows;
mod storm;
mod world;
