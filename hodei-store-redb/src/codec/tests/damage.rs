//! Bytes that are no row are told from rows, whatever they are.

use hodei_core::ErrorKind;
use proptest::prelude::*;

use crate::codec::samples::{samples, sealed};
use crate::codec::{decode, encode, unseal};
use crate::table::Tab;

#[test]
fn every_flipped_bit_is_corrupt() {
    for sample in samples() {
        for bit in 0..sample.row.len() * 8 {
            let mut row = sample.row.clone();
            row[bit / 8] ^= 1 << (bit % 8);
            let kind = sample.again(&row).map_err(|error| error.kind());
            assert_eq!(kind, Err(ErrorKind::Corrupt), "{} with bit {bit} flipped", sample.name);
        }
    }
}

#[test]
fn every_cut_and_every_byte_too_many_is_corrupt() {
    for sample in samples() {
        for end in 0..sample.row.len() {
            let kind = sample.again(&sample.row[..end]).map_err(|error| error.kind());
            assert_eq!(kind, Err(ErrorKind::Corrupt), "{} cut at {end}", sample.name);
        }
        let body = &sample.row[..sample.row.len() - 4];
        for longer in [[&sample.row[..], &[0]].concat(), sealed(&[body, &[0]].concat())] {
            let kind = sample.again(&longer).map_err(|error| error.kind());
            assert_eq!(kind, Err(ErrorKind::Corrupt), "{} with a byte too many", sample.name);
        }
    }
}

#[test]
fn a_row_of_another_place_is_corrupt() {
    for sample in samples() {
        let moved = [
            unseal(Tab::Meta, b"another key", &sample.row),
            unseal(Tab::Heads, b"sample", &sample.row),
            unseal(Tab::Meta, b"", &sample.row),
        ];
        for row in moved {
            assert_eq!(row.unwrap_err().kind(), ErrorKind::Corrupt, "{}", sample.name);
        }
    }
}

/// The checksum of schema 1, which does not cover the key, holds for no row but those that a file of it hands down.
#[test]
fn a_checksum_without_the_key_is_taken_of_older_rows_only() {
    for sample in samples() {
        let body = &sample.row[..sample.row.len() - 4];
        let first = [body, &crc32fast::hash(body).to_le_bytes()].concat();
        for tab in Tab::ALL {
            let older = Tab::HANDED_DOWN.contains(tab) && body[0] == 0x21;
            let taken = unseal(*tab, b"any key", &first).is_ok();
            assert_eq!(taken, older, "{} in {}", sample.name, tab.name());
        }
    }
}

#[test]
fn an_unknown_format_is_corrupt_though_its_checksum_holds() {
    for sample in samples() {
        let body = &sample.row[..sample.row.len() - 4];
        for format in (0..=u8::MAX).filter(|format| *format != body[0]) {
            let other = sealed(&[&[format], &body[1..]].concat());
            assert_eq!(sample.again(&other).unwrap_err().kind(), ErrorKind::Corrupt, "{format:#x}");
        }
    }
}

#[test]
fn a_length_that_cannot_be_is_corrupt_before_anything_is_allocated_for_it() {
    for length in [1_u64 << 25, 1 << 40, 1 << 60, u64::MAX] {
        let mut body = vec![0x21, 253];
        body.extend_from_slice(&length.to_le_bytes());
        let row = body;
        assert_eq!(decode::<Vec<u64>>(&row).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(decode::<&str>(&row).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_row_that_could_not_be_read_again_is_not_written() {
    let whole = vec![7_u8; super::super::envelope::ROW_MAX - 64];
    let row = encode(&whole.as_slice(), whole.len()).unwrap();
    assert_eq!(decode::<&[u8]>(&row).unwrap(), whole);
    let over = vec![7_u8; super::super::envelope::ROW_MAX];
    assert_eq!(encode(&over.as_slice(), over.len()).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

/// The kinds whose elements take more room in memory than in a row are read again too when they are large.
#[test]
fn long_lists_are_read_again() {
    let manifest: Vec<(u8, u64, u64, u32)> = vec![(1, 2, 3, 4); 3 << 20];
    let row = encode(&manifest, 0).unwrap();
    assert!(row.len() <= super::super::envelope::ROW_MAX);
    assert_eq!(decode::<Vec<(u8, u64, u64, u32)>>(&row).unwrap(), manifest);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// With a checksum that holds, a body may be a row by chance; it may not be a panic.
    #[test]
    fn forged_bodies_are_rows_or_corrupt(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        cut in 0_usize..4,
        put in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let mut samples = samples();
        let sample = samples.swap_remove(which.index(samples.len()));
        let mut body = sample.row[..sample.row.len() - 4].to_vec();
        let at = at.index(body.len());
        let end = (at + cut).min(body.len());
        body.splice(at..end, put);
        if let Err(error) = sample.again(&sealed(&body)) {
            prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }
}
