//! How much is done: little among the other tests, much in the long proofs.

use std::time::Duration;

/// The number in a variable of the environment, or another.
pub(super) fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Numbers that follow from a seed: SplitMix64 (Steele, Lea, Flood 2014). It shows the seed, until a number is asked for.
#[derive(Debug)]
pub(super) struct Numbers(u64);

impl Numbers {
    /// Begins with the seed of a variable, or with one that differs from run to run.
    pub(super) fn new(name: &str) -> Self {
        Self(variable(name, u64::from(std::process::id())))
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(super) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}
