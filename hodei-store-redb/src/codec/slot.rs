//! How far slots have come, and notes.

use bincode::{BorrowDecode, Encode};
use bytes::Bytes;
use hodei_core::Result;
use hodei_core::store::Note;

use super::envelope::{decode, encode};
use super::value::bad;
use crate::memory::{Moving, Phase};

#[derive(Encode, BorrowDecode)]
struct SlotRow {
    number: u64,
    phase: u8,
    from: u64,
}

#[derive(Encode, BorrowDecode)]
struct NoteRow<'a> {
    version: u64,
    value: &'a [u8],
}

/// Writes how far the last move of a slot has come.
pub(crate) fn slot_row(moving: &Moving) -> Result<Vec<u8>> {
    encode(&SlotRow { number: moving.number, phase: moving.phase as u8, from: moving.from }, 24)
}

/// Reads how far the last move of a slot has come.
pub(crate) fn slot(bytes: &[u8]) -> Result<Moving> {
    let row: SlotRow = decode(bytes)?;
    let phase = *Phase::ALL.get(usize::from(row.phase)).ok_or_else(bad("a bad phase"))?;
    Ok(Moving { number: row.number, phase, from: row.from })
}

/// Writes a note.
pub(crate) fn note_row(note: &Note) -> Result<Vec<u8>> {
    encode(&NoteRow { version: note.version, value: &note.value }, 16 + note.value.len())
}

/// Reads a note.
pub(crate) fn note(bytes: &[u8]) -> Result<Note> {
    let row: NoteRow<'_> = decode(bytes)?;
    Ok(Note { version: row.version, value: Bytes::copy_from_slice(row.value) })
}
