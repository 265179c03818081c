//! The rows of every schema. A line that changes is a change of the format: it needs a new schema number, and the old line
//! stays readable.
//!
//! Each text has the rows that its schema was the first to have, or to have otherwise: schema 5 changed no row, it is the first
//! to have a number of the jobs that wait again beside them. Whole files of every schema, each written by a version that had it,
//! are read in `tests/it/migrate.rs`.

use crate::codec::samples::samples;

/// A name and a row in hex per line: those of schema 2, and what schemas 3 and 4 have beside them.
const BEFORE: &str = concat!(
    include_str!("../../../tests/golden/rows-schema-2.txt"),
    include_str!("../../../tests/golden/rows-schema-3.txt"),
    include_str!("../../../tests/golden/rows-schema-4.txt")
);
/// What schema 6 has in the place of some of them.
const SIXTH: &str = include_str!("../../../tests/golden/rows-schema-6.txt");
/// The kind that schema 6 has beside its own of that name while a file is being counted by queue, and its name today.
const UNCOUNTED: (&str, &str) = ("counts", "uncounted");
/// The same of schema 1, whose checksums did not cover the key.
const FIRST: &str = include_str!("../../../tests/golden/rows-schema-1.txt");
/// Kinds that schema 2 writes otherwise, or not at all: files that have them are migrated.
const MIGRATED: [&str; 9] =
    ["head", "head-full", "spec", "spec-full", "spec-handler", "lane", "lane-handler", "place", "counts"];

/// The rows as they are written now.
fn rows() -> String {
    let (uncounted, stays): (Vec<&str>, Vec<&str>) =
        BEFORE.lines().partition(|line| line.split(' ').next() == Some(UNCOUNTED.0));
    let uncounted = uncounted.into_iter().map(|line| line.replacen(UNCOUNTED.0, UNCOUNTED.1, 1));
    let stays = stays.into_iter().map(str::to_owned).chain(uncounted);
    stays.chain(SIXTH.lines().map(str::to_owned)).map(|line| line + "\n").collect()
}

fn hex(row: &[u8]) -> String {
    row.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes lines apart: names and rows.
fn lines(text: &str) -> Vec<(&str, Vec<u8>)> {
    let row = |digits: &str| -> Vec<u8> {
        let digit = |byte: &u8| u8::from_str_radix(char::from(*byte).encode_utf8(&mut [0; 4]), 16).unwrap();
        digits.as_bytes().chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect()
    };
    text.lines().map(|line| line.split_once(' ').unwrap()).map(|(name, digits)| (name, row(digits))).collect()
}

#[test]
fn rows_are_written_as_ever() {
    let written: String = samples().iter().map(|of| format!("{} {}\n", of.name, hex(&of.row))).collect();
    assert!(written == rows(), "the format of rows is another; it would be:\n{written}");
}

#[test]
fn rows_of_every_schema_are_read_whole() {
    let samples = samples();
    let rows = rows();
    assert_eq!(lines(&rows).len(), samples.len());
    let first = lines(FIRST);
    assert!(MIGRATED.iter().all(|name| first.iter().any(|(other, _)| other == name)));
    let first = first.into_iter().filter(|(name, _)| !MIGRATED.contains(name));
    for (name, row) in first.chain(lines(&rows)) {
        let sample = samples.iter().find(|sample| sample.name == name).expect("a kind that there is");
        assert_eq!(sample.again(&row).unwrap(), sample.row, "{name} is read, and written again");
    }
}
