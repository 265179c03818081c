//! Whole-system tests: one binary, one module per promise.

mod house;
mod tidy;
