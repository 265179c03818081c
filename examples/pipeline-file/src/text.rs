//! The door: bytes become text that a YAML scanner reads whole.

use crate::{Limits, error::Fault};

/// Admits the bytes of a file: within the limit, UTF-8, and no character that YAML forbids.
///
/// The character check is not pedantry: the scanner takes a NUL for the end of the file, so without it all
/// that follows a NUL would be ignored without a word.
pub(crate) fn admit<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a str, Fault> {
    if bytes.len() > limits.file_bytes {
        return Err(Fault::whole(format!(
            "the file is larger than the limit of {} bytes",
            limits.file_bytes
        )));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        Fault::at(line_of(bytes, offset), format!("the file is not UTF-8 at byte {offset}"))
    })?;
    if let Some((offset, c)) = text.char_indices().find(|(offset, c)| !is_allowed(*offset, *c)) {
        let cause =
            format!("the file has the character U+{:04X} at byte {offset}, which YAML forbids", u32::from(c));
        return Err(Fault::at(line_of(bytes, offset), cause));
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The last line of a text that has anything on it, from 1.
pub(crate) fn last_line(text: &str) -> u64 {
    let text = text.trim_end_matches(['\n', '\r']);
    line_of(text.as_bytes(), text.len())
}

/// YAML's `c-printable`, with a byte order mark only at the start.
fn is_allowed(offset: usize, c: char) -> bool {
    match c {
        '\u{feff}' => offset == 0,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' => true,
        c => c >= '\u{a0}' && !matches!(c, '\u{fffe}' | '\u{ffff}'),
    }
}

/// The line of a byte, from 1; a line ends with LF, CR LF or CR.
fn line_of(bytes: &[u8], offset: usize) -> u64 {
    let before = bytes.get(..offset).unwrap_or(bytes);
    let returns =
        before.iter().enumerate().filter(|&(at, byte)| *byte == b'\r' && bytes.get(at + 1) != Some(&b'\n'));
    let breaks = before.iter().filter(|byte| **byte == b'\n').count() + returns.count();
    u64::try_from(breaks).unwrap_or(u64::MAX).saturating_add(1)
}
