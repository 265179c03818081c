//! The rows of released versions. A line that changes is a change of the format: it needs a new schema number, and
//! the old line stays readable.

use crate::codec::samples::samples;

/// A name and a row in hex per line.
const ROWS: &str = include_str!("../../../tests/golden/rows-schema-2.txt");

fn hex(row: &[u8]) -> String {
    row.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn rows_are_written_as_ever() {
    let written: String = samples().iter().map(|of| format!("{} {}\n", of.name, hex(&of.row))).collect();
    assert!(written == ROWS, "the format of rows is another; it would be:\n{written}");
}

#[test]
fn rows_of_released_versions_are_read_whole() {
    let samples = samples();
    assert_eq!(ROWS.lines().count(), samples.len());
    for (line, sample) in ROWS.lines().zip(samples) {
        let (name, text) = line.split_once(' ').unwrap();
        let digits: Vec<u8> = text
            .bytes()
            .map(|digit| u8::from_str_radix(char::from(digit).encode_utf8(&mut [0; 4]), 16).unwrap())
            .collect();
        let row: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        assert_eq!((name, (sample.again)(&row).unwrap()), (sample.name, row), "read and written again");
    }
}
