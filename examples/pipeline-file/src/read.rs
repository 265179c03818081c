//! The two ways in: bytes that the caller has, and a file that the caller names.

use std::{fs::File, io::Read, path::Path};

use crate::{FileError, Limits, PipelineFile, decode, error::Fault, text, tree::Tree};

/// Reads and parses the pipeline file at `file`.
///
/// At most one byte more than [`Limits::file_bytes`] is read, whatever the file is.
///
/// # Errors
///
/// Those of [`parse`], and the reason of the operating system when the file cannot be read.
pub fn load(file: impl AsRef<Path>, limits: &Limits) -> Result<PipelineFile, FileError> {
    let file = file.as_ref();
    parse(&read(file, limits)?, file, limits)
}

/// Reads the bytes of the pipeline file at `file`, at most [`Limits::file_bytes`] and one: for callers that tell
/// files apart by their bytes.
///
/// # Errors
///
/// The reason of the operating system when the file cannot be read.
pub fn read(file: impl AsRef<Path>, limits: &Limits) -> Result<Vec<u8>, FileError> {
    let file = file.as_ref();
    let mut bytes = Vec::new();
    let ceiling = u64::try_from(limits.file_bytes).unwrap_or(u64::MAX).saturating_add(1);
    File::open(file)
        .and_then(|open| open.take(ceiling).read_to_end(&mut bytes))
        .map_err(|error| FileError::new(file, Fault::whole(format!("cannot read the file: {error}"))))?;
    Ok(bytes)
}

/// Parses the bytes of a pipeline file; `file` is only a name, for messages and for the default `name`.
///
/// # Errors
///
/// The first thing that is wrong with the file, with its line.
pub fn parse(bytes: &[u8], file: impl AsRef<Path>, limits: &Limits) -> Result<PipelineFile, FileError> {
    let file = file.as_ref();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    text::admit(bytes, limits)
        .and_then(|text| Tree::build(text, limits))
        .and_then(|tree| decode::pipeline(&tree, &stem, limits))
        .map_err(|fault| FileError::new(file, fault))
}
