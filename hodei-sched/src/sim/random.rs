//! The only source of chance in a simulation.

use std::time::Duration;

/// A stream of numbers that a seed decides: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins the stream of a seed.
    #[must_use]
    pub const fn of_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// Begins a stream of its own, so that what one part draws changes nothing for another.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.bits() ^ 0x5851_f42d_4c95_7f2d)
    }

    /// Draws 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws a number below `end`, or 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of the product is even enough over a range this small.
        let product = u128::from(self.bits()) * u128::from(end);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// Draws a place in a list of `len` items; 0 when there are none.
    pub fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Draws one of several; nothing from an empty list.
    pub fn pick<'l, T>(&mut self, of: &'l [T]) -> Option<&'l T> {
        let place = self.place(of.len());
        of.get(place)
    }

    /// Comes true so many times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1_000) < u64::from(per_mille)
    }

    /// Draws a duration from `least` on, below `most`.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let range = most.saturating_sub(least);
        least + Duration::from_micros(self.below(u64::try_from(range.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Draws a duration of some milliseconds.
    pub fn millis(&mut self, least: u64, most: u64) -> Duration {
        self.between(Duration::from_millis(least), Duration::from_millis(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything_and_ranges_are_kept() {
        let (mut a, mut b) = (Random::of_seed(7), Random::of_seed(7));
        assert!((0..100).all(|_| a.bits() == b.bits()));
        assert!((0..1_000).all(|_| a.below(7) < 7 && (10..20).contains(&a.millis(10, 20).as_millis())));
        assert_eq!((a.below(0), a.pick::<u8>(&[])), (0, None));
        let hits = (0..10_000).filter(|_| a.chance(250)).count();
        assert!((2_200..2_800).contains(&hits), "{hits}");
    }
}
