//! How runs ended.

use std::sync::Arc;

use bytes::Bytes;
use hodei_core::Result;
use hodei_core::job::{
    ArtifactEntry, BlobRef, Exit, Failure, Finish, LogEnd, Manifest, Outcome, Output, Settled, Stream,
};

use super::envelope::{ROW_MAX, decode, encode};
use super::row::{BlobRow, EndRow, ExitRow, ManifestRow, OutcomeRow, OutputRow};
use super::spec::failure_class;
use super::value::{bad, name, time};

fn blob_row(blob: &BlobRef) -> BlobRow<'_> {
    BlobRow { key: &blob.key, len: blob.len, digest: blob.digest }
}

fn blob(row: &BlobRow<'_>) -> BlobRef {
    BlobRef { key: Arc::from(row.key), len: row.len, digest: row.digest }
}

/// What a few numbers, a digest and the lengths of texts take in a row at most.
const NUMBERS: usize = 96;

/// Says whether how a run ended fits into a row, without making it.
pub(crate) fn end_fits(finish: &Finish) -> bool {
    let message = match &finish.outcome {
        Outcome::Failed(failure) => failure.message.len(),
        Outcome::Succeeded | Outcome::Cancelled => 0,
    };
    let output = match &finish.output {
        Output::Inline(bytes) => bytes.len(),
        Output::Blob(blob) => blob.key.len(),
    };
    let artifact = |of: &ArtifactEntry| of.name.as_str().len() + of.blob.key.len() + NUMBERS;
    let manifest = finish.manifest.as_deref().map_or(0, |manifest| {
        manifest.logs.len() * NUMBERS + manifest.artifacts.iter().map(artifact).sum::<usize>()
    });
    message + output + manifest + 2 * NUMBERS <= ROW_MAX
}

/// Writes how a run ended.
pub(crate) fn end_row(settled: &Settled) -> Result<Vec<u8>> {
    let row = EndRow {
        at: settled.at.as_micros(),
        outcome: match &settled.outcome {
            Outcome::Succeeded => OutcomeRow::Succeeded,
            Outcome::Cancelled => OutcomeRow::Cancelled,
            Outcome::Failed(failure) => OutcomeRow::Failed {
                class: failure.class as u8,
                message: &failure.message,
                exit: failure.exit.map(|exit| match exit {
                    Exit::Code(code) => ExitRow::Code(code),
                    Exit::Signal(signal) => ExitRow::Signal(signal),
                }),
            },
        },
        output: match &settled.output {
            Output::Inline(bytes) => OutputRow::Inline(bytes),
            Output::Blob(blob) => OutputRow::Blob(blob_row(blob)),
        },
        manifest: settled.manifest.as_deref().map(|manifest| ManifestRow {
            logs: manifest
                .logs
                .iter()
                .map(|log| (log.stream as u8, log.kept, log.dropped, log.crc32))
                .collect(),
            artifacts: manifest.artifacts.iter().map(|a| (a.name.as_str(), blob_row(&a.blob))).collect(),
        }),
    };
    encode(&row, 64)
}

/// Reads how a run ended.
pub(crate) fn end(bytes: &[u8]) -> Result<Settled> {
    let row: EndRow<'_> = decode(bytes)?;
    let outcome = match row.outcome {
        OutcomeRow::Succeeded => Outcome::Succeeded,
        OutcomeRow::Cancelled => Outcome::Cancelled,
        OutcomeRow::Failed { class, message, exit } => Outcome::Failed(Failure {
            class: failure_class(class)?,
            message: Arc::from(message),
            exit: exit.map(|exit| match exit {
                ExitRow::Code(code) => Exit::Code(code),
                ExitRow::Signal(signal) => Exit::Signal(signal),
            }),
        }),
    };
    let output = match row.output {
        OutputRow::Inline(bytes) => Output::Inline(Bytes::copy_from_slice(bytes)),
        OutputRow::Blob(row) => Output::Blob(blob(&row)),
    };
    Ok(Settled {
        at: time(row.at),
        outcome,
        output,
        manifest: row.manifest.map(manifest).transpose()?.map(Arc::new),
    })
}

fn manifest(row: ManifestRow<'_>) -> Result<Manifest> {
    let log = |(stream, kept, dropped, crc32): (u8, u64, u64, u32)| {
        let stream = *Stream::ALL.get(usize::from(stream)).ok_or_else(bad("a bad stream"))?;
        Ok(LogEnd { stream, kept, dropped, crc32 })
    };
    let artifact =
        |(file, row): (&str, BlobRow<'_>)| Ok(ArtifactEntry { name: name(file)?, blob: blob(&row) });
    Ok(Manifest {
        logs: row.logs.into_iter().map(log).collect::<Result<_>>()?,
        artifacts: row.artifacts.into_iter().map(artifact).collect::<Result<_>>()?,
    })
}
