//! A second tier behind the cache of a process: the records of jobs that succeeded, shared by all nodes.
//!
//! A [`CacheTier`] (a Redis, say) can be flushed, slow, dead or poisoned without changing an answer:
//!
//! - only records of jobs that **succeeded** go there, which no transition changes any more, so an old row is as right
//!   as a new one;
//! - a row is **sealed** with a keyed hash over its job's id, its expiry and its bytes: what the tier made up, mixed up
//!   or cut off is not opened, counts as a miss, and is removed;
//! - the visits of a read have **one budget** ([`TierOptions::budget`]) together: one that takes a whole budget has failed, what
//!   is left for others is theirs, and a [`Breaker`] stops visiting a tier that keeps failing.
//!
//! Rows are JSON inside the seal. Core knows no binary codec, a tier is read a thousand times less often than the cache
//! before it, and a row must be readable by another version of Hodei on another node: names of fields age better than
//! their order. What a version does not understand is a miss.

mod breaker;
mod memory;
mod row;
mod tier;
mod visit;

pub use breaker::{Breaker, BreakerOptions};
pub use memory::MemoryTier;
pub use tier::{CacheTier, TierOptions, TierRow, Timer};
pub(super) use visit::{Allowance, Tier};
