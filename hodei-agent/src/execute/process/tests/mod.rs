//! Real processes: what a job finds, how it is stopped, what is left of it.

mod given;
mod kept;
mod memory;
mod stopped;
mod support;
