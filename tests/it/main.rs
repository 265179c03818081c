//! Whole-system tests: one binary, one module per promise.

mod agent_by_hand;
mod house;
mod kill_nine;
mod lessons;
mod program;
mod run;
mod simulator;
mod tidy;
mod walk;
