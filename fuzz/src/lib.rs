//! What each fuzz target does with its bytes. A target that finds nothing returns; what it finds is a panic.
//!
//! `cargo +nightly fuzz run rows` (with cargo-fuzz) lets libFuzzer choose the bytes, and
//! `cargo test --no-default-features` replays the corpora and random changes of them.
#![forbid(unsafe_code)]

mod lines;
mod operations;
mod rows;

pub use lines::lines;
pub use operations::operations;
pub use rows::{rows, seeds};
