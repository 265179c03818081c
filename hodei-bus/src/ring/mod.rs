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
//! | `waiting` | publishers that sleep until there is room |
//! | `totals` | what the ring has done |
//! | `../sys/page` | the slots |
//! | `../sys/turn` | the lock of the publishers |
//!
//! A subscriber falls asleep under the lock of the publishers, so whoever publishes next sees it. A publisher that sleeps and
//! the reader that wakes it meet as in Dekker's algorithm: each writes, passes a sequentially consistent fence, and reads what
//! the other has written; so at least one of them sees the other.
//!
//! A single event costs its publisher one read-modify-write, that of the lock, and stores. What costs more is a reader close
//! behind: each of its looks takes the cache lines away that the publisher writes to, and both fall into step at the pace of
//! the memory. So a reader that finds only few events, of many, keeps away for some microseconds before it looks again.
//!
//! To wake a thread costs as much as hundreds of events. So a subscriber that was busy gives way to other tasks some times
//! before it sleeps, and a publisher that was woken for one place lets its reader make more of them before it goes on.

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
