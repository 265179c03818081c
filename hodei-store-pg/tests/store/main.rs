//! What the PostgreSQL store promises beyond what every store does, on private servers.

mod bare;
mod births;
mod bounds;
mod budget;
mod checkpoints;
mod claims;
mod counts;
mod env;
mod eras;
mod indexes;
mod keys;
mod lanes;
mod lean;
mod limits;
mod list;
mod locks;
mod many;
mod migrate;
mod nodes;
mod open;
mod plan;
mod plans;
mod promises;
mod submit;
mod takeover;
#[cfg(feature = "tls")]
mod tls;
mod walls;
mod wide;
mod within;
