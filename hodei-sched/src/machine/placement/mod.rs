//! Where jobs go: which workers could run them, which have room, and whom to wait for.

mod amounts;
mod bits;
mod candidates;
mod class;
mod fleet;
mod gang;
mod group;
mod hold;
mod levels;
mod room;
mod rule;
mod shapes;
mod strays;
#[cfg(test)]
mod tests;

pub use candidates::{Asked, Candidates};
pub use fleet::{Fleet, WorkerId};
pub use hodei_core::job::Selector;
pub(super) use room::Room;
pub use rule::Rule;
pub(super) use strays::Found;
