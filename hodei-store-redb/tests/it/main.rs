//! What the embedded store promises beyond what every store does: one file, opened by one, kept whole.

mod aside;
mod backup;
mod budget;
mod checkpoints;
mod child;
mod clock;
mod env;
mod faults;
mod gate;
mod group;
mod index;
mod kill;
mod lines;
mod migrate;
mod open;
mod prune;
mod query;
mod reopen;
mod shards;
mod story;
mod together;
