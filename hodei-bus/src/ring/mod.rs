//! One ring for many publishers and many subscribers: each event is stored once and read where it lies.
//!
//! The scheme is that of the LMAX Disruptor (Thompson et al., "Disruptor: High performance alternative to bounded queues",
//! 2011): one sequence, a cursor per consumer, and producers gated by the slowest of them. Two things differ. Producers take
//! turns under a short lock instead of claiming with a compare-and-swap, so that a producer that is preempted holds up no
//! reader. And the slots lie in pages with a reference count: who reads a page keeps it, so a page that a slow reader
//! still reads is replaced instead of overwritten, and no publisher ever waits for a reader in the middle of a batch.
//!
//! | file | what it holds |
//! |---|---|
//! | `shared` | the sequence, the pages, the gates of the publishers |
//! | `publisher` | [`Ring`]: publishing, and waiting for room |
//! | `subscriber` | [`Subscriber`]: reading, falling behind, and sleeping |
//! | `waiting` | who sleeps and how it is woken |
//! | `totals` | what the ring has done |
//! | `../sys/page` | the slots |
//!
//! A sleeper and whoever wakes it meet as in Dekker's algorithm: each writes, passes a sequentially consistent fence, and
//! reads what the other has written; so at least one of them sees the other.

#[cfg(all(test, any(hodei_loom, hodei_shuttle)))]
mod model;
mod publisher;
mod shared;
mod subscriber;
mod totals;
mod waiting;

pub use publisher::{Full, Ring};
pub use subscriber::{Batch, Missed, Subscriber};

pub(crate) use shared::{How, Membership, Offered, Queues, Short, nanos};
pub(crate) use waiting::{Blocker, Waiting};
