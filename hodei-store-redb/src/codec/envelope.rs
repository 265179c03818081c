//! The bytes around a row.
//!
//! A row is one byte for codec and schema (0x21: bincode 2 `standard()`, a row as schema 1 had it; 0x22: as schema 2 has
//! it), the bincode of one of the structs of [`super::row`], and, little-endian, the CRC32 of all before it, of its key and
//! of the name of its table; rows that schema 1 wrote have the CRC32 of all before it, until the migration gives them the other. `standard()`
//! writes integers below 251 as one byte, else as 251, 252 or 253 and the little-endian 2, 4 or 8 bytes; signed ones zigzagged first; texts, bytes and lists behind
//! their length; options behind 0 or 1; enums behind their number; structs as their fields in order.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{BorrowDecode, Encode};
use crc32fast::Hasher;
use hodei_core::{Error, ErrorKind, Result};

use crate::error::corrupt;
use crate::table::Tab;

/// Codec 2 (bincode 2, `standard()`), a row of schema 1.
const FIRST: u8 = 0x21;
/// The same codec, a row of schema 2.
pub(super) const SECOND: u8 = 0x22;
/// The largest row that is written.
pub(super) const ROW_MAX: usize = 16 << 20;
/// The most memory that reading a row may ask for: lists take up to eight times the room that they take in a row.
const DECODED_MAX: usize = 8 * ROW_MAX;
/// The checksum at the end.
const CRC: usize = 4;

/// The limit holds for reading only.
const CONFIG: Configuration<LittleEndian, Varint, Limit<DECODED_MAX>> =
    bincode::config::standard().with_limit::<DECODED_MAX>();

/// Writes a row that has not changed since schema 1.
pub(crate) fn encode<R: Encode>(row: &R, expected: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(expected);
    append_as(FIRST, row, &mut bytes)?;
    Ok(bytes)
}

/// Writes a row as schema 2 has it behind what is in a buffer.
pub(super) fn append_second<R: Encode>(row: &R, into: &mut Vec<u8>) -> Result<()> {
    append_as(SECOND, row, into)
}

fn append_as<R: Encode>(format: u8, row: &R, into: &mut Vec<u8>) -> Result<()> {
    let before = into.len();
    into.push(format);
    append_part(row, into)?;
    let written = into.len() - before;
    if written > ROW_MAX - CRC {
        let error = Error::new(ErrorKind::LimitExceeded, "row.encode");
        return Err(error.with("bytes", written + CRC).with("limit", ROW_MAX));
    }
    Ok(())
}

/// Reads a row that has not changed since schema 1.
pub(crate) fn decode<'a, R: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<R> {
    decode_as(FIRST, bytes)
}

/// Reads a row as schema 2 has it.
pub(super) fn decode_second<'a, R: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<R> {
    decode_as(SECOND, bytes)
}

fn decode_as<'a, R: BorrowDecode<'a, ()>>(format: u8, bytes: &'a [u8]) -> Result<R> {
    match bytes.split_first() {
        Some((found, body)) if *found == format => decode_part(body),
        _ => Err(corrupt("row.decode", "an unknown format")),
    }
}

/// Writes a row as it is stored: with the checksum that binds it to its table and its key. The rows of
/// indexes are empty and stay so.
pub(crate) fn seal(tab: Tab, key: &[u8], row: &[u8], into: &mut Vec<u8>) {
    if row.is_empty() {
        return;
    }
    into.extend_from_slice(row);
    bind(tab, key, into);
}

/// Puts the checksum behind a row that nothing else is before.
pub(crate) fn bind(tab: Tab, key: &[u8], row: &mut Vec<u8>) {
    bind_from(0, tab, key, row);
}

/// Puts the checksum behind a row that begins at a place of a buffer.
pub(crate) fn bind_from(start: usize, tab: Tab, key: &[u8], row: &mut Vec<u8>) {
    let mut crc = Hasher::new();
    crc.update(&row[start..]);
    crc.update(key);
    crc.update(tab.name().as_bytes());
    row.extend_from_slice(&crc.finalize().to_le_bytes());
}

/// Returns what was sealed. Of the tables that files of schema 1 handed down, rows of its format may have its checksum, which
/// does not cover the key: files that were migrated before migrations gave them another have some.
pub(crate) fn unseal<'r>(tab: Tab, key: &[u8], sealed: &'r [u8]) -> Result<&'r [u8]> {
    let (row, is_bound) = opened(tab, key, sealed)?;
    if is_bound || (Tab::HANDED_DOWN.contains(&tab) && row.first() == Some(&FIRST)) {
        Ok(row)
    } else {
        Err(corrupt("row.decode", "a checksum of another place"))
    }
}

/// Returns what was sealed, and whether its checksum covers its place; if not, it is that of schema 1.
pub(crate) fn opened<'r>(tab: Tab, key: &[u8], sealed: &'r [u8]) -> Result<(&'r [u8], bool)> {
    if sealed.is_empty() {
        return Ok((sealed, true));
    }
    let (row, crc) = sealed.split_last_chunk::<CRC>().ok_or_else(|| corrupt("row.decode", "a short row"))?;
    let (mut bound, crc) = (Hasher::new(), u32::from_le_bytes(*crc));
    bound.update(row);
    let first = bound.clone();
    bound.update(key);
    bound.update(tab.name().as_bytes());
    if bound.finalize() == crc {
        Ok((row, true))
    } else if first.finalize() == crc {
        Ok((row, false))
    } else {
        Err(corrupt("row.decode", "a wrong checksum"))
    }
}

/// Writes a part of a row, which has no envelope of its own.
pub(super) fn append_part<R: Encode>(part: &R, into: &mut Vec<u8>) -> Result<()> {
    bincode::encode_into_std_write(part, into, CONFIG)
        .map_err(|source| Error::new(ErrorKind::LimitExceeded, "row.encode").source_error(source))?;
    Ok(())
}

/// Reads what is in an envelope, or a part of it.
pub(super) fn decode_part<'a, R: BorrowDecode<'a, ()>>(body: &'a [u8]) -> Result<R> {
    match bincode::borrow_decode_from_slice(body, CONFIG) {
        Ok((row, read)) if read == body.len() => Ok(row),
        Ok(_) => Err(corrupt("row.decode", "bytes behind a row")),
        Err(source) => Err(Error::new(ErrorKind::Corrupt, "row.decode").source_error(source)),
    }
}
