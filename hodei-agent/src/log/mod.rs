//! The logs of runs: written as they come, read while they grow, kept in files that survive a restart.

mod file;
mod store;

pub(crate) use store::{LogStore, LogWriter};
