//! The port of codecs, and the order in which several are applied.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Fault, Result};
use crate::id::{Name, Tenant};
use crate::job::{BlobRef, Encoding, JobSpec, NewJob, Payload};

/// What encoded arguments begin with. JSON begins with no NUL.
const MARK: [u8; 8] = *b"\0hodei\x01c";

/// What arguments belong to; an encrypting codec binds them to it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct About<'a> {
    /// Whose job it is.
    pub tenant: &'a Tenant,
    /// The handler.
    pub kind: &'a Name,
    /// The version of the arguments.
    pub version: u16,
    /// How the arguments are written.
    pub encoding: Encoding,
}

/// Encodes arguments, and decodes what it encoded.
///
/// # Cancel safety
///
/// A call may be dropped at any point; what it has put away meanwhile is named by nobody, and repeating it does no harm.
#[async_trait]
pub trait PayloadCodec: Send + Sync + fmt::Debug {
    /// Returns the number by which encoded arguments name this codec: 128 or more for codecs of an application.
    fn tag(&self) -> u8;

    /// Encodes bytes, or leaves them as they are.
    ///
    /// # Behavior
    ///
    /// The same bytes about the same thing give the same result, or a repeated submission is another one.
    ///
    /// # Errors
    ///
    /// What keeps it from encoding them; then the job is not submitted.
    async fn encode(&self, about: &About<'_>, bytes: Bytes) -> Result<Option<Bytes>>;

    /// Decodes what [`PayloadCodec::encode`] gave.
    ///
    /// # Errors
    ///
    /// A retryable error has the job retried as its policy says; every other one is final.
    async fn decode(&self, about: &About<'_>, bytes: Bytes) -> Result<Bytes>;

    /// Returns the blob in which the codec keeps what it encoded; nothing where it keeps all of it in the bytes themselves.
    ///
    /// # Errors
    ///
    /// `Invalid` when the bytes are damaged.
    fn blob(&self, bytes: &[u8]) -> Result<Option<BlobRef>> {
        let _ = bytes;
        Ok(None)
    }

    /// Takes notice that bytes which were encoded earlier are about to be stored once more: what they name must not go.
    ///
    /// # Errors
    ///
    /// `NotFound` when it has gone; else what keeps it from taking notice.
    async fn keep(&self, bytes: &[u8]) -> Result<()> {
        let _ = bytes;
        Ok(())
    }
}

const _: fn(&dyn PayloadCodec) = |_| ();

/// Several codecs: encoding applies them in their order, decoding in the reverse one.
///
/// Encoded arguments tell which codecs were applied, so a codec can be added, and one that was removed from the end of
/// use can stay for decoding with [`Codecs::only_decode`].
#[derive(Clone, Debug, Default)]
pub struct Codecs {
    encoders: Vec<Arc<dyn PayloadCodec>>,
    by_tag: HashMap<u8, Arc<dyn PayloadCodec>>,
}

impl Codecs {
    /// No codec: arguments stay as they are.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a codec behind those that are there. Compress before encrypting, and offload last.
    #[must_use]
    pub fn with(mut self, codec: impl PayloadCodec + 'static) -> Self {
        let codec: Arc<dyn PayloadCodec> = Arc::new(codec);
        self.by_tag.insert(codec.tag(), Arc::clone(&codec));
        self.encoders.push(codec);
        self
    }

    /// Adds a codec that decodes what was encoded with it, and encodes nothing more.
    #[must_use]
    pub fn only_decode(mut self, codec: impl PayloadCodec + 'static) -> Self {
        self.by_tag.insert(codec.tag(), Arc::new(codec));
        self
    }

    /// Says whether there is no codec, neither to encode with nor to decode with.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_tag.is_empty()
    }

    /// Says whether arguments are encoded.
    #[must_use]
    pub fn is_encoded(args: &[u8]) -> bool {
        args.starts_with(&MARK)
    }

    /// Encodes arguments. What is encoded already stays as it is, and what it names is kept.
    ///
    /// # Errors
    ///
    /// Those of the codecs.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have put away what a codec keeps elsewhere; encoding it again does no harm.
    pub async fn encode(&self, about: &About<'_>, args: &Bytes) -> Result<Bytes> {
        if Self::is_encoded(args) {
            self.keep(about, args).await?;
            return Ok(args.clone());
        }
        if self.encoders.is_empty() {
            return Ok(args.clone());
        }
        let mut tags = Vec::with_capacity(self.encoders.len());
        let mut bytes = args.clone();
        for codec in &self.encoders {
            if let Some(encoded) = codec.encode(about, bytes.clone()).await? {
                bytes = encoded;
                tags.push(codec.tag());
            }
        }
        // A mark without tags too: what is stored with a codec in use always tells what was done to it.
        let mut marked = Vec::with_capacity(MARK.len() + 1 + tags.len() + bytes.len());
        marked.extend_from_slice(&MARK);
        marked.push(u8::try_from(tags.len()).map_err(|_| Error::new(ErrorKind::Config, "codec.encode"))?);
        marked.extend_from_slice(&tags);
        marked.extend_from_slice(&bytes);
        Ok(marked.into())
    }

    /// Decodes arguments. What is not encoded stays as it is.
    ///
    /// # Errors
    ///
    /// `Invalid`: `args: cut_off | unknown_codec | repeated_codec`; else those of the codecs.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn decode(&self, about: &About<'_>, args: &Bytes) -> Result<Bytes> {
        if !Self::is_encoded(args) {
            return Ok(args.clone());
        }
        let (codecs, mut bytes) = self.applied(args)?;
        for codec in codecs {
            bytes = codec.decode(about, bytes).await?;
        }
        Ok(bytes)
    }

