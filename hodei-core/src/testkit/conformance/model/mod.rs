//! Random operations, done by a store and by a model that keeps plain lists.
//!
//! The model is written without a look at any store: it scans where stores have indexes. What it shares with them are
//! the rules of [`crate::job::rules`], which decide every transition.

mod generate;
mod op;
mod random;
mod reference;
mod run;
mod upkeep;

pub use run::{compare_with_model, compare_with_model_by};
