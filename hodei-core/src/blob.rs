//! The port of bytes that are too large for a row.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::job::BlobRef;

/// Keeps bytes by a key. Keys are made of what they name ([`blob_of`]), so writing the same bytes again changes nothing.
#[async_trait]
pub trait BlobStore: Send + Sync + fmt::Debug {
    /// Keeps bytes. An `Ok` is the acknowledgement: they are there for everybody who has the key. Idempotent.
    ///
    /// # Errors
    ///
    /// Only those of the store itself; then the bytes may be there or not. `LimitExceeded` when they are too many.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()>;

    /// Reads bytes back.
    ///
    /// # Errors
    ///
    /// `NotFound` when nothing is kept under the key; else those of the store itself.
    async fn get(&self, key: &str) -> Result<Bytes>;

    /// Removes bytes; `false` when there were none.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn remove(&self, key: &str) -> Result<bool>;
}

const _: fn(&dyn BlobStore) = |_| ();

/// Returns the reference of bytes: their key is the BLAKE3 hash of them, in hexadecimal digits.
#[must_use]
pub fn blob_of(bytes: &[u8]) -> BlobRef {
    let digest = blake3::hash(bytes);
    BlobRef { key: digest.to_hex().as_str().into(), len: bytes.len() as u64, digest: *digest.as_bytes() }
}

/// Reads what a reference names, and checks that it is what was put there.
///
/// # Errors
///
/// As [`BlobStore::get`]; `Corrupt` when the bytes are others.
pub async fn read_blob(blobs: &dyn BlobStore, blob: &BlobRef) -> Result<Bytes> {
    let bytes = blobs.get(&blob.key).await?;
    if bytes.len() as u64 == blob.len && *blake3::hash(&bytes).as_bytes() == blob.digest {
        Ok(bytes)
    } else {
        Err(Error::new(ErrorKind::Corrupt, "blob.read").with("key", &blob.key))
    }
}

/// Blobs in memory, gone with the process.
#[derive(Debug, Default)]
pub struct MemoryBlobs {
    /// A std mutex, held for a look-up.
    kept: Mutex<HashMap<Arc<str>, Bytes>>,
    most: Option<u64>,
}

impl MemoryBlobs {
    /// Makes an empty store without a bound.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty store that keeps at most so many bytes.
    #[must_use]
    pub fn at_most(bytes: u64) -> Self {
        Self { most: Some(bytes), ..Self::default() }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Arc<str>, Bytes>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        let mut kept = self.kept();
        if let Some(most) = self.most {
            let others = kept.iter().filter(|(other, _)| &***other != key);
            let used: u64 = others.map(|(_, bytes)| bytes.len() as u64).sum();
            if used.saturating_add(bytes.len() as u64) > most {
                return Err(Error::new(ErrorKind::LimitExceeded, "blob.put").with("limit", most));
            }
        }
        kept.insert(key.into(), bytes);
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        let missing = || Error::new(ErrorKind::NotFound, "blob.get").with("key", key);
        self.kept().get(key).cloned().ok_or_else(missing)
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        Ok(self.kept().remove(key).is_some())
    }
}
