//! Encryption.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};

use super::chain::{About, PayloadCodec};
use crate::error::{Error, Fault, Result};

const NONCE: usize = 24;
const KEY_ID: usize = 4;

/// Encrypts arguments with XChaCha20-Poly1305, bound to their tenant, handler, version and encoding: what was moved to a job of
/// another tenant or handler is not opened. They are not bound to their job, so whoever can write the store can exchange those of
/// two jobs that agree in all four.
///
/// The nonce is a keyed BLAKE3 hash of the arguments and of what they belong to, under a key of its own that is derived
/// from the key. So a repeated submission gives the same bytes, and a nonce comes twice only for the same message. Whoever
/// reads the store can therefore tell that two jobs have equal arguments, and how long they are.
///
/// To rotate keys, give every agent the new key as an old one, then make it the current one of every node, and set the schedules
/// again, whose arguments were encrypted when they were set. Remove the old key when no job that was encrypted with it is kept
/// any more. An agent that lacks a key fails the run with an error that is retried as the job's policy says.
#[derive(Clone)]
pub struct Encrypt {
    current: u32,
    keys: HashMap<u32, Key>,
}

#[derive(Clone)]
struct Key {
    cipher: XChaCha20Poly1305,
    nonces: [u8; 32],
}

impl Key {
    fn new(key: [u8; 32]) -> Self {
        let nonces = blake3::derive_key("hodei 2026-11-26 nonces of payload encryption", &key);
        Self { cipher: XChaCha20Poly1305::new(&key.into()), nonces }
    }
}

impl fmt::Debug for Encrypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids: Vec<&u32> = self.keys.keys().collect();
        ids.sort_unstable();
        f.debug_struct("Encrypt").field("current", &self.current).field("keys", &ids).finish_non_exhaustive()
    }
}

impl Encrypt {
    /// Encrypts with a key of 32 random bytes, which goes by a number.
    #[must_use]
    pub fn with_key(id: u32, key: [u8; 32]) -> Self {
        Self { current: id, keys: HashMap::from([(id, Key::new(key))]) }
    }

    /// Adds a key that opens what was encrypted with it. The current key stays what it is, whatever the number.
    #[must_use]
    pub fn and_old_key(mut self, id: u32, key: [u8; 32]) -> Self {
        self.keys.entry(id).or_insert_with(|| Key::new(key));
        self
    }

    /// What the arguments are bound to. Each part is told by its length or has a fixed one.
    fn bound(id: u32, about: &About<'_>) -> Vec<u8> {
        let mut bound = id.to_le_bytes().to_vec();
        for part in [about.tenant.as_str(), about.kind.as_str()] {
            bound.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bound.extend_from_slice(part.as_bytes());
        }
        bound.extend_from_slice(&about.version.to_le_bytes());
        bound.push(about.encoding as u8);
        bound
    }
}

#[async_trait]
impl PayloadCodec for Encrypt {
    fn tag(&self) -> u8 {
        2
    }

    async fn encode(&self, about: &About<'_>, bytes: Bytes) -> Result<Option<Bytes>> {
        let wrong = |code| Error::invalid("codec.encrypt", vec![Fault::new("args", code)]);
        let key = self.keys.get(&self.current).ok_or_else(|| wrong("unknown_key"))?;
        let bound = Self::bound(self.current, about);
        let mut hash = blake3::Hasher::new_keyed(&key.nonces);
        hash.update(&(bound.len() as u64).to_le_bytes()).update(&bound).update(&bytes);
        let mut nonce = [0; NONCE];
        hash.finalize_xof().fill(&mut nonce);
        let sealed = key.cipher.encrypt(&XNonce::from(nonce), Payload { msg: &bytes, aad: &bound });
        let sealed = sealed.map_err(|_| wrong("too_long"))?;
        Ok(Some([&self.current.to_le_bytes()[..], &nonce, &sealed].concat().into()))
    }

    async fn decode(&self, about: &About<'_>, bytes: Bytes) -> Result<Bytes> {
        let wrong = |code| Error::invalid("codec.decrypt", vec![Fault::new("args", code)]);
        let (id, rest) = bytes.split_first_chunk::<KEY_ID>().ok_or_else(|| wrong("cut_off"))?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or_else(|| wrong("cut_off"))?;
        let id = u32::from_le_bytes(*id);
        let key = self.keys.get(&id).ok_or_else(|| wrong("unknown_key"))?;
        let bound = Self::bound(id, about);
        let opened = key.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &bound });
        opened.map(Bytes::from).map_err(|_| wrong("not_opened"))
    }
}
