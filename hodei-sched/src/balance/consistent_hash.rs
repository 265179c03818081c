//! The same worker for what belongs together.

use std::collections::BTreeSet;

use super::Balancer;
use crate::machine::placement::{Candidates, WorkerId};

/// How many places a worker has in the ring.
const PLACES: u64 = 16;
/// How many places of the ring are looked at for a job. Where one worker in five has room, one job in a million finds none
/// there.
const LOOKED_AT: usize = 64;

/// Gives jobs with the same key to the same worker, as long as that has not much more than its part of all jobs; else
/// to the next one in the ring (consistent hashing with bounded loads: Mirrokni, Thorup, Zadimoghaddam 2018).
///
/// A worker that comes or goes moves only the keys that it gets or had. Where hardly anybody has room, the ring is not gone
/// through to its end: after 64 places the job goes to the next worker with room behind the one that is first for its key.
#[derive(Clone, Debug)]
pub struct ConsistentHash {
    /// How much more than the average a worker may have, in hundredths.
    above: u64,
    ring: BTreeSet<(u64, WorkerId)>,
    /// The keys of the workers in the ring, by their numbers.
    keys: Vec<Option<u64>>,
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
        let above = u64::from(hundredths.max(1));
        Self { above, ring: BTreeSet::new(), keys: Vec::new(), generation: None }
    }

    /// Puts those into the ring that have come, and takes those out that have gone.
    fn update(&mut self, candidates: &Candidates<'_>) {
        self.keys.resize(self.keys.len().max(candidates.bound() as usize), None);
        let mut there = candidates.everybody().peekable();
        for (number, before) in (0..).zip(&mut self.keys) {
            let worker = there.next_if(|worker| worker.number() == number);
            let now = worker.map(|worker| candidates.key(worker));
            if *before == now {
                continue;
            }
            for at in before.iter().copied().flat_map(places) {
                self.ring.remove(&(at, WorkerId(number)));
            }
            self.ring.extend(now.into_iter().flat_map(places).map(|at| (at, WorkerId(number))));
            *before = now;
        }
        self.generation = Some(candidates.generation());
    }

    /// The next worker in the ring, or behind the first one in it, that has room and fewer jobs than `most`.
    fn fair(&self, candidates: &mut Candidates<'_>, most: u64) -> Option<WorkerId> {
        let hash = mix(candidates.asked().key);
        let begin = (hash, WorkerId(0));
        let mut places = self.ring.range(begin..).chain(self.ring.range(..begin)).map(|(_, worker)| *worker);
        let first = places.clone().next()?;
        let is_fair = |candidates: &mut Candidates<'_>, worker: &WorkerId| {
            u64::from(candidates.running(*worker)) < most && candidates.has_room(*worker)
        };
        let near = places.by_ref().take(LOOKED_AT).find(|worker| is_fair(candidates, worker));
        let behind = |candidates: &mut Candidates<'_>| {
            candidates.next_from(first.number()).filter(|worker| is_fair(candidates, worker))
        };
        near.or_else(|| behind(candidates))
    }
}

impl Balancer for ConsistentHash {
    fn choose(&mut self, candidates: &mut Candidates<'_>) -> Option<WorkerId> {
        if self.generation != Some(candidates.generation()) {
            self.update(candidates);
        }
        let (jobs, workers) = candidates.load();
        let most = ((jobs + 1) * (100 + self.above)).div_ceil(u64::from(workers.max(1)) * 100);
        let fair = self.fair(candidates, most);
        // Where all that have room are above the average, those without room are below it.
        fair.or_else(|| candidates.freest())
    }

    fn another(&self) -> Box<dyn Balancer> {
        Box::new(Self { ring: BTreeSet::new(), keys: Vec::new(), generation: None, ..*self })
    }
}

/// Where a worker with a key is in the ring.
fn places(key: u64) -> impl Iterator<Item = u64> {
    (0..PLACES).map(move |place| mix(key ^ mix(place)))
}

/// Spreads a number over all bits (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
