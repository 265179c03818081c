//! The PostgreSQL store of Hodei: one database that many nodes share.
//!
//! ```no_run
//! # async fn open() -> hodei_core::Result<()> {
//! let store = hodei_store_pg::PgStore::builder("postgres://hodei@localhost/jobs").connect().await?;
//! # let _ = store;
//! # Ok(())
//! # }
//! ```
//!
//! Statements are checked by the server as they are prepared, once per connection, and not by the compiler: a build of
//! this crate, or of what embeds it, needs no database, no recorded answers of one, and no environment variable.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod ask;
mod audit;
#[cfg(feature = "redis")]
mod cache;
mod checkpoint;
mod codec;
mod config;
mod coordination;
mod detached;
mod error;
mod fast;
mod inner;
mod listen;
mod names;
mod policies;
mod pool;
mod read;
mod record;
mod schema;
mod server;
mod store;
mod tell;
#[cfg(feature = "testkit")]
mod testkit;
mod verbs;
mod within;
mod work;

/// Runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use audit::{AuditPublicKey, AuditReport, Checkpoint, Finding, PgAudit, PgAuditBuilder};
#[cfg(feature = "redis")]
pub use cache::{RedisTier, RedisTierBuilder, TokioTimer};
pub use checkpoint::PgCheckpoints;
pub use config::PgStoreBuilder;
pub use schema::Migrated;
pub use store::PgStore;
