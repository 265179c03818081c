//! The cache before a store: records and outputs of jobs in the memory of this process.
//!
//! What may be answered from it, and why that is right:
//!
//! | asked for | of a store that is exclusive | of one that other processes write to |
//! |---|---|---|
//! | `Latest` | only jobs that succeeded, which no transition changes any more ([`LatestReads`] allows more) | nothing |
//! | `Cached(max_age)` | everything: it is as fresh as the last acknowledged commit | what was read within `max_age`; jobs that succeeded within [`CachedStoreBuilder::final_max_age`], or from the second tier |
//! | outputs | of jobs that succeeded | of jobs that succeeded, within the same age |
//!
//! Claims and transitions pass by: they neither read nor fill it. It learns of commits through
//! [`JobStore::feed`](super::JobStore::feed), be they made through it or around it.
//!
//! # The race between a slow reader and a writer
//!
//! ```text
//! reader                         store                      writer
//!   ticket = stamp of the job's stripe
//!   get_many ─────────────────▶ version 7
//!                                version 8 ◀──────────────── exchange
//!                                feed ──▶ stamp += 1, forget the job
//!                                reply ────────────────────▶ Ok
//!   admit(version 7, ticket) : the stamp is another one → not taken
//! ```
//!
//! Stamps stand in stripes, each under a mutex. Whoever is told of a change raises the stamp and forgets the record under
//! that mutex; whoever has read a record compares the stamp with the one it saw **before** it read, and inserts, under
//! the same mutex. If the change came first, the stamps differ and the record is not taken. If the insert came first, the
//! change removes it, before the writer is answered. So nobody who starts to read after a write was acknowledged is
//! given what was before it. Another job of the stripe that moved meanwhile costs no more than an insert.
//!
//! Where the feed cannot tell (other processes, a store's own second thoughts), versions decide: of two records the one
//! with the later submission, then with the higher version, stays. A commit whose outcome nobody knows, in the whole
//! store or in a part of it, and a pruning that did not tell what went, change the **era**: records of an earlier era
//! are not given out, nor taken.

mod book;
mod jobs;
mod others;
mod records;
mod stats;
mod store;
mod weight;

pub use store::{CachedStore, CachedStoreBuilder, LatestReads};
