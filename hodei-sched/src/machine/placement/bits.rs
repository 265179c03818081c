//! Sets of small numbers.

/// A set of small numbers, a bit each; above them a bit for each word that is not empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    full: Vec<u64>,
    len: u32,
}

impl Bits {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn has(&self, n: u32) -> bool {
        self.words.get(word(n)).is_some_and(|word| word & bit(n) != 0)
    }

    /// Adds a number; whether it was new.
    pub(super) fn set(&mut self, n: u32) -> bool {
        if self.words.len() <= word(n) {
            self.words.resize(word(n) + 1, 0);
            self.full.resize(word(n) / 64 + 1, 0);
        }
        self.full[word(n) / 64] |= 1 << (word(n) % 64);
        let word = &mut self.words[word(n)];
        let new = *word & bit(n) == 0;
        *word |= bit(n);
        self.len += u32::from(new);
        new
    }

    /// Takes a number out; whether it was there.
    pub(super) fn clear(&mut self, n: u32) -> bool {
        let at = word(n);
        let Some(word) = self.words.get_mut(at) else { return false };
        let there = *word & bit(n) != 0;
        *word &= !bit(n);
        if *word == 0 {
            self.full[at / 64] &= !(1 << (at % 64));
        }
        self.len -= u32::from(there);
        there
    }

    pub(super) fn put(&mut self, n: u32, there: bool) -> bool {
        if there { self.set(n) } else { self.clear(n) }
    }

    /// The first number from `from` on that is in both sets.
    pub(super) fn first_common(&self, other: &Self, from: u32) -> Option<u32> {
        let both = |at: usize| Some(self.words.get(at)? & other.words.get(at)?);
        let number = |at: usize, word: u64| {
            let first = u32::try_from(at * 64).ok()?;
            Some(first + word.trailing_zeros())
        };
        let first = word(from);
        let here = both(first)? & (u64::MAX << (from % 64));
        if here != 0 {
            return number(first, here);
        }
        // Only words that neither set leaves empty are looked at.
        let mut top = (first + 1) / 64;
        let mut mask = u64::MAX << ((first + 1) % 64);
        loop {
            let mut full = self.full.get(top)? & other.full.get(top)? & mask;
            while full != 0 {
                let at = top * 64 + full.trailing_zeros() as usize;
                let common = both(at)?;
                if common != 0 {
                    return number(at, common);
                }
                full &= full - 1;
            }
            mask = u64::MAX;
            top += 1;
        }
    }

    /// Goes through the numbers, in order.
    pub(super) fn ones(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.words).flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let first = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(at * 64 + first)
            })
        })
    }

    /// Adds what is in another set.
    pub(super) fn add(&mut self, other: &Self) {
        self.words.resize(self.words.len().max(other.words.len()), 0);
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
        self.count();
    }

    /// Keeps what is in another set.
    pub(super) fn keep(&mut self, other: &Self) {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter_mut().zip(others).for_each(|(word, other)| *word &= other);
        self.count();
    }

    /// Takes out what is in another set.
    pub(super) fn drop_all(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
        self.count();
    }

    fn count(&mut self) {
        self.full.clear();
        self.full.resize(self.words.len().div_ceil(64), 0);
        for at in (0..self.words.len()).filter(|at| self.words[*at] != 0) {
            self.full[at / 64] |= 1 << (at % 64);
        }
        self.len = self.words.iter().map(|word| word.count_ones()).sum();
    }
}

fn word(n: u32) -> usize {
    (n / 64) as usize
}

fn bit(n: u32) -> u64 {
    1 << (n % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(numbers: &BTreeSet<u32>) -> Bits {
        let mut bits = Bits::default();
        numbers.iter().for_each(|n| {
            bits.set(*n);
        });
        bits
    }

    proptest! {
        #[test]
        fn sets_behave_as_sets(
            a in prop::collection::btree_set(prop_oneof![0_u32..300, 0_u32..20_000], 0..60),
            b in prop::collection::btree_set(prop_oneof![0_u32..300, 0_u32..20_000], 0..60),
            from in prop_oneof![0_u32..310, 0_u32..20_100],
        ) {
            let (x, y) = (of(&a), of(&b));
            prop_assert!(x.ones().eq(a.iter().copied()));
            prop_assert_eq!(x.first_common(&y, from), a.intersection(&b).copied().find(|n| *n >= from));
            let check = |change: fn(&mut Bits, &Bits), expected: BTreeSet<u32>| {
                let mut changed = x.clone();
                change(&mut changed, &y);
                prop_assert!(changed.ones().eq(expected.iter().copied()));
                prop_assert_eq!(changed.is_empty(), expected.is_empty());
                Ok(())
            };
            check(Bits::add, a.union(&b).copied().collect())?;
            check(Bits::keep, a.intersection(&b).copied().collect())?;
            check(Bits::drop_all, a.difference(&b).copied().collect())?;
            let mut less = x.clone();
            prop_assert_eq!(less.clear(from), a.contains(&from));
            prop_assert!(!less.has(from));
        }
    }
}
