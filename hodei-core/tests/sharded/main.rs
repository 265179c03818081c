//! Several stores as one: where things go, what happens when a shard fails, and how slots move.

mod absent;
mod crash;
mod failing;
mod lists;
mod logs;
mod moving;
mod routing;
mod world;
