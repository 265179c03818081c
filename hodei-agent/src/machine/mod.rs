//! What the agent holds and has to say: no clock, no I/O, no spawn.

mod session;

pub use session::{Effect, Machine};
