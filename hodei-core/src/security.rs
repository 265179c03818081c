//! The ports that keep secrets out of what is written down, and write down who did what.

mod audit;

use std::fmt;

use bytes::Bytes;

use crate::job::Secret;

pub use audit::{AUDIT_DETAIL_MAX, AUDIT_NAME_MAX, AuditRecord, AuditRecordBuilder, AuditSink, NoAudit};

/// Makes the mask of each stream of a run. It stands at the one place that everything a run says passes, before any
/// buffer, disk or bus.
pub trait SecretMasker: Send + Sync + fmt::Debug {
    /// Begins to mask a stream that may show these secrets.
    fn begin(&self, secrets: &[Secret]) -> Box<dyn MaskStream>;
}

/// Masks a stream chunk by chunk. A secret may stand across the border of two chunks.
pub trait MaskStream: Send + fmt::Debug {
    /// Takes a chunk and returns what may be shown now; an open beginning of a secret is held back.
    fn push(&mut self, chunk: Bytes) -> Bytes;

    /// Returns what was held back, at the end of the stream.
    fn finish(&mut self) -> Bytes;
}

/// Masks nothing: for runs without secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMask;

impl SecretMasker for NoMask {
    fn begin(&self, _secrets: &[Secret]) -> Box<dyn MaskStream> {
        Box::new(Self)
    }
}

impl MaskStream for NoMask {
    fn push(&mut self, chunk: Bytes) -> Bytes {
        chunk
    }

    fn finish(&mut self) -> Bytes {
        Bytes::new()
    }
}

const _: fn(&dyn SecretMasker, &dyn MaskStream) = |_, _| ();
