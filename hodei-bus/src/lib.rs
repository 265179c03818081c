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
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod bus;
mod mailbox;
mod replay;
mod subscriber;

pub use bus::Bus;
pub use replay::Replay;
