//! A sealed note of how far the trail was, to be kept where the database cannot reach it.

use std::fmt;
use std::str::FromStr;

use hodei_core::{Error, ErrorKind, Fault, Result, Timestamp};

use super::chain::{Hash, Keys, same};

/// How many rows there were, and the link of the last of them, sealed with the key of the trail.
///
/// It is written as one line of text and read from it again, so that it can be mailed, printed or logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub(super) count: i64,
    pub(super) at: Timestamp,
    pub(super) head: Hash,
    pub(super) seal: Hash,
}

impl Checkpoint {
    pub(super) fn new(keys: &Keys, count: i64, at: Timestamp, head: Hash) -> Self {
        Self { count, at, head, seal: keys.seal(count, at, &head) }
    }

    pub(super) fn is_sealed(&self, keys: &Keys) -> bool {
        same(&self.seal, &keys.seal(self.count, self.at, &self.head))
    }

    /// Returns how many rows there were.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count.unsigned_abs()
    }

    /// Returns when it was made, by the clock of the database.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "hodei-audit-1 {} {} {} {}",
            self.count,
            self.at.as_micros(),
            hex(&self.head),
            hex(&self.seal)
        )
    }
}

impl FromStr for Checkpoint {
    type Err = Error;

    /// Reads what `to_string` wrote. Whether it is sealed shows where it is used.
    fn from_str(line: &str) -> Result<Self> {
        let read = || {
            let mut words = line.split_whitespace();
            let known = words.next()? == "hodei-audit-1";
            let (count, at) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let (head, seal) = (hash(words.next()?)?, hash(words.next()?)?);
            let whole = known && count >= 0 && words.next().is_none();
            whole.then_some(Self { count, at: Timestamp::from_micros(at), head, seal })
        };
        read().ok_or_else(|| {
            let fault = Fault::new("checkpoint", "malformed");
            Error::new(ErrorKind::Invalid, "audit.checkpoint").with("fault", fault)
        })
    }
}

fn hex(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

fn hash(text: &str) -> Option<Hash> {
    blake3::Hash::from_hex(text).ok().map(|hash| *hash.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_text_is_a_checkpoint_again() {
        let keys = Keys::of(&[1; 32]);
        let checkpoint = Checkpoint::new(&keys, 7, Timestamp::from_micros(-5), [3; 32]);
        let line = checkpoint.to_string();
        let read: Checkpoint = line.parse().unwrap();
        assert_eq!(read, checkpoint);
        assert!(read.is_sealed(&keys) && !read.is_sealed(&Keys::of(&[2; 32])));
        let forged: Checkpoint = line.replacen(" 7 ", " 6 ", 1).parse().unwrap();
        assert!(!forged.is_sealed(&keys));
        for wrong in
            ["", "hodei-audit-2 1 1 00 00", &line[1..], &format!("{line} x"), &line.replace(" 7 ", " -7 ")]
        {
            assert_eq!(wrong.parse::<Checkpoint>().unwrap_err().kind(), ErrorKind::Invalid, "{wrong}");
        }
    }
}
