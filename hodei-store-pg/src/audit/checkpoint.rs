//! A signed note of how far the trail was, to be kept where the database cannot reach it.

use std::fmt;
use std::str::FromStr;

use hodei_core::{Error, ErrorKind, Fault, Result, Timestamp};

use super::chain::{Hash, Keys, Signature};
use super::hex::{bytes, hex};
use super::public::AuditPublicKey;

/// The first word of the line, and so of what is signed: a signature is worth nothing under another line.
const FORMAT: &str = "hodei-audit-2";

/// How many rows there were, and the link of the last of them, signed with the key of the trail.
///
/// It is written as one line of text and read from it again, so that it can be mailed, printed or logged: five words with a
/// space between, which are the format, how many rows there were, when it was made (microseconds since 1970), the link, and
/// the Ed25519 signature of the line up to the space before it. Nothing in it has to be kept secret, and whoever has the
/// public key can tell that it is genuine:
///
/// ```
/// # fn main() -> hodei_core::Result<()> {
/// use hodei_store_pg::{AuditPublicKey, Checkpoint};
///
/// let key: AuditPublicKey =
///     "hodei-audit-public-2 d47fd0f1af59f79762dc274796cca73393c5d08d354749c33b382d47c76881e8".parse()?;
/// let note: Checkpoint = "hodei-audit-2 7 -5 \
///     0303030303030303030303030303030303030303030303030303030303030303 \
///     93ea867f38e06739efccb2fc48237a3c3a66d299840bf4d1a91413c08a6e8d14\
///     7b4160ac0db951e6c736bdda9040b4a49244a2f5c6e76edcca2d467cb1826d00"
///     .parse()?;
/// assert!(note.is_signed_by(&key));
/// # Ok(())
/// # }
/// ```
///
/// That says who made it and what was said then, and no more. Whether the rows are still those that were there, the rows say:
/// [`PgAudit::verify`](crate::PgAudit::verify), and [`PgAudit::verify_public`](crate::PgAudit::verify_public) for who has the
/// public key alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub(super) count: i64,
    pub(super) at: Timestamp,
    pub(super) head: Hash,
    pub(super) signature: Signature,
}

impl Checkpoint {
    pub(super) fn new(keys: &Keys, count: i64, at: Timestamp, head: Hash) -> Self {
        let unsigned = Self { count, at, head, signature: [0; 64] };
        Self { signature: keys.sign(unsigned.signed().as_bytes()), ..unsigned }
    }

    /// Says whether it was made with the key that `key` is the public one of.
    #[must_use]
    pub fn is_signed_by(&self, key: &AuditPublicKey) -> bool {
        key.has_signed(self.signed().as_bytes(), &self.signature)
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

    /// The line up to the signature.
    fn signed(&self) -> String {
        format!("{FORMAT} {} {} {}", self.count, self.at.as_micros(), hex(&self.head))
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.signed(), hex(&self.signature))
    }
}

impl FromStr for Checkpoint {
    type Err = Error;

