//! What happened, line by line.

use std::collections::VecDeque;
use std::fmt::{self, Write};

use hodei_core::JobId;
use hodei_core::map::JobMap;

/// The lines of a simulation: all of them in one hash, the last ones as text.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    lines: u64,
    line: String,
    tail: VecDeque<String>,
    keep: usize,
    /// Jobs by the order in which they were first named: ids that the store mints differ from run to run.
    names: JobMap<u32>,
}

impl Trace {
    pub(super) fn new(keep: usize) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            line: String::with_capacity(256),
            tail: VecDeque::new(),
            keep,
            names: JobMap::default(),
        }
    }

    /// Adds a line.
    pub(super) fn line(&mut self, text: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a string does not fail.
        let _ = self.line.write_fmt(text);
        self.line.push('\n');
        self.hash = mixed(self.hash, self.line.as_bytes());
        self.lines += 1;
        if self.keep > 0 {
            if self.tail.len() == self.keep {
                self.tail.pop_front();
            }
            self.tail.push_back(self.line.trim_end().to_owned());
        }
    }

    /// Returns the number under which the trace knows a job.
    pub(super) fn name(&mut self, job: JobId) -> u32 {
        let next = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        *self.names.entry(job).or_insert(next)
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    pub(super) fn into_tail(self) -> Vec<String> {
        self.tail.into()
    }
}

/// Takes bytes into a hash, eight at a time.
fn mixed(mut hash: u64, bytes: &[u8]) -> u64 {
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x2127_599b_f432_5c37);
        hash ^= hash >> 29;
    }
    hash.wrapping_mul(0x100_0000_01b3) ^ bytes.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts_and_the_tail_is_bounded() {
        let trace = |texts: &[&str]| {
            let mut trace = Trace::new(2);
            texts.iter().for_each(|text| trace.line(format_args!("{text}")));
            trace
        };
        assert_eq!(trace(&["a", "b"]).hash(), trace(&["a", "b"]).hash());
        assert_ne!(trace(&["a", "b"]).hash(), trace(&["b", "a"]).hash());
        assert_ne!(trace(&["ab"]).hash(), trace(&["a", "b"]).hash());
        let long = trace(&["one", "two", "three"]);
        assert_eq!((long.lines(), long.into_tail()), (3, vec!["two".to_owned(), "three".to_owned()]));
    }
}
