//! How far runs have come.

use bincode::{BorrowDecode, Encode};
use bytes::Bytes;
use hodei_core::Result;
use hodei_core::job::Epoch;

use super::envelope::{decode, encode};

#[derive(Encode, BorrowDecode)]
struct CheckpointRow<'a> {
    fence: u64,
    saved: Option<&'a [u8]>,
}

/// Writes what was saved, and which epochs are shut out.
pub(crate) fn checkpoint_row(fence: Epoch, saved: Option<&[u8]>) -> Result<Vec<u8>> {
    let row = CheckpointRow { fence: fence.number(), saved };
    encode(&row, 24 + saved.map_or(0, <[u8]>::len))
}

/// Reads it.
pub(crate) fn checkpoint(bytes: &[u8]) -> Result<(Epoch, Option<Bytes>)> {
    let row: CheckpointRow<'_> = decode(bytes)?;
    Ok((Epoch::from_number(row.fence), row.saved.map(Bytes::copy_from_slice)))
}
