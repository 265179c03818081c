//! The store conformance suite: what every store must do.
//!
//! It is the specification of a store: what it does not hold a store to, no store promises. Every [`Property`] runs
//! against an empty store that a [`Fixture`] opens, on a clock that the fixture moves; afterwards an audit compares
//! everything that the store tells of itself (indexes, counts, limits, the change log). Beside the properties,
//! [`compare_with_model`] runs random operations against the store and against a model that keeps plain lists.
//!
//! A crate with a store needs one line, in a test target of its own:
//!
//! ```
//! use hodei_core::store::MemoryStore;
//! use hodei_core::testkit::conformance::Volatile;
//!
//! hodei_core::store_conformance!(Volatile::new(|_, clock| Some(MemoryStore::with_clock(clock))));
//! # fn main() {}
//! ```
//!
//! The suite is no stable part of the API: it grows with the contract.

mod attempts;
mod audit;
mod cancel;
mod changes;
mod checkpoints;
mod claim;
mod env;
mod feeds;
mod fencing;
mod fixture;
mod jobs;
mod lanes;
mod limits;
mod model;
mod owners;
mod policies;
mod properties;
mod prune;
mod query;
mod queue_counts;
mod rates;
mod reads;
mod reap;
mod redrive;
mod reopen;
mod schedules;
mod sequences;
mod settle;
mod submit;
mod tenants;
mod terms;
mod unique;
mod wakeups;
mod wide_limits;

pub use checkpoints::hold_checkpoints;
pub use env::{Env, Run};
pub use fixture::{Fixture, START, Setup, Volatile};
pub use model::{compare_with_model, compare_with_model_by};
pub use properties::{PROPERTIES, Property, hold};
