//! The same worker for what belongs together.

use super::Balancer;
use crate::machine::placement::{Candidates, WorkerId};

/// How many places a worker has in the ring.
const PLACES: u64 = 16;

/// Gives jobs with the same key to the same worker, as long as that has not much more than its part of all jobs; else
/// to the next one in the ring (consistent hashing with bounded loads: Mirrokni, Thorup, Zadimoghaddam 2018).
///
/// A worker that comes or goes moves only the keys that it gets or had.
#[derive(Clone, Debug)]
pub struct ConsistentHash {
    /// How much more than the average a worker may have, in hundredths.
    above: u64,
    ring: Vec<(u64, WorkerId)>,
    generation: Option<u64>,
}

impl Default for ConsistentHash {
    fn default() -> Self {
        Self::new()
    }
}

impl ConsistentHash {
    /// Lets no worker have more than a quarter above the average.
    #[must_use]
    pub fn new() -> Self {
        Self::bounded(25)
    }

    /// Lets no worker have more than so many hundredths above the average; at least one.
    #[must_use]
    pub fn bounded(hundredths: u32) -> Self {
        Self { above: u64::from(hundredths.max(1)), ring: Vec::new(), generation: None }
    }

    fn rebuild(&mut self, candidates: &Candidates<'_>) {
        self.ring.clear();
        for worker in candidates.everybody() {
            let key = candidates.key(worker);
            self.ring.extend((0..PLACES).map(|place| (mix(key ^ mix(place)), worker)));
        }
        self.ring.sort_unstable();
        self.generation = Some(candidates.generation());
    }
}

impl Balancer for ConsistentHash {
    fn choose(&mut self, candidates: &mut Candidates<'_>) -> Option<WorkerId> {
        if self.generation != Some(candidates.generation()) {
            self.rebuild(candidates);
        }
        let (jobs, workers) = candidates.load();
        let most = ((jobs + 1) * (100 + self.above)).div_ceil(u64::from(workers.max(1)) * 100);
        let hash = mix(candidates.asked().key);
        let start = self.ring.partition_point(|(at, _)| *at < hash);
        let (before, behind) = self.ring.split_at(start);
        let fair = behind
            .iter()
            .chain(before)
            .map(|(_, worker)| *worker)
            .find(|worker| u64::from(candidates.running(*worker)) < most && candidates.has_room(*worker));
        // Where all that have room are above the average, those without room are below it.
        fair.or_else(|| candidates.freest())
    }

    fn another(&self) -> Box<dyn Balancer> {
        Box::new(Self { above: self.above, ring: Vec::new(), generation: None })
    }
}

/// Spreads a number over all bits (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
