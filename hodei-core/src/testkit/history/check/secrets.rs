//! I17: no secret is shown, in whatever encoding.
//!
//! Judged is what stands behind a [`Entry::Secret`] in the history. A store alone, and a simulation of schedulers and agents, has
//! none: jobs name secrets by references, whose values nobody knows but who runs them, and arguments that are to be secret are
//! encrypted before they reach a store. Whoever handles values notes them by [`Recorder::secret`](crate::testkit::history::Recorder::secret)
//! and what was written down by [`Recorder::output`](crate::testkit::history::Recorder::output).

use std::fmt::Write;

use super::super::entry::Entry;
use super::super::report::{Invariant, Report};
use super::book::Book;

/// Parts of a secret that are shorter than this prove nothing: they may stand anywhere.
const PART_MIN: usize = 8;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What must not stand anywhere, and what it is.
struct Pattern {
    secret: usize,
    encoding: &'static str,
    bytes: Vec<u8>,
}

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    let mut patterns: Vec<Pattern> = Vec::new();
    let mut secrets = 0;
    for (at, entry) in book.entries.iter().enumerate() {
        if let Entry::Secret { value } = entry {
            secrets += 1;
            patterns.extend(encodings(value).into_iter().map(|(encoding, bytes)| Pattern {
                secret: secrets,
                encoding,
                bytes,
            }));
        } else if !patterns.is_empty() {
            let shown = shown(entry);
            let found = patterns.iter().find(|pattern| contains(&shown.1, &pattern.bytes));
            if let Some(Pattern { secret, encoding, .. }) = found {
                let text = format!("secret {secret} stands {encoding} in {}, entry {at}", shown.0);
                report.add(Invariant::NoSecretShown, None, text);
            }
        }
    }
}

/// What an entry shows, and where that stands.
fn shown(entry: &Entry) -> (String, Vec<u8>) {
    let log = |what: &str, log: &super::super::entry::LogSeen| format!("{what} of job {}", log.job);
    match entry {
        Entry::LogWritten { log: of, bytes } => (log("the log", of), bytes.clone()),
        Entry::LogRead { log: of, bytes, .. } => (log("what was read", of), bytes.clone()),
        Entry::Output { place, bytes } => (place.clone(), bytes.clone()),
        other => ("the history".to_owned(), serde_json::to_vec(other).unwrap_or_default()),
    }
}

/// A value as it may stand somewhere: itself, each line of it, and in the encodings that people use.
fn encodings(value: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![("plainly", value.to_vec())];
    let lines = value.split(|byte| *byte == b'\n');
    all.extend(lines.map(|line| ("line by line", line.to_vec())));
    for alphabet in [STANDARD, URL] {
        // In a longer text it may begin with any of the three bytes of a group.
        all.extend((0..3).map(|before| ("in base64", base64(value, before, alphabet))));
    }
    for (encoding, upper) in [("in hex", false), ("in upper hex", true)] {
        all.push((encoding, hex(value, upper)));
    }
    all.push(("percent-encoded", percent(value)));
    if let Ok(text) = std::str::from_utf8(value) {
        let quoted = serde_json::to_vec(text).unwrap_or_default();
        all.push((
            "escaped for JSON",
            quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_vec(),
        ));
    }
    all.retain(|(_, bytes)| bytes.len() >= PART_MIN.min(value.len()) && !bytes.is_empty());
    all
}

/// The part of the base64 of a text that a value alone decides, where so many bytes of a group stand before it.
fn base64(value: &[u8], before: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let padded: Vec<u8> = std::iter::repeat_n(0, before).chain(value.iter().copied()).collect();
    let sextets = (0..padded.len() * 8 / 6).map(|n| {
        let bits = (0..6).map(|bit| n * 6 + bit);
        bits.fold(0, |sextet, bit| sextet << 1 | usize::from(padded[bit / 8] >> (7 - bit % 8) & 1))
    });
    let own = (before * 8).div_ceil(6);
    sextets.skip(own).map(|sextet| alphabet[sextet]).collect()
}

fn hex(value: &[u8], upper: bool) -> Vec<u8> {
    let text = value.iter().fold(String::new(), |mut text, byte| {
        let _ = if upper { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
        text
    });
    text.into_bytes()
}

fn percent(value: &[u8]) -> Vec<u8> {
    let text = value.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    });
    text.into_bytes()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_encoding_wherever_it_stands() {
        let secret = b"s3cret/value+ 'n\"q";
        let known = encodings(secret);
        let found = |text: &[u8]| known.iter().any(|(_, bytes)| contains(text, bytes));
        for before in 0..4 {
            let text: Vec<u8> = [&b"abcd"[..before], secret, b"after"].concat();
            assert!(found(&text), "plainly");
            for alphabet in [STANDARD, URL] {
                assert!(found(&base64(&text, 0, alphabet)), "in base64 behind {before}");
            }
            assert!(found(&hex(&text, false)) && found(&hex(&text, true)) && found(&percent(&text)));
            assert!(found(&serde_json::to_vec(std::str::from_utf8(&text).unwrap()).unwrap()));
        }
        assert!(!found(b"s3cret/value"), "a part of a line is not the secret");
    }

    #[test]
    fn base64_is_as_others_write_it() {
        assert_eq!(base64(b"any carnal pleas", 0, STANDARD), b"YW55IGNhcm5hbCBwbGVhc");
        assert_eq!(base64(&[0xfb, 0xff, 0xfe], 0, URL), b"-__-");
    }

    #[test]
    fn the_lines_of_a_key_are_secret_and_short_ones_are_not() {
        let known = encodings(b"-----BEGIN-----\nQUJDREVGR0hJ\n==\n");
        let found = |text: &[u8]| known.iter().any(|(_, bytes)| contains(text, bytes));
        assert!(found(b"a QUJDREVGR0hJ b") && !found(b"a == b"));
    }
}
