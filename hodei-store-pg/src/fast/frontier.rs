//! How far the claims of each lane have come.
//!
//! The server keeps what was claimed in its indexes until a vacuum: whoever looks for the first ready jobs of a lane passes
//! all of it, each time. A node that takes much from a lane knows where its last claim ended, and has the next one look
//! from there. What is more urgent is looked for first all the same. What came in behind that place meanwhile, late or
//! handed back, waits for [`FRESH`] at most, or until the lane runs short: then it is looked at from its beginning.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::verbs::Picks;

/// For how long claims go on from where one ended before their lane is looked at from its beginning again: 100 ms.
const FRESH: Duration = Duration::from_millis(100);
/// How many jobs a claim has to ask for, and get, for the next one to go on from where it ended.
const MUCH: i64 = 64;
/// Of how many lanes it is known at most: all others are looked at from their beginnings.
const LANES: usize = 10_000;

/// Where in its lane a job is: its rank, and since when it is ready in microseconds.
pub(super) type Place = (i16, i64);

/// Where the last claim of a lane ended, and when the lane was looked at from its beginning.
#[derive(Clone, Copy, Debug)]
struct End {
    place: Place,
    looked_at: Instant,
}

/// Where the last claims of lanes ended.
#[derive(Debug, Default)]
pub(crate) struct Frontier(Mutex<HashMap<i32, End>>);

/// From where on each of some picks looks, as the server takes it; absent where it is from the beginning.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    pub(crate) ranks: Vec<Option<i16>>,
    pub(crate) since: Vec<Option<i64>>,
    at: Option<Instant>,
}

impl Frontier {
    fn ends(&self) -> MutexGuard<'_, HashMap<i32, End>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets them all: something may be ready behind one of them.
    pub(crate) fn forget(&self) {
        self.ends().clear();
    }

    /// Says from where on picks look.
    pub(crate) fn starts(&self, picks: &Picks) -> Starts {
        let now = Instant::now();
        let ends = self.ends();
        let mut starts = Starts { at: Some(now), ..Starts::default() };
        for (n, lane) in picks.lanes.iter().enumerate() {
            let end = ends.get(lane).filter(|end| {
                picks.numbers[n] >= MUCH
                    && picks.has(n, end.place.0)
                    && now.duration_since(end.looked_at) < FRESH
            });
            starts.ranks.push(end.map(|end| end.place.0));
            starts.since.push(end.map(|end| end.place.1));
        }
        starts
    }

    /// Learns where claims ended that began there; each comes with its lane.
    pub(crate) fn ended(&self, picks: &Picks, starts: &Starts, claims: Vec<(i32, Place)>) {
        let mut took: HashMap<i32, (i64, Place)> = HashMap::new();
        for (lane, place) in claims {
            let (jobs, last) = took.entry(lane).or_insert((0, place));
            *jobs += 1;
            *last = place.max(*last);
        }
        // Where a lane was picked more than once each pick ended elsewhere.
        let each_once = picks.rows.len() == picks.lanes.len();
        let mut ends = self.ends();
        for (n, lane) in picks.lanes.iter().enumerate() {
            let asked = picks.numbers[n];
            let before = ends.remove(lane);
            let Some((jobs, place)) = took.get(lane).copied() else { continue };
            if each_once && asked >= MUCH && jobs >= asked && ends.len() < LANES {
                let looked_before = before.filter(|_| starts.since[n].is_some()).map(|end| end.looked_at);
                if let Some(looked_at) = looked_before.or(starts.at) {
                    ends.insert(*lane, End { place, looked_at });
                }
            }
        }
    }
}
