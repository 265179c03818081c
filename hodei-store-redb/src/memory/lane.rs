//! The lanes, and what waits in them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use hodei_core::job::{Priority, Request};
use hodei_core::{JobId, Timestamp};

/// A place in a lane; the order of places is the order in which jobs are claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// 63 − level.
    rank: u8,
    pub(crate) eligible_at: Timestamp,
    pub(crate) id: JobId,
}

impl Place {
    pub(crate) fn new(level: Priority, eligible_at: Timestamp, id: JobId) -> Self {
        Self { rank: rank(level), eligible_at, id }
    }

    /// The place before all jobs of a rank.
    const fn first(rank: u8) -> Self {
        Self { rank, eligible_at: Timestamp::from_micros(i64::MIN), id: JobId::from_bytes([0; 16]) }
    }

    /// The place before all jobs of a level.
    pub(crate) fn before(level: Priority) -> Self {
        Self::first(rank(level))
    }

    /// Says whether the job is of at least a level.
    pub(crate) fn is_at_least(&self, floor: Priority) -> bool {
        self.rank <= rank(floor)
    }

    fn level(&self) -> Priority {
        // Made of a level.
        Priority::new(Priority::MAX.level().saturating_sub(self.rank)).unwrap_or(Priority::MIN)
    }
}

fn rank(level: Priority) -> u8 {
    Priority::MAX.level() - level.level()
}

/// What is to be known of a job before it is claimed, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// When it must have been claimed.
    pub(crate) deadline: Option<Timestamp>,
    /// Whether it is as it was born.
    pub(crate) newborn: bool,
}

/// What is known of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaneState {
    /// What its jobs ask of a worker.
    pub(crate) request: Arc<Request>,
    /// What can be claimed, in order.
    ready: BTreeMap<Place, Waiting>,
    /// How many can be claimed at each rank.
    depths: BTreeMap<u8, u64>,
    /// How many wait for their time.
    pub(super) waiting: u64,
}

impl LaneState {
    pub(super) fn new(request: Arc<Request>) -> Self {
        Self { request, ready: BTreeMap::new(), depths: BTreeMap::new(), waiting: 0 }
    }

    pub(super) fn insert(&mut self, place: Place, waiting: Waiting) {
        if self.ready.insert(place, waiting).is_none() {
            *self.depths.entry(place.rank).or_default() += 1;
        }
    }

    /// Takes in what is ready where nothing was.
    pub(super) fn fill(&mut self, mut ready: Vec<(Place, Waiting)>) {
        ready.sort_unstable_by_key(|(place, _)| *place);
        for of_rank in ready.chunk_by(|(a, _), (b, _)| a.rank == b.rank) {
            self.depths.insert(of_rank[0].0.rank, of_rank.len() as u64);
        }
        self.ready = BTreeMap::from_iter(ready);
    }

    /// Takes a job out, and says whether it was there.
    pub(super) fn remove(&mut self, place: &Place) -> bool {
        let there = self.ready.remove(place).is_some();
        if there && let Some(depth) = self.depths.get_mut(&place.rank) {
            *depth -= 1;
            if *depth == 0 {
                self.depths.remove(&place.rank);
            }
        }
        there
    }

    /// Says whether nothing is in it, ready or not.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.waiting == 0
    }

    /// Goes through the levels with ready work, the highest first: since when its first job is ready, and how many are ready there.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (Priority, Timestamp, u64)> + '_ {
        self.depths.iter().filter_map(|(rank, depth)| {
            let (place, _) = self.ready.range(Place::first(*rank)..).next()?;
            Some((place.level(), place.eligible_at, *depth))
        })
    }

    /// How many can be claimed before a place; those of its own rank are gone through, up to so many.
    pub(crate) fn before(&self, place: &Place, most: usize) -> u64 {
        let above: u64 = self.depths.range(..place.rank).map(|(_, jobs)| jobs).sum();
        above + self.ready.range(Place::first(place.rank)..*place).take(most).count() as u64
    }

    /// Goes through what is ready, behind a place.
    pub(super) fn behind(&self, after: Option<Place>) -> impl Iterator<Item = (Place, Waiting)> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.ready.range((from, Bound::Unbounded)).map(|(place, waiting)| (*place, *waiting))
    }
}
