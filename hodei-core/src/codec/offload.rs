//! Offloading.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::chain::{About, PayloadCodec};
use crate::blob::{BlobStore, blob_of, read_blob};
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::job::BlobRef;

/// Keeps large arguments in a blob store, and only their reference with the job.
///
/// Equal arguments share a blob. A node that is given the blob store (`Orchestrator::prune_blobs`) removes blobs that no job and
/// no schedule names any more.
#[derive(Clone, Debug)]
pub struct Offload {
    blobs: Arc<dyn BlobStore>,
    above: usize,
}

impl Offload {
    /// Offloads arguments of more than so many bytes.
    #[must_use]
    pub fn above(bytes: usize, blobs: Arc<dyn BlobStore>) -> Self {
        Self { blobs, above: bytes }
    }
}

#[async_trait]
impl PayloadCodec for Offload {
    fn tag(&self) -> u8 {
        3
    }

    async fn encode(&self, _: &About<'_>, bytes: Bytes) -> Result<Option<Bytes>> {
        if bytes.len() <= self.above {
            return Ok(None);
        }
        let blob = blob_of(&bytes);
        self.blobs.put(&blob.key, bytes).await?;
        let reference = [&blob.len.to_le_bytes()[..], &blob.digest, blob.key.as_bytes()].concat();
        Ok(Some(reference.into()))
    }

    async fn decode(&self, _: &About<'_>, bytes: Bytes) -> Result<Bytes> {
        read_blob(&*self.blobs, &reference(&bytes)?).await
    }

    fn blob(&self, bytes: &[u8]) -> Result<Option<BlobRef>> {
        reference(bytes).map(Some)
    }

    async fn keep(&self, bytes: &[u8]) -> Result<()> {
        let blob = reference(bytes)?;
        if self.blobs.keep(&blob.key).await? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, "codec.offload").with("key", blob.key))
    }
}

/// Reads the reference that stands in the place of arguments.
fn reference(bytes: &[u8]) -> Result<BlobRef> {
    let damaged = || Error::invalid("codec.offload", vec![Fault::new("args", "damaged")]);
    let (len, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (digest, key) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
    let key = std::str::from_utf8(key).map_err(|_| damaged())?;
    Ok(BlobRef { key: key.into(), len: u64::from_le_bytes(*len), digest: *digest })
}
