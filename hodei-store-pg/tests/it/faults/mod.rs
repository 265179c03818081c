//! Servers that restart, connections that break, nodes that race, freeze and die: what was acknowledged stands, and every
//! history is held to the guarantees.

mod clocks;
mod failover;
mod fleet;
mod killed;
mod node;
mod pooled;
mod races;
mod replies;
mod restarts;
mod scarce;
mod variable;

pub(crate) use node::obey;
