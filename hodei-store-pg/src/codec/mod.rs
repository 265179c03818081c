//! The bytes in columns that no statement looks into. Each begins with the number of its layout.

mod buffer;
mod change;
mod end;
mod spec;

pub(crate) use buffer::{damaged, name_of};
pub(crate) use change::{changes_bytes, read_changes};
pub(crate) use end::{end_bytes, end_of};
pub(crate) use spec::{
    Bodies, Body, SpecColumns, body_of, priority, request_bytes, request_of, spec_bytes, spec_of,
};

#[cfg(test)]
mod tests;
