//! What may be given to everybody: the key that checkpoints are held to.

use std::fmt;
use std::str::FromStr;

use hodei_core::{Error, ErrorKind, Fault, Result};
use ring::signature::{ED25519, UnparsedPublicKey};

use super::hex::{bytes, hex};

/// The first word of the line.
const FORMAT: &str = "hodei-audit-public-2";

/// The public key of a trail: whoever has it can tell a checkpoint of the trail from one that was made up, and cannot make
/// one.
///
/// It is written as one line of text and read from it again. It has to come from somebody who is believed, not from the
/// database: an Ed25519 key of 32 bytes, which follows from the key of the trail.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuditPublicKey([u8; 32]);

impl AuditPublicKey {
    pub(super) const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Whether a message was signed with the key that belongs to this one.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }

    /// Returns the 32 bytes of the key, as other programs take them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for AuditPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORMAT} {}", hex(&self.0))
    }
}

impl fmt::Debug for AuditPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuditPublicKey").field(&hex(&self.0)).finish()
    }
}

impl FromStr for AuditPublicKey {
    type Err = Error;

    /// Reads what `to_string` wrote, with or without white space around it.
    fn from_str(line: &str) -> Result<Self> {
        let key = line.trim().strip_prefix(FORMAT).and_then(|rest| rest.strip_prefix(' ')).and_then(bytes);
        let malformed = Fault::new("public_key", "malformed");
        key.map(Self)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "audit.public_key").with("fault", malformed))
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::Keys;
    use super::*;

    #[test]
    fn a_line_of_text_is_a_key_again() {
        let key = Keys::of(&[1; 32]).public();
        let line = key.to_string();
        assert_eq!(format!(" {line}\n").parse::<AuditPublicKey>().unwrap(), key);
        let wrong = [
            "",
            "x",
            &line[1..],
            &line[..line.len() - 1],
            &format!("{line}0"),
            &line.to_uppercase(),
            &line.replace(' ', "  "),
        ];
        for wrong in wrong {
            assert_eq!(wrong.parse::<AuditPublicKey>().unwrap_err().kind(), ErrorKind::Invalid, "{wrong}");
        }
    }

    #[test]
    fn the_key_of_a_trail_stays_as_it_is() {
        let line = "hodei-audit-public-2 d47fd0f1af59f79762dc274796cca73393c5d08d354749c33b382d47c76881e8";
        assert_eq!(Keys::of(&[1; 32]).public().to_string(), line);
    }
}
