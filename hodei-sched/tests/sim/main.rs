//! The simulator, with the agent model that it ships.

mod clean;
mod planted;
mod repeat;