    /// Returns the codecs that encoded arguments name, the last one first, and what it gave.
    fn applied(&self, args: &Bytes) -> Result<(Vec<&dyn PayloadCodec>, Bytes)> {
        let wrong = |code| Error::invalid("codec.decode", vec![Fault::new("args", code)]);
        let tags = usize::from(*args.get(MARK.len()).ok_or_else(|| wrong("cut_off"))?);
        let start = MARK.len() + 1;
        let tagged = args.get(start..start + tags).ok_or_else(|| wrong("cut_off"))?;
        // Encoding applies each once. More would be made up, to have an agent at work on it.
        let repeated = |(at, tag): (usize, &u8)| tagged[..at].contains(tag);
        if tagged.iter().enumerate().any(repeated) {
            return Err(wrong("repeated_codec"));
        }
        let codec = |tag| self.by_tag.get(tag).map(|codec| &**codec).ok_or_else(|| wrong("unknown_codec"));
        let codecs = tagged.iter().rev().map(codec).collect::<Result<_>>()?;
        Ok((codecs, args.slice(start + tags..)))
    }

    /// Returns the blob that a tenant's payload names, decoded as far as that takes; nothing for a command and for arguments
    /// that are in the row.
    ///
    /// # Errors
    ///
    /// As [`Codecs::decode`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn blob_of(&self, tenant: &Tenant, payload: &Payload) -> Result<Option<BlobRef>> {
        let Payload::Handler { kind, version, encoding, args } = payload else { return Ok(None) };
        if !Self::is_encoded(args) {
            return Ok(None);
        }
        let about = About { tenant, kind, version: *version, encoding: *encoding };
        let (codecs, mut bytes) = self.applied(args)?;
        for codec in codecs {
            if let Some(blob) = codec.blob(&bytes)? {
                return Ok(Some(blob));
            }
            bytes = codec.decode(&about, bytes).await?;
        }
        Ok(None)
    }

    /// Has what encoded arguments name kept, for they are about to be stored again.
    async fn keep(&self, about: &About<'_>, args: &Bytes) -> Result<()> {
        // What this node cannot read it can keep nothing of; whoever made it has.
        let Ok((codecs, mut bytes)) = self.applied(args) else { return Ok(()) };
        for codec in codecs {
            if codec.blob(&bytes)?.is_some() {
                return codec.keep(&bytes).await;
            }
            let Ok(decoded) = codec.decode(about, bytes).await else { return Ok(()) };
            bytes = decoded;
        }
        Ok(())
    }

    /// Encodes the arguments of a tenant's spec; a command is returned as it is.
    ///
    /// # Errors
    ///
    /// As [`Codecs::encode`].
    ///
    /// # Cancel safety
    ///
    /// As [`Codecs::encode`].
    pub async fn encode_spec(&self, tenant: &Tenant, spec: &Arc<JobSpec>) -> Result<Arc<JobSpec>> {
        let Payload::Handler { kind, version, encoding, args } = spec.payload() else {
            return Ok(Arc::clone(spec));
        };
        let about = About { tenant, kind, version: *version, encoding: *encoding };
        let encoded = self.encode(&about, args).await?;
        if encoded == *args { Ok(Arc::clone(spec)) } else { Ok(Arc::new(spec.with_args(encoded))) }
    }

    /// Encodes the arguments of jobs that are about to be submitted; each spec once.
    ///
    /// # Errors
    ///
    /// As [`Codecs::encode`]; then nothing is to be submitted.
    ///
    /// # Cancel safety
    ///
    /// As [`Codecs::encode`]; the jobs are gone with the call.
    pub async fn encode_jobs(&self, mut jobs: Vec<NewJob>) -> Result<Vec<NewJob>> {
        if self.encoders.is_empty() {
            return Ok(jobs);
        }
        let mut last: Option<(Tenant, Arc<JobSpec>, Arc<JobSpec>)> = None;
        for job in &mut jobs {
            if let Some((tenant, plain, encoded)) = &last
                && *tenant == job.tenant
                && Arc::ptr_eq(plain, &job.spec)
            {
                job.spec = Arc::clone(encoded);
                continue;
            }
            let encoded = self.encode_spec(&job.tenant, &job.spec).await?;
            let plain = std::mem::replace(&mut job.spec, Arc::clone(&encoded));
            last = Some((job.tenant.clone(), plain, encoded));
        }
        Ok(jobs)
    }

    /// Decodes a tenant's payload; a command and arguments that are not encoded are nothing.
    ///
    /// # Errors
    ///
    /// As [`Codecs::decode`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn decode_payload(&self, tenant: &Tenant, payload: &Payload) -> Result<Option<Payload>> {
        let Payload::Handler { kind, version, encoding, args } = payload else { return Ok(None) };
        if !Self::is_encoded(args) {
            return Ok(None);
        }
        let about = About { tenant, kind, version: *version, encoding: *encoding };
        let args = self.decode(&about, args).await?;
        Ok(Some(Payload::Handler { kind: kind.clone(), version: *version, encoding: *encoding, args }))
    }
}

#[cfg(test)]
mod tests;
