//! Holding a history to the guarantees: one file per group of invariants, all over the same [`book::Book`].

mod answers;
mod book;
mod cancel;
mod checker;
mod duties;
mod limits;
mod logs;
mod order;
mod parents;
mod path;
mod rates;
mod reads;
mod runs;
mod secrets;
mod stream;
mod submission;
mod tenants;
mod totals;

pub use checker::{Bounds, check, check_within};
