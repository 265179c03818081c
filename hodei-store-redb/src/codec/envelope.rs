//! The bytes around a row.
//!
//! A row is one byte for codec and schema (0x21: bincode 2 `standard()`, a row as schema 1 had it; 0x22: as schema 2 has
//! it), the bincode of one of the structs of [`super::row`], and the CRC32 of all before it, little-endian. `standard()` writes integers below 251 as one byte, else
//! as 251, 252 or 253 and the little-endian 2, 4 or 8 bytes; signed ones zigzagged first; texts, bytes and lists behind
//! their length; options behind 0 or 1; enums behind their number; structs as their fields in order.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{BorrowDecode, Encode};
use hodei_core::{Error, ErrorKind, Result};

use crate::error::corrupt;

/// Codec 2 (bincode 2, `standard()`), a row of schema 1.
const FIRST: u8 = 0x21;
/// The same codec, a row of schema 2.
const SECOND: u8 = 0x22;
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
    encode_as(FIRST, row, expected)
}

/// Writes a row as schema 2 has it.
pub(super) fn encode_second<R: Encode>(row: &R, expected: usize) -> Result<Vec<u8>> {
    encode_as(SECOND, row, expected)
}

fn encode_as<R: Encode>(format: u8, row: &R, expected: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(expected);
    bytes.push(format);
    bincode::encode_into_std_write(row, &mut bytes, CONFIG)
        .map_err(|source| Error::new(ErrorKind::LimitExceeded, "row.encode").source_error(source))?;
    if bytes.len() > ROW_MAX - CRC {
        let error = Error::new(ErrorKind::LimitExceeded, "row.encode");
        return Err(error.with("bytes", bytes.len() + CRC).with("limit", ROW_MAX));
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Ok(bytes)
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
    let (body, crc) = bytes.split_last_chunk::<CRC>().ok_or_else(|| corrupt("row.decode", "a short row"))?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(corrupt("row.decode", "a wrong checksum"));
    }
    match body.split_first() {
        Some((found, body)) if *found == format => decode_part(body),
        _ => Err(corrupt("row.decode", "an unknown format")),
    }
}

/// Says whether the checksum of a row is right.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk::<CRC>()
        .is_some_and(|(body, crc)| crc32fast::hash(body) == u32::from_le_bytes(*crc))
}

/// Writes a part of a row, which has no envelope of its own.
pub(super) fn encode_part<R: Encode>(part: &R, expected: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(expected);
    bincode::encode_into_std_write(part, &mut bytes, CONFIG)
        .map_err(|source| Error::new(ErrorKind::LimitExceeded, "row.encode").source_error(source))?;
    Ok(bytes)
}

/// Reads what is in an envelope, or a part of it.
pub(super) fn decode_part<'a, R: BorrowDecode<'a, ()>>(body: &'a [u8]) -> Result<R> {
    match bincode::borrow_decode_from_slice(body, CONFIG) {
        Ok((row, read)) if read == body.len() => Ok(row),
        Ok(_) => Err(corrupt("row.decode", "bytes behind a row")),
        Err(source) => Err(Error::new(ErrorKind::Corrupt, "row.decode").source_error(source)),
    }
}
