//! What is hashed, sealed and signed, and how.
//!
//! A link is BLAKE3, without a key, over the link before it (32 bytes; zeros before the first row), the number of the row and
//! the time in microseconds (8 bytes each, little-endian), a byte that says whether there is a tenant, and the five texts
//! (tenant, actor, action, subject, detail), each behind its length (8 bytes, little-endian). So whoever can read the rows can
//! follow the links, and the link of a row stands for all rows up to it. The seal of a row is keyed BLAKE3 over its number and its link.
//! What is signed, by Ed25519, is the line of a checkpoint up to its signature. The key of the seals and the one that signs
//! are derived from the key of the trail.

use std::fmt;
use std::sync::Arc;

use hodei_core::Timestamp;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::public::AuditPublicKey;

/// A link or a seal.
pub(super) type Hash = [u8; 32];

/// A signature.
pub(super) type Signature = [u8; 64];

/// What stands before the first row.
pub(super) const ROOT: Hash = [0; 32];

/// The keys of a trail.
#[derive(Clone)]
pub(super) struct Keys {
    seals: Hash,
    signer: Arc<Ed25519KeyPair>,
}

/// They stay out of every log.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// The texts of a row, as they lie in the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts<'a> {
    pub(super) tenant: Option<&'a str>,
    pub(super) actor: &'a str,
    pub(super) action: &'a str,
    pub(super) subject: &'a str,
    pub(super) detail: &'a str,
}

impl Keys {
    pub(super) fn of(key: &Hash) -> Self {
        let seed = blake3::derive_key("hodei audit 2026-11-27 seed of the key that signs checkpoints", key);
        Self {
            seals: blake3::derive_key("hodei audit 2026-11-27 seal of a row", key),
            signer: Arc::new(Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a seed")),
        }
    }

    /// The key that may be given to everybody.
    pub(super) fn public(&self) -> AuditPublicKey {
        let mut key = [0; 32];
        key.iter_mut().zip(self.signer.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        AuditPublicKey::new(key)
    }

    /// The seal of row `seq` with this link.
    pub(super) fn seal(&self, seq: i64, link: &Hash) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.seals);
        hasher.update(&seq.to_le_bytes());
        hasher.update(link);
        *hasher.finalize().as_bytes()
    }

    /// The signature of a message.
    pub(super) fn sign(&self, message: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature.iter_mut().zip(self.signer.sign(message).as_ref()).for_each(|(to, from)| *to = *from);
        signature
    }
}

/// The link of row `seq` behind a row with the link `before`.
pub(super) fn link(before: &Hash, seq: i64, at: Timestamp, texts: Texts<'_>) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(&seq.to_le_bytes());
    hasher.update(&at.as_micros().to_le_bytes());
    hasher.update(&[u8::from(texts.tenant.is_some())]);
    let Texts { tenant, actor, action, subject, detail } = texts;
    for text in [tenant.unwrap_or_default(), actor, action, subject, detail] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Whether two hashes are one, in a time that does not depend on where they differ.
pub(super) fn same(one: &Hash, other: &Hash) -> bool {
    blake3::Hash::from_bytes(*one) == blake3::Hash::from_bytes(*other)
}

#[cfg(test)]
mod tests {
    use super::super::hex::hex;
    use super::*;

    const TEXTS: Texts<'_> = Texts { tenant: Some("t"), actor: "ab", action: "c", subject: "d", detail: "e" };

    fn of(before: u8, seq: i64, at: i64, texts: Texts<'_>) -> Hash {
        link(&[before; 32], seq, Timestamp::from_micros(at), texts)
    }

    #[test]
    fn a_link_depends_on_everything() {
        let empty = Texts { tenant: Some(""), ..TEXTS };
        let links = [
            of(1, 1, 1, TEXTS),
            of(2, 1, 1, TEXTS),
            of(1, 2, 1, TEXTS),
            of(1, 1, 2, TEXTS),
            of(1, 1, 1, empty),
            of(1, 1, 1, Texts { tenant: None, ..TEXTS }),
            of(1, 1, 1, Texts { actor: "abc", action: "", ..TEXTS }),
            of(1, 1, 1, Texts { subject: "de", detail: "", ..TEXTS }),
            Keys::of(&[1; 32]).seal(1, &of(1, 1, 1, TEXTS)),
            Keys::of(&[2; 32]).seal(1, &of(1, 1, 1, TEXTS)),
            Keys::of(&[1; 32]).seal(2, &of(1, 1, 1, TEXTS)),
            Keys::of(&[1; 32]).seal(1, &of(2, 1, 1, TEXTS)),
        ];
        for (n, one) in links.iter().enumerate() {
            assert!(links[n + 1..].iter().all(|other| !same(one, other)), "{n}");
        }
    }

    #[test]
    fn the_layout_stays_as_it_is() {
        let (link, keys) = (of(0, 1, 2, TEXTS), Keys::of(&[1; 32]));
        assert_eq!(hex(&link), "52f8cc2cbb18cd20a1adcc15442512f81390953c33bc5f740ce32cfe6411274d");
        assert_eq!(
            hex(&keys.seal(1, &link)),
            "ffaf2541c815961059d6ae1278efba6f96d5999317e75b6ef4b5a1bd84ab7107"
        );
        assert_eq!(
            hex(&keys.sign(b"a line")),
            "34b3575d725c309c37582c0e7483a5aa56bd406c8f0cf52966cef082054c4d5d0f84f7c760305d7bdf3b36b5345759d2cd606b379910d90e3d0f5fe4d4103a02"
        );
    }
}
