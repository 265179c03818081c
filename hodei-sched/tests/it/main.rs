//! What a node promises, with a store, a bus and an agent.

mod audit;
#[cfg(all(feature = "kube", feature = "processes"))]
mod autoscale;
mod codecs;
#[cfg(feature = "cron")]
mod cron;
mod deaths;
mod events;
mod logs;
mod pipelines;
mod shards;
mod standing;
