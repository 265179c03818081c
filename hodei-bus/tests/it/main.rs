//! The promises of the bus.

mod bus;
mod log;
#[cfg(feature = "nats")]
mod nats;
mod ring;
