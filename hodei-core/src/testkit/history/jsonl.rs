//! Histories as lines of JSON.

use std::io::{BufRead, Write};

use super::entry::Entry;
use super::log::History;
use crate::error::{Error, ErrorKind, Result};

impl History {
    /// Writes one line per entry.
    ///
    /// # Errors
    ///
    /// `Io` when the writer fails.
    pub fn write(&self, mut writer: impl Write) -> Result<()> {
        for entry in &self.entries {
            writer.write_all(&line(entry)?).map_err(failed("history.write"))?;
        }
        writer.flush().map_err(failed("history.write"))
    }

    /// Reads lines back.
    ///
    /// A last line without an end was being written when the writer died; it is left out where it is incomplete, and
    /// [`History::is_torn`] says so.
    ///
    /// # Errors
    ///
    /// `Corrupt` for any other line that is no entry, `Io` when the reader fails; both name the `line`, counted from 1.
    pub fn read(mut reader: impl BufRead) -> Result<Self> {
        let mut history = Self::new();
        let mut bytes = Vec::new();
        for number in 1_u64.. {
            bytes.clear();
            let read = reader.read_until(b'\n', &mut bytes).map_err(failed("history.read"));
            if read.map_err(|error| error.with("line", number))? == 0 {
                break;
            }
            match serde_json::from_slice(&bytes) {
                Ok(entry) => history.push(entry),
                Err(_) if bytes.last() != Some(&b'\n') => history.torn = true,
                Err(source) => {
                    let error = Error::new(ErrorKind::Corrupt, "history.read");
                    return Err(error.with("line", number).source_error(source));
                }
            }
        }
        Ok(history)
    }
}

/// Writes an entry as a line, its end included.
pub(super) fn line(entry: &Entry) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(entry)
        .map_err(|source| Error::new(ErrorKind::Bug, "history.write").source_error(source))?;
    line.push(b'\n');
    Ok(line)
}

pub(super) fn failed(op: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::new(ErrorKind::Io, op).source_error(source)
}
