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

pub use bus::Bus;
pub use follow::Follow;
pub use publish::{BatchOptions, BatchingPublisher};
pub use replay::Replay;
pub use tail::{Tail, TailOptions, Tailed};
