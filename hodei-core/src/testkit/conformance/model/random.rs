//! Numbers that a seed makes, or a fuzzer gives.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose operations. Where bytes are given, each is a
/// number, and the seed speaks after them.
#[derive(Debug)]
pub(super) struct Random {
    state: u64,
    given: std::vec::IntoIter<u8>,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self::given(Vec::new(), seed)
    }

    pub(super) fn given(bytes: Vec<u8>, seed: u64) -> Self {
        Self { state: seed, given: bytes.into_iter() }
    }

    /// Whether every byte that was given is spent.
    pub(super) fn is_spent(&self) -> bool {
        self.given.len() == 0
    }

    pub(super) fn next(&mut self) -> u64 {
        if let Some(byte) = self.given.next() {
            return byte.into();
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`, which is not zero.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("it is below a usize")
    }

    /// Says yes so many times in a hundred.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.below(from.len())].clone()) }
    }

    /// Picks from a list that is not empty.
    pub(super) fn one_of<T: Clone>(&mut self, from: &[T]) -> T {
        self.pick(from).expect("the list is not empty")
    }
}
