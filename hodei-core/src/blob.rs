//! The port of bytes that are too large for a row.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::job::BlobRef;
use crate::time::{Clock, SystemClock, Timestamp};

/// A blob as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Arc<str>,
    /// How long ago it was put, or was kept, last.
    pub age: Duration,
    /// Which putting or keeping that was: another one has another number.
    pub stamp: u64,
}

/// Keeps bytes by a key. Keys are made of what they name ([`blob_of`]), so equal bytes share a blob, which is wanted for as long
/// as anybody names it.
///
/// Who names a blob puts or keeps it first. Who removes what nobody names any more lists what is old, looks who names it, and
/// removes what has not been put or kept meanwhile: so nothing is removed that somebody is about to name.
///
/// # Cancel safety
///
/// A dropped write may have happened, whole; repeating it does no harm. Reads may be dropped at any point.
#[async_trait]
pub trait BlobStore: Send + Sync + fmt::Debug {
    /// Keeps bytes. An `Ok` is the acknowledgement: they are there for everybody who has the key. Idempotent, but for the age,
    /// which begins anew.
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

    /// Begins the age of a blob anew, for whoever is about to name it again; `false` when there is none.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn keep(&self, key: &str) -> Result<bool>;

    /// Lists up to so many blobs by their keys, from behind one on.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Listed>>;

    /// Removes a blob that has been neither put nor kept since it was listed; `false` when it has, or is not there.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn remove_unchanged(&self, key: &str, stamp: u64) -> Result<bool>;

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
///
/// # Cancel safety
///
/// Cancel safe: it only reads.
pub async fn read_blob(blobs: &dyn BlobStore, blob: &BlobRef) -> Result<Bytes> {
    let bytes = blobs.get(&blob.key).await?;
    if bytes.len() as u64 == blob.len && *blake3::hash(&bytes).as_bytes() == blob.digest {
        Ok(bytes)
    } else {
        Err(Error::new(ErrorKind::Corrupt, "blob.read").with("key", &blob.key))
    }
}

/// Blobs in memory, gone with the process.
#[derive(Debug)]
pub struct MemoryBlobs {
    /// A std mutex, held for a look-up or a page of a list.
    kept: Mutex<Kept>,
    most: Option<u64>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct Kept {
    blobs: BTreeMap<Arc<str>, Blob>,
    /// The number of the last putting.
    stamp: u64,
}

#[derive(Debug)]
struct Blob {
    bytes: Bytes,
    at: Timestamp,
    stamp: u64,
}

impl Default for MemoryBlobs {
    fn default() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }
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

    /// Makes an empty store without a bound that tells ages by a clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { kept: Mutex::default(), most: None, clock }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        let mut kept = self.kept();
        if let Some(most) = self.most {
            let others = kept.blobs.iter().filter(|(other, _)| &***other != key);
            let used: u64 = others.map(|(_, blob)| blob.bytes.len() as u64).sum();
            if used.saturating_add(bytes.len() as u64) > most {
                return Err(Error::new(ErrorKind::LimitExceeded, "blob.put").with("limit", most));
            }
        }
        kept.stamp += 1;
        let (at, stamp) = (self.clock.now(), kept.stamp);
        kept.blobs.insert(key.into(), Blob { bytes, at, stamp });
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        let missing = || Error::new(ErrorKind::NotFound, "blob.get").with("key", key);
        self.kept().blobs.get(key).map(|blob| blob.bytes.clone()).ok_or_else(missing)
    }

    async fn keep(&self, key: &str) -> Result<bool> {
        let kept = &mut *self.kept();
        kept.stamp += 1;
        let Some(blob) = kept.blobs.get_mut(key) else { return Ok(false) };
        (blob.at, blob.stamp) = (self.clock.now(), kept.stamp);
        Ok(true)
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Listed>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (kept, now) = (self.kept(), self.clock.now());
        let listed = kept.blobs.range::<str, _>((from, Bound::Unbounded)).take(limit).map(|(key, blob)| {
            Listed { key: Arc::clone(key), age: now.saturating_since(blob.at), stamp: blob.stamp }
        });
        Ok(listed.collect())
    }

    async fn remove_unchanged(&self, key: &str, stamp: u64) -> Result<bool> {
        let mut kept = self.kept();
        let unchanged = kept.blobs.get(key).is_some_and(|blob| blob.stamp == stamp);
        Ok(unchanged && kept.blobs.remove(key).is_some())
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        Ok(self.kept().blobs.remove(key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    #[tokio::test]
    async fn what_was_put_or_kept_since_it_was_listed_is_not_removed() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1)));
        let blobs = MemoryBlobs::with_clock(Arc::<ManualClock>::clone(&clock));
        for key in ["a", "b", "c", "d"] {
            blobs.put(key, key.into()).await.unwrap();
        }
        clock.advance(Duration::from_secs(9));
        let listed = blobs.list(None, 10).await.unwrap();
        assert!(listed.iter().all(|blob| blob.age == Duration::from_secs(9)));
        let page: Vec<Arc<str>> =
            blobs.list(Some("a"), 2).await.unwrap().into_iter().map(|blob| blob.key).collect();
        assert_eq!(page, ["b".into(), "c".into()]);
        blobs.put("a", "a".into()).await.unwrap();
        assert!(blobs.keep("b").await.unwrap() && !blobs.keep("x").await.unwrap());
        assert!(blobs.remove("d").await.unwrap());
        let mut removed = Vec::new();
        for blob in &listed {
            removed.push(blobs.remove_unchanged(&blob.key, blob.stamp).await.unwrap());
        }
        assert_eq!(removed, [false, false, true, false]);
        assert_eq!(blobs.list(None, 10).await.unwrap()[0].age, Duration::ZERO);
    }
}
