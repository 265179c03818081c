//! What is hashed, and how: the layout of a link and of a seal.
//!
//! A link is keyed BLAKE3 over the link before it (32 bytes; zeros before the first row), the number of the row and the time
//! in microseconds (8 bytes each, little-endian), a byte that says whether there is a tenant, and the five texts (tenant,
//! actor, action, subject, detail), each behind its length (8 bytes, little-endian). A seal of a checkpoint is keyed BLAKE3
//! over the count, the time and the link of the last row that it counts. Each has a key of its own, derived from the key of
//! the trail.

use std::fmt;

use hodei_core::Timestamp;

/// A link or a seal.
pub(super) type Hash = [u8; 32];

/// What stands before the first row.
pub(super) const ROOT: Hash = [0; 32];

/// The keys of a trail.
#[derive(Clone)]
pub(super) struct Keys {
    links: Hash,
    seals: Hash,
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
        Self {
            links: blake3::derive_key("hodei audit 2026-11-26 link of a row", key),
            seals: blake3::derive_key("hodei audit 2026-11-26 seal of a checkpoint", key),
        }
    }

    /// The link of row `seq` behind a row with the link `before`.
    pub(super) fn link(&self, before: &Hash, seq: i64, at: Timestamp, texts: Texts<'_>) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.links);
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

    /// The seal of a checkpoint.
    pub(super) fn seal(&self, count: i64, at: Timestamp, head: &Hash) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.seals);
        hasher.update(&count.to_le_bytes());
        hasher.update(&at.as_micros().to_le_bytes());
        hasher.update(head);
        *hasher.finalize().as_bytes()
    }
}

/// Whether two hashes are one, in a time that does not depend on where they differ.
pub(super) fn same(one: &Hash, other: &Hash) -> bool {
    blake3::Hash::from_bytes(*one) == blake3::Hash::from_bytes(*other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: Texts<'_> = Texts { tenant: Some("t"), actor: "ab", action: "c", subject: "d", detail: "e" };

    fn link(key: u8, before: u8, seq: i64, at: i64, texts: Texts<'_>) -> Hash {
        Keys::of(&[key; 32]).link(&[before; 32], seq, Timestamp::from_micros(at), texts)
    }

    #[test]
    fn a_link_depends_on_everything() {
        let empty = Texts { tenant: Some(""), ..TEXTS };
        let links = [
            link(1, 1, 1, 1, TEXTS),
            link(2, 1, 1, 1, TEXTS),
            link(1, 2, 1, 1, TEXTS),
            link(1, 1, 2, 1, TEXTS),
            link(1, 1, 1, 2, TEXTS),
            link(1, 1, 1, 1, empty),
            link(1, 1, 1, 1, Texts { tenant: None, ..TEXTS }),
            link(1, 1, 1, 1, Texts { actor: "abc", action: "", ..TEXTS }),
            link(1, 1, 1, 1, Texts { subject: "de", detail: "", ..TEXTS }),
            Keys::of(&[1; 32]).seal(1, Timestamp::from_micros(1), &[1; 32]),
        ];
        for (n, one) in links.iter().enumerate() {
            assert!(links[n + 1..].iter().all(|other| !same(one, other)), "{n}");
        }
    }

    #[test]
    fn the_layout_stays_as_it_is() {
        let hex: String = link(1, 0, 1, 2, TEXTS).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "653bb0e705f936730ab084a2baa0c2baac7d77fb47c1a96c8f9fbdbc31c78f18");
    }
}
