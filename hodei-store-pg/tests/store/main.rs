//! What the PostgreSQL store promises beyond what every store does, on private servers.

mod budget;
mod env;
mod lanes;
mod locks;
mod nodes;
mod open;
mod plan;
mod submit;
mod walls;
mod within;
