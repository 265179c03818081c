//! Where jobs go: which workers could run them, which have room, and whom to wait for.

mod amounts;
mod bits;
mod candidates;
mod fleet;
mod gang;
mod hold;
mod room;
mod rule;
mod shapes;
#[cfg(test)]
mod tests;

pub use candidates::{Asked, Candidates};
pub use fleet::{Fleet, WorkerId};
pub(super) use room::Room;
pub use rule::{Rule, Selector};
