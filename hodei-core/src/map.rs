//! Maps by job id, which the engine looks up many times for each job.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

use crate::id::JobId;

/// A map by job id.
pub type JobMap<V> = HashMap<JobId, V, IdState>;
/// A set of job ids.
pub type JobSet = HashSet<JobId, IdState>;

/// Makes the hashers of maps whose keys are ids, names and numbers.
///
/// One multiplication for sixteen bytes, where the hasher of the standard library takes dozens of steps. The keys are
/// drawn once per process, so nobody who mints ids can choose ones that collide.
#[derive(Clone, Copy, Debug)]
pub struct IdState {
    keys: [u64; 2],
}

impl Default for IdState {
    fn default() -> Self {
        static KEYS: OnceLock<[u64; 2]> = OnceLock::new();
        let keys = *KEYS.get_or_init(|| {
            let drawn = RandomState::new();
            // An odd multiplier loses nothing of what it multiplies.
            [drawn.hash_one(0_u64), drawn.hash_one(1_u64) | 1]
        });
        Self { keys }
    }
}

impl BuildHasher for IdState {
    type Hasher = IdHasher;

    #[inline]
    fn build_hasher(&self) -> IdHasher {
        IdHasher { hash: self.keys[0], key: self.keys[1] }
    }
}

/// The hasher of [`IdState`].
#[derive(Clone, Debug)]
pub struct IdHasher {
    hash: u64,
    key: u64,
}

impl IdHasher {
    /// Mixes two words in: the halves of their product, so that every bit of one meets every bit of the other.
    #[inline]
    fn mix(&mut self, a: u64, b: u64) {
        let product = u128::from(self.hash ^ a) * u128::from(self.key ^ b);
        let (high, low) = halves(product);
        self.hash = high ^ low;
    }
}

/// Reads less than sixteen bytes as the halves, the higher first, of a number with zeros behind them. Names are mostly
/// short, and a copy of a length that is not known beforehand is a call: what is read twice is shifted out instead.
#[inline]
fn padded(bytes: &[u8]) -> (u64, u64) {
    let bits_from =
        |whole: usize| u32::try_from((2 * whole).saturating_sub(bytes.len()) * 8).unwrap_or(u32::MAX);
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let high = u64::from_le_bytes(*last).checked_shr(bits_from(8)).unwrap_or(0);
        return (high, u64::from_le_bytes(*first));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let high = u32::from_le_bytes(*last).checked_shr(bits_from(4)).unwrap_or(0);
        return (0, u64::from(high) << 32 | u64::from(u32::from_le_bytes(*first)));
    }
    let byte = |at: usize| u64::from(bytes.get(at).copied().unwrap_or(0));
    (0, byte(0) | byte(1) << 8 | byte(2) << 16)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn halves(number: u128) -> (u64, u64) {
    ((number >> 64) as u64, number as u64)
}

impl Hasher for IdHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (whole, rest) = bytes.as_chunks::<16>();
        for words in whole {
            let (high, low) = halves(u128::from_le_bytes(*words));
            self.mix(high, low);
        }
        if !rest.is_empty() {
            let (high, low) = padded(rest);
            self.mix(high, low);
        }
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        // As any other bytes; each text ends with one.
        self.mix(0, u64::from(byte));
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.mix(number, self.hash.rotate_left(32));
    }

    #[inline]
    fn write_usize(&mut self, length: usize) {
        // A length before what is written anyway; ids all have the same one.
        self.hash = self.hash.wrapping_add(length as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Tenant;

    #[test]
    fn ids_that_follow_each_other_spread_over_all_bits() {
        let state = IdState::default();
        let slot = Tenant::default().slot();
        let hashes: Vec<u64> =
            (0..4_096).map(|n| state.hash_one(JobId::from_parts(n, slot, n / 7))).collect();
        let distinct: HashSet<&u64> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
        for bit in 0..64 {
            let ones = hashes.iter().filter(|hash| *hash >> bit & 1 == 1).count();
            assert!((1_500..2_600).contains(&ones), "bit {bit} is set {ones} times of 4096");
        }
    }

    #[test]
    fn few_bytes_are_a_number_with_zeros_behind_them() {
        let bytes: Vec<u8> = (1..16).map(|n| 17 * n).collect();
        for length in 0..=bytes.len() {
            let mut words = [0; 16];
            words[..length].copy_from_slice(&bytes[..length]);
            assert_eq!(padded(&bytes[..length]), halves(u128::from_le_bytes(words)), "{length} bytes");
        }
    }

    #[test]
    fn texts_of_any_length_have_hashes_of_their_own() {
        let state = IdState::default();
        // Of one letter, so that only the length tells them apart, and with one letter that is another.
        let same = (0..100).map(|length| "a".repeat(length));
        let others = (1..100).flat_map(|length| {
            (0..length).map(move |at| format!("{}b{}", "a".repeat(at), "a".repeat(length - at - 1)))
        });
        let texts: Vec<String> = same.chain(others).collect();
        let hashes: HashSet<u64> = texts.iter().map(|text| state.hash_one(text.as_str())).collect();
        assert_eq!(hashes.len(), texts.len());
    }

    #[test]
    fn a_key_of_several_parts_counts_them_all() {
        let state = IdState::default();
        let id = JobId::from_parts(1, Tenant::default().slot(), 1);
        let hashes: HashSet<u64> = (0..1_000_u64).map(|epoch| state.hash_one((id, epoch))).collect();
        assert_eq!(hashes.len(), 1_000);
    }
}
