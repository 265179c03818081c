//! The event bus of Hodei: every subscriber hears what passes its filter, in the order of each publisher, and when it
//! is too slow it is told what it missed.
//!
//! ```
//! use hodei_bus::Bus;
//! use hodei_core::bus::{EventBus, EventFilter, SubscribeOptions};
//!
//! let bus = Bus::new();
//! let mut events = bus.subscribe(EventFilter::all(), SubscribeOptions::default());
//! assert!(events.try_recv(10).is_empty());
//! ```
//!
//! # Which one is right
//!
//! | you want | use | because |
//! |---|---|---|
//! | to hear what this process does | [`Bus`] | it is memory and a wake-up |
//! | all of it, and fast | [`Bus::firehose`] | events are read where they lie, in batches |
//! | every transition, also after a restart | [`Follow`] | it takes them from the change log; the bus says when to look there |
//! | what all nodes on one store do, in one order | [`Tail`] | the store has one order of all commits, and keeps it |
//! | what other processes do that do not share the store | `nats::NatsBus` (feature `nats`) | a server keeps and fans out |
//! | nodes to wake each other when there is work | nothing of this crate | stores do it: `JobStore::wakeups`, `LISTEN` and `NOTIFY` on PostgreSQL |
//!
//! A wake-up says that there may be something to do, and one may stand for many; it carries nothing and may get lost with a
//! connection. An event says what has happened. Do not build one out of the other.
//!
//! # What happens to the slow
//!
//! [`Overflow`](hodei_core::bus::Overflow) is chosen by each subscriber. None is silent, and none lets memory grow:
//!
//! | policy | publishers | the subscriber |
//! |---|---|---|
//! | `Block` | wait for it, or fail when they do not wait | misses nothing, but for what is published without waiting |
//! | `Fail` | fail with `Full` at once | as above |
//! | `DropOldest` | do not notice it | hears `Lagged` with the exact number, then what is newest |
//! | `DropNewest` | do not notice it | hears what it has, `Lagged`, then what came after it read on |
//! | `Disconnect` | do not notice it | hears what it has, then `Disconnected` |
//!
//! [`Tail`] and `NatsBus` publish what has happened elsewhere, so nobody can refuse it: they wait for `Block` no longer than
//! they are told to, and then it has a gap like `Fail`. What is missed before it reaches a bus is told to every subscriber,
//! where it was missed. [`Bus::subscribers`] shows who is slow.
//!
//! A publisher's `Ok` says that events are on the bus, not that anybody has handled them. What was published before a
//! subscription is not heard by it.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `nats` | no | the bus between processes, over NATS JetStream |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod bus;
mod follow;
mod mailbox;
#[cfg(feature = "nats")]
#[cfg_attr(docsrs, doc(cfg(feature = "nats")))]
pub mod nats;
mod publish;
mod replay;
pub mod ring;
mod subscriber;
mod sync;
mod sys;
mod tail;
mod topic;

pub use bus::{Bus, Listed};
pub use follow::Follow;
pub use publish::{BatchOptions, BatchingPublisher};
pub use replay::Replay;
pub use tail::{Tail, TailOptions, Tailed};
