//! The embedded store of Hodei: one [redb](https://docs.rs/redb) file that keeps every acknowledged job across crashes.
//!
//! ```no_run
//! # fn main() -> hodei_core::Result<()> {
//! let store = hodei_store_redb::RedbStore::open("jobs.redb")?;
//! # Ok(())
//! # }
//! ```
//!
//! A write is acknowledged when it is synced to the disk. One thread writes: whatever was asked of it during a sync
//! shares the next one, so that a thousand callers wait for a few syncs and a lone caller waits for his own only. Reads
//! take a snapshot and never wait for the writer.
//!
//! What is open is indexed in memory, what has ended in the file, in the transaction of the row that an index row points
//! to; [`RedbStore::backup`] copies a store that is in use. Rows stand behind a version and a checksum:
//! damage becomes `Corrupt`, never a wrong job. A file is open in one process at a time; whoever opens it takes back
//! what a process that died was holding.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod ahead;
mod backup;
mod checkpoints;
mod codec;
mod config;
mod error;
mod front;
mod inner;
mod key;
mod lines;
mod memory;
mod migrate;
#[cfg(any(test, feature = "testkit"))]
mod older;
mod query;
mod reader;
mod recent;
mod rows;
mod shard;
mod since;
mod stats;
mod store;
mod sync;
mod table;
#[cfg(feature = "testkit")]
#[doc(hidden)]
pub mod testkit;
mod txn;
mod verify;
mod writer;

/// Runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use backup::Backup;
pub use config::{RedbStoreBuilder, Verify};
pub use store::RedbStore;
