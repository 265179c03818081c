//! The tables and functions, and how they are brought up to date.

mod indexes;
mod migrate;

pub use migrate::Migrated;
pub(crate) use migrate::{check, migrate};
