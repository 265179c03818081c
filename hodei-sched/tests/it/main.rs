//! What a node promises, with a store, a bus and an agent.

mod events;
mod logs;
mod standing;
