//! The promises of the bus.
#![expect(clippy::unwrap_used, reason = "what a test sets up may be unwrapped")]

mod bus;
mod filters;
mod log;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "nats")]
mod nats_doors;
mod odd;
mod ring;
