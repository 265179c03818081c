//! Whole-system tests: one binary, one module per promise.

mod agent_by_hand;
mod along;
mod audited;
mod examples;
mod house;
mod kill_nine;
mod lessons;
mod manifests;
mod memory;
mod moves;
mod moving_shards;
mod one_order;
mod placed;
mod program;
mod resting;
mod run;
mod secrets;
mod simulator;
mod tidy;
mod walk;
