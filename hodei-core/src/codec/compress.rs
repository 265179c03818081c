//! Compression.

use async_trait::async_trait;
use bytes::Bytes;

use super::chain::{About, PayloadCodec};
use crate::error::{Error, Fault, Result};

/// A byte of a block is at most so many when it is decompressed.
const RATIO_MAX: usize = 255;

/// Compresses arguments with LZ4, where that makes them shorter.
#[derive(Clone, Copy, Debug)]
pub struct Compress {
    above: usize,
    most: usize,
}

impl Compress {
    /// Compresses arguments of more than so many bytes; what decompresses to more than 64 MiB is refused.
    #[must_use]
    pub fn above(bytes: usize) -> Self {
        Self { above: bytes, most: 64 * 1024 * 1024 }
    }

    /// Sets how many bytes arguments may have when they are decompressed.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.most = bytes;
        self
    }
}

#[async_trait]
impl PayloadCodec for Compress {
    fn tag(&self) -> u8 {
        1
    }

    async fn encode(&self, _: &About<'_>, bytes: Bytes) -> Result<Option<Bytes>> {
        if bytes.len() <= self.above || bytes.len() > self.most {
            return Ok(None);
        }
        let compressed = lz4_flex::compress_prepend_size(&bytes);
        Ok((compressed.len() < bytes.len()).then(|| compressed.into()))
    }

    async fn decode(&self, _: &About<'_>, bytes: Bytes) -> Result<Bytes> {
        let damaged = || Error::invalid("codec.decompress", vec![Fault::new("args", "damaged")]);
        let (size, body) = lz4_flex::block::uncompressed_size(&bytes).map_err(|_| damaged())?;
        if size / RATIO_MAX > body.len() {
            // Said to have room set aside for nothing.
            return Err(damaged());
        }
        if size > self.most {
            let fault = Fault::new("args", "too_long").limit(self.most as u64);
            return Err(Error::invalid("codec.decompress", vec![fault]));
        }
        lz4_flex::decompress(body, size).map(Bytes::from).map_err(|_| damaged())
    }
}
