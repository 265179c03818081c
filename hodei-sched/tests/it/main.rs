//! What a node promises, with a store, a bus and an agent.

#[cfg(feature = "cron")]
mod cron;
mod events;
mod logs;
