//! A hierarchical timer wheel: entering, leaving and firing cost the same however many wait.
//!
//! Six rings of 64 buckets (Varghese and Lauck 1987). A bucket of the first ring spans 1,024 µs, one of each further
//! ring 64 times as much; what lies beyond the last ring, two years, waits in it and is looked at again. Buckets are
//! arrays: an entry is twelve bytes, and whoever entered it keeps where it is.

/// A bucket of the first ring spans 2¹⁰ µs.
const TICK_BITS: u32 = 10;
const RING_BITS: u32 = 6;
const RINGS: u32 = 6;
const BUCKETS: usize = 1 << RING_BITS;

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) bucket: u32,
    pub(super) index: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    due: i64,
    key: u32,
}

/// Keys by when they are due, in microseconds.
#[derive(Debug)]
pub(super) struct Wheel {
    buckets: Vec<Vec<Entry>>,
    /// Which buckets of each ring hold anything.
    full: [u64; RINGS as usize],
    /// Everything due before this tick has fired.
    tick: u64,
    /// No bucket need be looked at before this tick.
    soonest: u64,
    len: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        let buckets = vec![Vec::new(); BUCKETS * RINGS as usize];
        Self { buckets, full: [0; RINGS as usize], tick: 0, soonest: u64::MAX, len: 0 }
    }
}

impl Wheel {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether [`Wheel::advance`] may have anything to do; else time has passed.
    #[inline]
    pub(super) fn is_due(&mut self, now: i64) -> bool {
        let last = tick_of(now);
        let due = last >= self.soonest;
        if !due {
            // Nothing lies between.
            self.tick = self.tick.max(last);
        }
        due
    }

    /// Enters a key.
    pub(super) fn insert(&mut self, due: i64, key: u32) -> Spot {
        self.len += 1;
        self.place(Entry { due, key })
    }

    /// Takes an entry out. Another one may have moved into its spot: its key is returned.
    pub(super) fn remove(&mut self, spot: Spot) -> Option<u32> {
        let bucket = &mut self.buckets[spot.bucket as usize];
        bucket.swap_remove(spot.index as usize);
        self.len -= 1;
        let moved = bucket.get(spot.index as usize).map(|entry| entry.key);
        if bucket.is_empty() {
            self.clear(spot.bucket as usize);
        }
        moved
    }

    /// Takes out what is due, in no order, and tells where what stays has gone.
    pub(super) fn advance(
        &mut self,
        now: i64,
        fired: &mut Vec<(i64, u32)>,
        mut moved: impl FnMut(u32, Spot),
    ) {
        let last = tick_of(now);
        loop {
            // Where nothing waits in the buckets between, time jumps.
            let next = self.next_tick();
            self.soonest = next.unwrap_or(u64::MAX);
            let Some(next) = next.filter(|next| *next <= last) else {
                self.tick = self.tick.max(last);
                return;
            };
            self.tick = self.tick.max(next);
            self.cascade(&mut moved);
            let at = bucket(self.tick);
            let mut kept = 0;
            let bucket = &mut self.buckets[at];
            for n in 0..bucket.len() {
                let entry = bucket[n];
                if entry.due <= now {
                    fired.push((entry.due, entry.key));
                } else {
                    // Due within this very tick, but later than now.
                    bucket[kept] = entry;
                    moved(entry.key, Spot { bucket: index(at), index: index(kept) });
                    kept += 1;
                }
            }
            self.len -= bucket.len() - kept;
            bucket.truncate(kept);
            if kept > 0 {
                return;
            }
            self.clear(at);
        }
    }

    /// Returns when to come back at the latest: when the first entry is due, or earlier.
    pub(super) fn next_due(&self) -> Option<i64> {
        let tick = self.next_tick()?;
        let at = bucket(tick);
        let first = || self.buckets[at].iter().map(|entry| entry.due).min();
        let near = self.full[0] & (1 << at) != 0 && tick < self.tick + BUCKETS as u64;
        let start = i64::try_from(tick << TICK_BITS).unwrap_or(i64::MAX);
        Some(if near { first().unwrap_or(start) } else { start })
    }

    /// The first tick at which a bucket must be looked at.
    fn next_tick(&self) -> Option<u64> {
        let mut first: Option<u64> = None;
        for ring in 0..RINGS {
            let full = self.full[ring as usize];
            if full == 0 {
                continue;
            }
            let shift = ring * RING_BITS;
            let turn = self.tick >> shift;
            let at = turn & (BUCKETS as u64 - 1);
            // The bucket under the hand of a higher ring was dealt out when the hand came, and nothing enters it.
            let ahead = u64::from(full.rotate_right(u32::try_from(at).unwrap_or(0)).trailing_zeros());
            let tick = (turn + ahead) << shift;
            first = Some(first.map_or(tick, |first| first.min(tick)));
        }
        first
    }

