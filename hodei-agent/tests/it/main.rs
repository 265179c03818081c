//! The agent over the in-process link, with a node that each test plays by hand.

mod alone;
mod checkpoints;
mod codecs;
mod commands;
mod crew;
mod drain;
mod executor;
mod handlers;
mod layers;
mod node;
mod slots;
