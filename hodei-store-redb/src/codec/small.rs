//! Rows of one or two values.

use hodei_core::job::Requires;
use hodei_core::{JobId, Result};

use super::envelope::{decode, encode};
use super::row::{EdgeRow, Id};
use super::value::requires_of;

/// Writes what is needed of a parent, and whether the child was told of its end.
pub(crate) fn edge_row(requires: Requires, told: bool) -> Result<Vec<u8>> {
    encode(&EdgeRow { requires: requires.number(), told }, 16)
}

/// Reads what is needed of a parent, and whether the child was told of its end.
pub(crate) fn edge(bytes: &[u8]) -> Result<(Requires, bool)> {
    let row: EdgeRow = decode(bytes)?;
    Ok((requires_of(row.requires)?, row.told))
}

/// Writes an id.
pub(crate) fn id_row(id: JobId) -> Result<Vec<u8>> {
    encode(id.as_bytes(), 24)
}

/// Reads an id.
pub(crate) fn id(bytes: &[u8]) -> Result<JobId> {
    decode::<Id>(bytes).map(JobId::from_bytes)
}

/// Writes a number.
pub(crate) fn number_row(number: u64) -> Result<Vec<u8>> {
    encode(&number, 16)
}

/// Reads a number.
pub(crate) fn number(bytes: &[u8]) -> Result<u64> {
    decode(bytes)
}

/// Writes ids.
pub(crate) fn ids_row(ids: &[JobId]) -> Result<Vec<u8>> {
    encode(&ids.iter().map(|id| *id.as_bytes()).collect::<Vec<Id>>(), 16 + 16 * ids.len())
}

/// Reads ids.
pub(crate) fn ids(bytes: &[u8]) -> Result<Vec<JobId>> {
    Ok(decode::<Vec<Id>>(bytes)?.into_iter().map(JobId::from_bytes).collect())
}
