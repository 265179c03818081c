//! The order of many turns.

use super::rounds::Turn;

/// Not in the heap.
const OUT: u32 = u32::MAX;

/// Two heaps of turns, by their places in the list of turns: those that would have begun in the ideal, by when they
/// would have finished, and the others, by when they begin. Every turn is in one of them, and knows where.
#[derive(Debug)]
pub(super) struct Crowd {
    eligible: Heap,
    waiting: Heap,
}

#[derive(Debug, Default)]
struct Heap {
    /// The key and the place of each turn, the least first.
    entries: Vec<(u64, u32)>,
    /// Where in the heap the turn of each place is.
    spots: Vec<u32>,
}

impl Crowd {
    pub(super) fn of(turns: &[Turn], now: u64) -> Self {
        let mut crowd = Self { eligible: Heap::default(), waiting: Heap::default() };
        (0..turns.len()).for_each(|place| crowd.add(turns, place, now));
        crowd
    }

    /// Adds the turn of a place.
    pub(super) fn add(&mut self, turns: &[Turn], place: usize, now: u64) {
        let turn = &turns[place];
        if turn.start <= now {
            self.eligible.insert(turn.finish, place);
        } else {
            self.waiting.insert(turn.start, place);
        }
    }

    /// Takes a turn out. The turn of the last place is going to have its place.
    pub(super) fn remove(&mut self, turns: &[Turn], place: usize) {
        let last = turns.len() - 1;
        for heap in [&mut self.eligible, &mut self.waiting] {
            heap.remove(place);
            heap.rename(last, place);
        }
    }

    /// The place of the turn that is next; time skips to the first one that begins when none would have begun.
    pub(super) fn next(&mut self, turns: &[Turn], now: &mut u64) -> Option<usize> {
        loop {
            while let Some((_, place)) = self.waiting.first().filter(|(start, _)| start <= now) {
                self.waiting.remove(place);
                self.eligible.insert(turns[place].finish, place);
            }
            if let Some((_, place)) = self.eligible.first() {
                return Some(place);
            }
            *now = self.waiting.first()?.0;
        }
    }

    /// The turn of a place is the next one of its member now.
    pub(super) fn served(&mut self, turns: &[Turn], place: usize, now: u64) {
        self.eligible.remove(place);
        self.waiting.remove(place);
        self.add(turns, place, now);
    }
}

impl Heap {
    fn first(&self) -> Option<(u64, usize)> {
        self.entries.first().map(|(key, place)| (*key, *place as usize))
    }

    fn insert(&mut self, key: u64, place: usize) {
        let spot = self.entries.len();
        self.entries.push((key, u32::try_from(place).expect("fewer than 2^32 turns")));
        self.rise(spot);
    }

    fn remove(&mut self, place: usize) {
        let Some(spot) = self.spots.get(place).copied().filter(|spot| *spot != OUT) else { return };
        let spot = spot as usize;
        self.entries.swap_remove(spot);
        self.spots[place] = OUT;
        if spot < self.entries.len() {
            let spot = self.rise(spot);
            self.sink(spot);
        }
    }

    /// The turn of a place has another place now.
    fn rename(&mut self, from: usize, to: usize) {
        let Some(spot) = self.spots.get(from).copied().filter(|spot| *spot != OUT) else { return };
        self.spots[from] = OUT;
        self.entries[spot as usize].1 = u32::try_from(to).expect("fewer than 2^32 turns");
        self.note(spot as usize);
    }

    fn rise(&mut self, mut spot: usize) -> usize {
        while spot > 0 {
            let above = (spot - 1) / 2;
            if self.entries[above] <= self.entries[spot] {
                break;
            }
            self.entries.swap(above, spot);
            self.note(spot);
            spot = above;
        }
        self.note(spot);
        spot
    }

    fn sink(&mut self, mut spot: usize) {
        loop {
            let mut least = spot;
            for below in [2 * spot + 1, 2 * spot + 2] {
                if below < self.entries.len() && self.entries[below] < self.entries[least] {
                    least = below;
                }
            }
            if least == spot {
                break;
            }
            self.entries.swap(least, spot);
            self.note(spot);
            spot = least;
        }
        if spot < self.entries.len() {
            self.note(spot);
        }
    }

    fn note(&mut self, spot: usize) {
        let place = self.entries[spot].1 as usize;
        if self.spots.len() <= place {
            self.spots.resize(place + 1, OUT);
        }
        self.spots[place] = u32::try_from(spot).expect("fewer than 2^32 turns");
    }
}
