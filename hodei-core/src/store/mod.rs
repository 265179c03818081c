//! The store: the truth about every job.
//!
//! Three object-safe ports, [`JobStore`], [`Coordination`] and [`Policies`]; [`Store`] is all of them. Writes take
//! owned `Vec`s, since writer threads and group commits need `'static` data; a refusal is a value per item and `Err`
//! means that the whole batch failed. **There is no unfenced mutation**: whoever changes a leased job names the epoch
//! under which it holds it.
//!
//! Stores choose nothing. Inside a transaction they apply the functions of [`crate::job::rules`], and write the
//! [`Change`]s that these return in the same transaction.

mod cache_stats;
#[cfg(feature = "cache")]
mod cached;
mod change;
mod coordination;
mod exchange;
mod feed;
mod lane;
#[cfg(feature = "lines")]
mod lines;
mod memory;
mod policy;
mod port;
mod query;
mod queue_counts;
mod rate;
mod shard;
mod sharded;
#[cfg(feature = "cache")]
mod tiered;
mod together;
mod wakeup;

pub use cache_stats::CacheStats;
#[cfg(feature = "cache")]
#[cfg_attr(docsrs, doc(cfg(feature = "cache")))]
pub use cached::{CachedStore, CachedStoreBuilder, LatestReads};
pub use change::{Change, ChangeLog, ChangePage};
pub use coordination::{Beat, Coordination, Living, OWNER_TTL_MIN, Round, Rounded, Term, round_by_verbs};
pub use exchange::{Applied, Claimed, Exchange, Exchanged, Input, Move, Transition};
pub use feed::{ChangeSink, Feed, Feeds};
pub use lane::{Before, Lane, LaneHead, Lanes, Pick, Served};
#[cfg(feature = "lines")]
#[cfg_attr(docsrs, doc(cfg(feature = "lines")))]
pub use lines::{LINE_MAX, LINES_VERSION, LineCounts, LineReader, LineRow, LineWriter};
pub use memory::{MemoryStore, MemoryStoreBuilder};
pub use policy::{Fired, Limit, LimitOf, LimitUse, Policies, QueuePolicy, Schedule};
pub use port::{
    CancelReply, Capabilities, Committed, Consistency, JobStore, Pruned, Reaped, Redriven, Refusal,
    Retention, Store, StoreStats, SubmitOptions, Submitted,
};
pub use query::{Counts, Cursor, Order, Page, Query, Scope, SummaryStream};
pub use queue_counts::{QueueCounts, QueueQuery, QueueTally};
pub use rate::{LaneRoom, Rate, Spent};
pub use shard::{Note, Relocate, SLOT_RETRY, Shard, SlotBatch, SlotRow, is_slot_closed, slot_closed};
pub use sharded::ShardedStore;
#[cfg(feature = "cache")]
#[cfg_attr(docsrs, doc(cfg(feature = "cache")))]
pub use tiered::{Breaker, BreakerOptions, CacheTier, MemoryTier, TierOptions, TierRow, Timer};
pub(crate) use together::together;
pub use wakeup::{Wakeup, WakeupSignal, Wakeups};
