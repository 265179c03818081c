//! The verbs that read.

mod changes;
mod counts;
mod jobs;
mod lanes;
mod list;
mod verify;

pub(crate) use changes::{LOOK, LOOKS, Place};
