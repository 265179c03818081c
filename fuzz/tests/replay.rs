//! Replays the corpora, and random changes of what is in them for as long as `HODEI_FUZZ_SECONDS` says (default 5, for
//! each target).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("below a bound")
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("below 256")
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a corpus").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a file")).collect()
}

/// Changes a few places of an input.
fn change(input: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        match numbers.below(4) {
            0 => bytes.insert(at, numbers.byte()),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            3 if at < bytes.len() => bytes[at] = numbers.byte(),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = corpus(target);
    assert!(!corpus.is_empty());
    corpus.iter().for_each(|input| run(input));
    let seconds = std::env::var("HODEI_FUZZ_SECONDS").map_or(5, |text| text.parse().expect("a number"));
    let seed = u64::from(std::process::id());
    println!("{target}: {} replayed, then changes of seed {seed}", corpus.len());
    let (mut numbers, until, mut runs) =
        (Numbers(seed), Instant::now() + Duration::from_secs(seconds), 0_u64);
    while Instant::now() < until {
        let input = change(&corpus[numbers.below(corpus.len())], &mut numbers);
        let told = std::panic::catch_unwind(|| run(&input));
        assert!(told.is_ok(), "{target} panics on {input:?}");
        runs += 1;
    }
    println!("{target}: {runs} changes in {seconds} s");
}

#[test]
fn rows() {
    replay("rows", hodei_fuzz::rows);
}

#[test]
fn lines() {
    replay("lines", hodei_fuzz::lines);
}

#[test]
fn operations() {
    replay("operations", hodei_fuzz::operations);
}

/// The corpus has every kind of row. `HODEI_FUZZ_SEEDS=write` writes what is missing.
#[test]
fn the_corpus_has_every_kind_of_row() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/rows");
    for (name, bytes) in hodei_fuzz::seeds() {
        let file = folder.join(&name);
        if std::env::var("HODEI_FUZZ_SEEDS").is_ok_and(|what| what == "write") {
            fs::write(&file, &bytes).expect("room");
        }
        assert!(file.exists(), "{name} is missing: run this test with HODEI_FUZZ_SEEDS=write");
    }
}
