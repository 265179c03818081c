//! The pipeline file at its boundary: bytes in, steps or one line out.

mod accepts;
mod limits;
mod properties;
mod refuses;