    /// Deals out the buckets of the higher rings whose time begins with this tick.
    fn cascade(&mut self, moved: &mut impl FnMut(u32, Spot)) {
        for ring in (1..RINGS).rev() {
            let shift = ring * RING_BITS;
            if self.tick & ((1 << shift) - 1) != 0 {
                continue;
            }
            let at = bucket(self.tick >> shift) + BUCKETS * ring as usize;
            let entries = std::mem::take(&mut self.buckets[at]);
            self.clear(at);
            for entry in &entries {
                let spot = self.place(*entry);
                moved(entry.key, spot);
            }
            if self.buckets[at].is_empty() {
                // Its room is used again.
                self.buckets[at] = entries;
                self.buckets[at].clear();
            }
        }
    }

    fn place(&mut self, entry: Entry) -> Spot {
        let due = tick_of(entry.due).max(self.tick);
        let apart = due - self.tick;
        // The first ring whose span holds it; what is farther than the last ring reaches waits at its end.
        let ring = if apart < BUCKETS as u64 {
            0
        } else {
            ((63 - apart.leading_zeros()) / RING_BITS).min(RINGS - 1)
        };
        let shift = ring * RING_BITS;
        let reach = (1_u64 << (shift + RING_BITS)) - (1 << shift);
        let due = due.min(self.tick + reach);
        let at = bucket(due >> shift);
        self.soonest = self.soonest.min(due >> shift << shift);
        self.full[ring as usize] |= 1 << at;
        let bucket = &mut self.buckets[at + BUCKETS * ring as usize];
        bucket.push(entry);
        Spot { bucket: index(at + BUCKETS * ring as usize), index: index(bucket.len() - 1) }
    }

    fn clear(&mut self, bucket: usize) {
        self.full[bucket / BUCKETS] &= !(1 << (bucket % BUCKETS));
    }
}

fn tick_of(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or(0) >> TICK_BITS
}

/// The place of a turn in its ring.
fn bucket(turn: u64) -> usize {
    usize::try_from(turn % BUCKETS as u64).unwrap_or(0)
}

fn index(n: usize) -> u32 {
    u32::try_from(n).expect("fewer than 2^32 entries")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;

    use super::*;

    /// The wheel beside a sorted map.
    #[derive(Default)]
    struct Pair {
        wheel: Wheel,
        spots: HashMap<u32, Spot>,
        model: BTreeMap<(i64, u32), ()>,
        dues: HashMap<u32, i64>,
        now: i64,
    }

    impl Pair {
        fn insert(&mut self, key: u32, due: i64) {
            let spot = self.wheel.insert(due, key);
            self.spots.insert(key, spot);
            self.model.insert((due, key), ());
            self.dues.insert(key, due);
        }

        fn remove(&mut self, key: u32) {
            let Some(spot) = self.spots.remove(&key) else { return };
            if let Some(moved) = self.wheel.remove(spot) {
                self.spots.insert(moved, spot);
            }
            let due = self.dues.remove(&key).expect("it is there");
            self.model.remove(&(due, key));
        }

        fn advance(&mut self, by: i64) {
            self.now += by;
            let mut fired = Vec::new();
            let spots = &mut self.spots;
            self.wheel.advance(self.now, &mut fired, |key, spot| {
                spots.insert(key, spot);
            });
            fired.sort_unstable();
            let later = self.model.split_off(&(self.now + 1, 0));
            let due: Vec<(i64, u32)> = std::mem::replace(&mut self.model, later).into_keys().collect();
            assert_eq!(fired, due, "at {}", self.now);
            for (_, key) in due {
                self.spots.remove(&key);
                self.dues.remove(&key);
            }
            assert_eq!(self.wheel.len(), self.model.len());
            let first = self.model.keys().next().map(|(due, _)| *due);
            match (self.wheel.next_due(), first) {
                (None, None) => {}
                (Some(told), Some(first)) => assert!(told <= first, "{told} is later than {first}"),
                other => panic!("{other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn everything_fires_when_it_is_due(
            ops in prop::collection::vec((0_u8..4, 0_i64..1 << 45, 0_u32..40), 1..200),
        ) {
            let mut pair = Pair::default();
            let mut next = 0_u32;
            for (op, number, bits) in ops {
                let span = number >> bits;
                match op {
                    0 | 1 => {
                        pair.insert(next, pair.now + span);
                        next += 1;
                    }
                    2 => pair.remove(bits % next.max(1)),
                    _ => pair.advance(span),
                }
            }
            for _ in 0..60 {
                let Some(due) = pair.wheel.next_due() else { break };
                pair.advance((due - pair.now).max(0));
            }
            pair.advance(1 << 46);
            prop_assert_eq!(pair.wheel.len(), 0);
        }
    }
}
