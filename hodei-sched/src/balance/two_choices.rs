//! The better of two.

use super::Balancer;
use crate::machine::placement::{Candidates, WorkerId};

/// Draws two workers and takes the one with more free slots: nearly as even as looking at all of them
/// (Mitzenmacher 2001).
#[derive(Clone, Debug)]
pub struct TwoChoices {
    seed: u64,
    drawn: u64,
}

impl TwoChoices {
    /// Draws from a seed: the same seed draws the same workers.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// The next number (SplitMix64: Steele, Lea, Flood 2014), below a bound.
    fn draw(&mut self, bound: u32) -> u32 {
        self.drawn = self.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.seed ^ self.drawn;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ (z >> 31);
        u32::try_from((u128::from(z) * u128::from(bound)) >> 64).unwrap_or(0)
    }
}

impl Balancer for TwoChoices {
    fn choose(&mut self, candidates: &mut Candidates<'_>) -> Option<WorkerId> {
        let bound = candidates.bound();
        let first = candidates.next_from(self.draw(bound))?;
        let second = candidates.next_from(self.draw(bound))?;
        let more = candidates.free_slots(second) > candidates.free_slots(first);
        Some(if more { second } else { first })
    }

    fn another(&self) -> Box<dyn Balancer> {
        Box::new(Self::seeded(self.seed.wrapping_add(1)))
    }
}
