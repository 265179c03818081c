//! Rows as bytes: the only home of bincode.
//!
//! [`envelope`] has the bytes around a row, [`row`] the rows, [`convert`] the ways between rows and values.

mod convert;
mod envelope;
mod row;
#[cfg(any(test, feature = "testkit"))]
mod samples;
#[cfg(test)]
mod tests;

pub(crate) use convert::*;
pub(crate) use envelope::{decode, encode};
pub(crate) use row::{OwnerRow, TermRow};
#[cfg(feature = "testkit")]
pub(crate) use samples::{Sample, samples};
