//! The store of a simulation: the one in memory, with a bug planted between it and whoever calls.

mod disguise;
mod harm;
mod store;

pub(super) use store::Planted;
