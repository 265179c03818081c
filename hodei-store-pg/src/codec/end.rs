//! How runs ended.

use std::sync::Arc;

use bytes::Bytes;
use hodei_core::job::{
    ArtifactEntry, BlobRef, Exit, Failure, FailureClass, LogEnd, Manifest, Outcome, Output, Settled, Stream,
};
use hodei_core::{Result, Timestamp};

use super::buffer::{Reader, Writer, damaged};

const LAYOUT: u8 = 1;

/// Writes how a run ended and what it left; when it ended is a column.
pub(crate) fn end_bytes(
    outcome: &Outcome,
    output: &Output,
    manifest: Option<&Manifest>,
    at: Option<Timestamp>,
) -> Vec<u8> {
    let mut to = Writer::of_layout(LAYOUT);
    to.optional(at, |to, at| to.signed(at.as_micros()));
    match outcome {
        Outcome::Succeeded => to.byte(0),
        Outcome::Cancelled => to.byte(1),
        Outcome::Failed(failure) => {
            to.byte(2);
            to.byte(failure.class as u8);
            to.text(&failure.message);
            match failure.exit {
                None => to.byte(0),
                Some(Exit::Code(code)) => {
                    to.byte(1);
                    to.signed(code.into());
                }
                Some(Exit::Signal(signal)) => {
                    to.byte(2);
                    to.signed(signal.into());
                }
            }
        }
    }
    match output {
        Output::Inline(bytes) => {
            to.byte(0);
            to.bytes(bytes);
        }
        Output::Blob(blob) => {
            to.byte(1);
            write_blob(&mut to, blob);
        }
    }
    to.optional(manifest, write_manifest);
    to.finish()
}

fn write_blob(to: &mut Writer, blob: &BlobRef) {
    to.text(&blob.key);
    to.number(blob.len);
    to.fixed(&blob.digest);
}

fn write_manifest(to: &mut Writer, manifest: &Manifest) {
    to.number(manifest.logs.len() as u64);
    for log in &manifest.logs {
        to.byte(log.stream as u8);
        to.number(log.kept);
        to.number(log.dropped);
        to.fixed(&log.crc32.to_le_bytes());
    }
    to.number(manifest.artifacts.len() as u64);
    for artifact in &manifest.artifacts {
        to.text(artifact.name.as_str());
        write_blob(to, &artifact.blob);
    }
}

/// Reads how a run ended. `moved_at` is when, unless the bytes say another time.
pub(crate) fn end_of(bytes: &[u8], moved_at: Timestamp) -> Result<Settled> {
    let mut from = Reader::of_layout(bytes, LAYOUT)?;
    let at = from.optional(|from| from.signed().map(Timestamp::from_micros))?;
    let outcome = match from.byte()? {
        0 => Outcome::Succeeded,
        1 => Outcome::Cancelled,
        2 => Outcome::Failed(failure(&mut from)?),
        _ => return Err(damaged("a bad outcome")),
    };
    let output = match from.byte()? {
        0 => Output::Inline(Bytes::copy_from_slice(from.bytes()?)),
        1 => Output::Blob(blob(&mut from)?),
        _ => return Err(damaged("a bad output")),
    };
    let manifest = from.optional(manifest)?.map(Arc::new);
    from.end()?;
    Ok(Settled { at: at.unwrap_or(moved_at), outcome, output, manifest })
}

fn failure(from: &mut Reader<'_>) -> Result<Failure> {
    let class = FailureClass::from_number(from.byte()?).ok_or_else(|| damaged("a bad class of failure"))?;
    let message = from.text()?.into();
    let number = |from: &mut Reader<'_>| i32::try_from(from.signed()?).map_err(|_| damaged("a bad exit"));
    let exit = match from.byte()? {
        0 => None,
        1 => Some(Exit::Code(number(from)?)),
        2 => Some(Exit::Signal(number(from)?)),
        _ => return Err(damaged("a bad exit")),
    };
    Ok(Failure { class, message, exit })
}

fn blob(from: &mut Reader<'_>) -> Result<BlobRef> {
    Ok(BlobRef { key: from.text()?.into(), len: from.number()?, digest: from.fixed()? })
}

fn manifest(from: &mut Reader<'_>) -> Result<Manifest> {
    let logs = from.list(|from| {
        let stream = *Stream::ALL.get(usize::from(from.byte()?)).ok_or_else(|| damaged("a bad stream"))?;
        let (kept, dropped) = (from.number()?, from.number()?);
        Ok(LogEnd { stream, kept, dropped, crc32: u32::from_le_bytes(from.fixed()?) })
    })?;
    let artifacts = from.list(|from| Ok(ArtifactEntry { name: from.name()?, blob: blob(from)? }))?;
    Ok(Manifest { logs, artifacts })
}
