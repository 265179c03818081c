//! What the PostgreSQL store promises beyond what every store does, on private servers.

mod bare;
mod budget;
mod checkpoints;
mod env;
mod eras;
mod indexes;
mod lanes;
mod limits;
mod locks;
mod nodes;
mod open;
mod plan;
mod plans;
mod submit;
mod walls;
mod wide;
mod within;
