//! The store in memory: the model that every other store is compared with.
//!
//! Everything is under one mutex and every index changes in one function, `State::put`. It is gone with the
//! process.

mod clock;
mod limits;
mod read;
mod relocate;
mod shard;
mod state;
mod store;
mod upkeep;
mod verify;
mod write;

pub use store::{MemoryStore, MemoryStoreBuilder};
