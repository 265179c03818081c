//! The promises of the bus.
#![expect(clippy::unwrap_used, reason = "what a test sets up may be unwrapped")]

mod bus;
mod filters;
mod log;
#[cfg(feature = "nats")]
mod nats;
mod odd;
mod ring;
