//! The rows of the embedded store.

use std::sync::LazyLock;

use hodei_core::ErrorKind;
use hodei_store_redb::testkit::{self, Row};

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(testkit::rows);

/// Reads bytes as a row: the first says of which kind, the second whether a checksum that holds is put behind the rest.
///
/// What is no row is `Corrupt`. What is one is written as a row that is read as the same.
///
/// # Panics
///
/// When it is otherwise.
pub fn rows(data: &[u8]) {
    let [kind, sealed, body @ ..] = data else { return };
    let kind = &ROWS[usize::from(*kind) % ROWS.len()];
    let bytes = if sealed.is_multiple_of(2) { body.to_vec() } else { seal(body) };
    match kind.again(&bytes) {
        Ok(row) => {
            let again = kind.again(&row);
            assert_eq!(again.ok().as_ref(), Some(&row), "a {} is read again as it was written", kind.name);
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{} of {bytes:?}: {error:?}", kind.name),
    }
}

/// Puts the byte of the format before a body and a checksum behind it, as whoever forges a row would.
fn seal(body: &[u8]) -> Vec<u8> {
    testkit::sealed(&[&ROWS[0].bytes[..1], body].concat())
}

/// Returns what a corpus begins with: each kind of row as it is, and as one whose checksum is put behind it.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (number, row) in ROWS.iter().enumerate() {
        let number = u8::try_from(number).expect("there are few kinds");
        let body = &row.bytes[1..row.bytes.len() - 4];
        seeds.push((format!("{}-whole", row.name), [&[number, 0], &row.bytes[..]].concat()));
        seeds.push((format!("{}-body", row.name), [&[number, 1], body].concat()));
    }
    seeds
}
