//! A second tier of the cache of `hodei-core`, in Redis.
//!
//! What makes a tier harmless stands in core (`store/tiered`): rows are sealed, visits have a budget, and a breaker leaves
//! alone what keeps failing. Here is how rows lie in Redis, and how little of it is trusted.

mod redis;
mod timer;

pub use redis::{RedisTier, RedisTierBuilder};
pub use timer::TokioTimer;