    /// Reads what `to_string` wrote, with or without white space around it. Whether it is signed shows where it is used.
    fn from_str(line: &str) -> Result<Self> {
        let line = line.trim();
        let read = || {
            let mut words = line.split(' ').skip(1);
            let (count, at) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let (head, signature) = (bytes(words.next()?)?, bytes(words.next()?)?);
            let read = Self { count, at: Timestamp::from_micros(at), head, signature };
            // One checkpoint is one line: no other words, and no number that is written otherwise.
            (count >= 0 && read.to_string() == line).then_some(read)
        };
        read().ok_or_else(|| {
            let fault = Fault::new("checkpoint", "malformed");
            Error::new(ErrorKind::Invalid, "audit.checkpoint").with("fault", fault)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (Keys, Checkpoint) {
        let keys = Keys::of(&[1; 32]);
        let checkpoint = Checkpoint::new(&keys, 7, Timestamp::from_micros(-5), [3; 32]);
        (keys, checkpoint)
    }

    #[test]
    fn a_line_of_text_is_a_checkpoint_again() {
        let (keys, checkpoint) = made();
        let line = checkpoint.to_string();
        let read: Checkpoint = format!("\t{line}\n").parse().unwrap();
        assert_eq!(read, checkpoint);
        assert!(read.is_signed_by(&keys.public()) && !read.is_signed_by(&Keys::of(&[2; 32]).public()));
        let before = line.replacen("hodei-audit-2", "hodei-audit-1", 1);
        for wrong in [
            "",
            "hodei-audit-2 1 1 00 00",
            "hodei-audit-2",
            &before,
            &line[1..],
            &line.to_uppercase(),
            &format!("{line} x"),
            &line.replace(" 7 ", " -7 "),
            &line.replace(" 7 ", " +7 "),
            &line.replace(" 7 ", " 07 "),
            &line.replace(" 7 ", " 7  "),
            &line.replace(" 7 ", " 99999999999999999999 "),
        ] {
            assert_eq!(wrong.parse::<Checkpoint>().unwrap_err().kind(), ErrorKind::Invalid, "{wrong}");
        }
    }

    #[test]
    fn a_change_of_any_part_is_not_signed() {
        let (keys, checkpoint) = made();
        let flipped = |mut bytes: Hash| {
            bytes[31] ^= 1;
            bytes
        };
        let mut signature = checkpoint.signature;
        let signatures = (0..64).map(|byte| {
            signature = checkpoint.signature;
            signature[byte] ^= 0x80;
            Checkpoint { signature, ..checkpoint }
        });
        let others = [
            Checkpoint { count: 8, ..checkpoint },
            Checkpoint { count: -7, ..checkpoint },
            Checkpoint { at: Timestamp::from_micros(5), ..checkpoint },
            Checkpoint { head: flipped(checkpoint.head), ..checkpoint },
            Checkpoint { signature: [0; 64], ..checkpoint },
            // Signed by the same key, but another text.
            Checkpoint { signature: keys.sign(checkpoint.to_string().as_bytes()), ..checkpoint },
            Checkpoint {
                signature: keys.sign(&checkpoint.signed().as_bytes()["hodei-audit-2 ".len()..]),
                ..checkpoint
            },
            Checkpoint::new(&Keys::of(&[2; 32]), 7, checkpoint.at, checkpoint.head),
        ];
        for forged in signatures.chain(others) {
            assert!(!forged.is_signed_by(&keys.public()), "{forged}");
        }
    }

    /// Ten thousand lines that are nearly one: none panics, what is read prints itself, and nothing but the line is signed.
    #[test]
    fn a_line_that_was_bent_is_refused_or_not_signed() {
        let (keys, checkpoint) = made();
        let line = checkpoint.to_string();
        let (mut refused, mut unsigned) = (0, 0);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        let with = [" ", "0", "7", "a", "f", "-", "+", "A", "g", "ñ", "\u{a0}", "\0", "\n", "hodei-audit-2"];
        for _ in 0..10_000 {
            let mut bent: Vec<char> = line.chars().collect();
            for _ in 0..=next(2) {
                let at = next(bent.len());
                let end = at + next((bent.len() - at).min(3) + 1);
                bent.splice(at..end, with[next(with.len())].chars());
            }
            let bent: String = bent.into_iter().collect();
            match bent.parse::<Checkpoint>() {
                Ok(read) if read == checkpoint => assert_eq!(bent.trim(), line),
                Ok(read) => {
                    assert_eq!(read.to_string(), bent.trim());
                    assert!(!read.is_signed_by(&keys.public()), "{bent}");
                    unsigned += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Invalid);
                    refused += 1;
                }
            }
        }
        assert!(refused > 1_000 && unsigned > 200, "{refused} refused, {unsigned} not signed");
    }
}
