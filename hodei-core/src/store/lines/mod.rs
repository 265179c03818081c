//! What a store keeps, as lines of JSON: to be looked at, kept, or brought to another store.
//!
//! ```text
//! {"line":"header","format":"hodei","version":1}
//! {"line":"queue", …}      how queues are served, by tenant
//! {"line":"limit", …}      limits: of a tenant's key or queue, of a tenant, or without any of these of the whole store; with a rate, if
//!                          there is one, and what is spent of it
//! {"line":"schedule", …}   schedules, with the time each fired last
//! {"line":"job", …}        jobs in the order of their ids, with unique key, lease, output, and the edges from parents
//! {"line":"checkpoint", …} how far runs had come, where the store keeps that
//! {"line":"end","queues":0,"limits":0,"schedules":0,"jobs":[0,0,0,0,0,0,0]}
//! ```
//!
//! The last line counts the lines before it, jobs by the number of their state: a text that was cut off is told from a whole
//! one; it counts checkpoints where there are any. Bytes are base64. Recorded changes, owners and terms are not written:
//! they belong to a store and its processes.
//!
//! What is read is held to the shape of what is submitted, every job to [`NewJob::check`](crate::job::NewJob::check) and to
//! what its state says. How large it is was the concern of whoever submitted it, under whatever
//! [`SpecLimits`](crate::job::SpecLimits): what a store kept, another one takes, within the bounds of its rows. A line that
//! is refused is named in the error, as `line`, and so is the field, as the [`Fault`](crate::Fault)'s.

mod line;
mod read;
mod row;
#[cfg(test)]
mod tests;
mod write;

pub use line::{LINE_MAX, LINES_VERSION, LineCounts, LineRow};
pub use read::LineReader;
pub use write::LineWriter;
