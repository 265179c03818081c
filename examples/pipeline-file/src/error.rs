//! What is wrong with a file, and how text from the file is shown in a message.

use std::path::Path;

/// The most characters of the file that a message quotes.
const SHOWN_CHARS: usize = 80;

/// The error of a pipeline file: which file, which line, and the exact cause.
///
/// It displays as `FILE:LINE: cause`, or `FILE: cause` when the fault has no line (the file is missing or too
/// large). The display is always one line: control characters of the file are escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {cause}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct FileError {
    file: String,
    line: Option<u64>,
    cause: String,
}

impl FileError {
    pub(crate) fn new(file: &Path, fault: Fault) -> Self {
        Self { file: escape(&file.to_string_lossy()), line: fault.line, cause: fault.cause }
    }

    /// The file's name as the caller gave it, control characters escaped.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line of the fault, from 1, unless the fault is of the whole file.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        self.line
    }

    /// What is wrong, without the file and the line.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }
}

/// A [`FileError`] that does not know its file yet.
#[derive(Debug)]
pub(crate) struct Fault {
    line: Option<u64>,
    cause: String,
}

impl Fault {
    /// A fault at a line.
    pub(crate) fn at(line: u64, cause: impl Into<String>) -> Self {
        Self { line: Some(line), cause: cause.into() }
    }

    /// A fault of the whole file.
    pub(crate) fn whole(cause: impl AsRef<str>) -> Self {
        Self { line: None, cause: escape(cause.as_ref()) }
    }
}

/// Text of the file between quotes, escaped and clipped.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", clipped(text, true))
}

/// Text of the file as it stands, escaped and clipped.
pub(crate) fn bare(text: &str) -> String {
    clipped(text, false)
}

/// The whole text with everything that is not printable escaped.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push_shown(&mut out, c, false));
    out
}

fn clipped(text: &str, inside_quotes: bool) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    chars.by_ref().take(SHOWN_CHARS).for_each(|c| push_shown(&mut out, c, inside_quotes));
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

fn push_shown(out: &mut String, c: char, inside_quotes: bool) {
    match c {
        '\'' => out.push(c),
        '"' | '\\' if !inside_quotes => out.push(c),
        c => out.extend(c.escape_debug()),
    }
}
