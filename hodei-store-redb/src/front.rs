//! The newest jobs of all tenants, for lists that begin with them.
//!
//! A list over all tenants has a range for each tenant and state, and whoever reads it opens them all. Whoever has read its
//! beginning leaves it here, and the next one finds it: each commit brings it up to date, for as long as somebody asks now
//! and then. A store of which nobody lists all tenants keeps nothing, and its commits do nothing for it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;

use hodei_core::job::State;
use hodei_core::{JobId, Timestamp};

use crate::memory::Delta;

/// How many of the newest jobs of a state are kept at least, where there are as many; twice as many at most.
pub(crate) const KEPT: usize = if cfg!(test) { 8 } else { 1_024 };
/// How many jobs may have moved since somebody asked; beyond, what is kept is forgotten.
const UNASKED_MAX: usize = 100_000;
/// How many moves are noted while somebody reads; beyond, what is read is not kept.
const NOTED_MAX: usize = 100_000;

/// The place of a job in every list.
pub(crate) type Place = (Timestamp, JobId);

/// What a commit did to a list.
#[derive(Debug)]
enum Event {
    /// A job came into a state, from one or anew.
    Moved(Place, Option<State>, State),
    /// Jobs that had ended were removed.
    Gone(HashSet<JobId>),
}

/// The newest jobs of a state.
#[derive(Clone, Debug, Default)]
struct Newest {
    places: BTreeSet<Place>,
    /// Above it there is every job of the state; without it, every one at all.
    floor: Option<Place>,
}

impl Newest {
    fn insert(&mut self, place: Place) {
        if self.floor.is_some_and(|floor| place <= floor) {
            return;
        }
        self.places.insert(place);
        if self.places.len() > 2 * KEPT {
            let floor = self.places.iter().rev().nth(KEPT).copied();
            if let Some(floor) = floor {
                self.places = self.places.split_off(&floor);
                self.places.remove(&floor);
            }
            self.floor = floor;
        }
    }
}

/// The newest jobs by state, as far as somebody has asked for them.
type States = [Option<Newest>; State::ALL.len()];

/// Somebody reads the newest jobs of some states, as of a commit.
#[derive(Debug)]
struct Reading {
    number: u64,
    /// What the commits did since.
    since: Vec<Event>,
}

/// Names what is being read. Only the last one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// The newest jobs of all tenants as of the last commit.
#[derive(Debug, Default)]
pub(crate) struct Front {
    newest: States,
    reading: Option<Reading>,
    /// How many were begun.
    begun: u64,
    /// How many jobs have moved since somebody asked.
    unasked: usize,
}

impl Front {
    /// Returns the first places of a list of some states behind a place, newest first: so many, or all that there are.
    /// Nothing where that many are not known.
    pub(crate) fn page(
        &mut self,
        states: &[State],
        after: Option<Place>,
        most: usize,
    ) -> Option<Vec<(Place, State)>> {
        let mut floor: Option<Place> = None;
        let mut places = Vec::new();
        let behind = (Bound::Unbounded, after.map_or(Bound::Unbounded, Bound::Excluded));
        for state in states {
            let newest = self.newest[*state as usize].as_ref()?;
            floor = floor.max(newest.floor);
            places.extend(newest.places.range(behind).rev().take(most).map(|place| (*place, *state)));
        }
        places.retain(|(place, _)| floor.is_none_or(|floor| *place > floor));
        if places.len() < most && floor.is_some() {
            return None;
        }
        places.sort_unstable_by_key(|(place, _)| Reverse(*place));
        places.truncate(most);
        self.unasked = 0;
        Some(places)
    }

    /// Notes that somebody reads the beginning of a list as of this commit.
    pub(crate) fn begin(&mut self) -> Ticket {
        self.begun += 1;
        self.reading = Some(Reading { number: self.begun, since: Vec::new() });
        Ticket(self.begun)
    }

    /// Takes in what was read: the newest jobs of some states, newest first. They are all where `whole`; else the last one
    /// is the first that is not kept.
    pub(crate) fn take_in(&mut self, ticket: Ticket, states: &[State], read: &[(Place, State)], whole: bool) {
        let Some(reading) = self.reading.take_if(|reading| Ticket(reading.number) == ticket) else { return };
        let floor = read.last().filter(|_| !whole).map(|(place, _)| *place);
        let mut newest = States::default();
        for state in states {
            let above =
                |(place, of): &&(Place, State)| of == state && floor.is_none_or(|floor| *place > floor);
            let places = read.iter().filter(above).map(|(place, _)| *place).collect();
            newest[*state as usize] = Some(Newest { places, floor });
        }
        reading.since.iter().for_each(|event| follow(&mut newest, event));
        for (kept, newest) in self.newest.iter_mut().zip(newest) {
            *kept = newest.or_else(|| kept.take());
        }
        self.unasked = 0;
    }

    /// Takes over what a commit did.
    pub(crate) fn follow(&mut self, delta: &Delta) {
        if self.reading.is_none() && self.newest.iter().all(Option::is_none) {
            return;
        }
        let gone: HashSet<JobId> = delta.forgotten.iter().copied().collect();
        let again = !gone.is_empty() && delta.steps.iter().any(|step| gone.contains(&step.head.job.id));
        self.unasked += delta.steps.len();
        if !delta.slots.is_empty() || again || self.unasked > UNASKED_MAX {
            // Who comes into sight or goes out of it, or comes again, is read anew.
            (self.newest, self.reading) = (States::default(), None);
            return;
        }
        for step in &delta.steps {
            let (job, from) = (&step.head.job, step.was.as_ref().map(|was| was.state));
            if from != Some(job.state) {
                self.happened(Event::Moved((job.created_at, job.id), from, job.state));
            }
        }
        if !gone.is_empty() {
            self.happened(Event::Gone(gone));
        }
    }

    fn happened(&mut self, event: Event) {
        follow(&mut self.newest, &event);
        if let Some(reading) = &mut self.reading {
            reading.since.push(event);
        }
        self.reading.take_if(|reading| reading.since.len() > NOTED_MAX);
    }
}

fn follow(newest: &mut States, event: &Event) {
    match event {
        Event::Moved(place, from, to) => {
            if let Some(from) = from.and_then(|from| newest[from as usize].as_mut()) {
                from.places.remove(place);
            }
            if let Some(to) = &mut newest[*to as usize] {
                to.insert(*place);
            }
        }
        Event::Gone(gone) => {
            let ended = State::ALL.into_iter().filter(|state| state.is_terminal());
            for state in ended {
                if let Some(of) = &mut newest[state as usize] {
                    of.places.retain(|(_, id)| !gone.contains(id));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hodei_core::{Slot, Tenant};
    use proptest::prelude::*;

    use super::*;
    use crate::memory::{Moving, Phase};

    fn place(at: u16) -> Place {
        let slot = Tenant::default().slot();
        (Timestamp::from_micros(i64::from(at)), JobId::from_parts(u64::from(at), slot, u64::from(at)))
    }

    /// The newest of some states, by looking at every job.
    fn sorted(
        jobs: &BTreeMap<Place, State>,
        states: &[State],
        after: Option<Place>,
        most: usize,
    ) -> Vec<(Place, State)> {
        let of = jobs
            .iter()
            .rev()
            .filter(|(place, state)| states.contains(state) && after.is_none_or(|after| **place < after));
        of.take(most).map(|(place, state)| (*place, *state)).collect()
    }

    fn change(front: &mut Front, jobs: &mut BTreeMap<Place, State>, at: u16, to: u8) {
        let (place, from) = (place(at), jobs.get(&place(at)).copied());
        match State::ALL.get(usize::from(to)) {
            Some(to) if from != Some(*to) => {
                jobs.insert(place, *to);
                front.happened(Event::Moved(place, from, *to));
            }
            Some(_) => {}
            None if from.is_some_and(State::is_terminal) => {
                jobs.remove(&place);
                front.happened(Event::Gone([place.1].into()));
            }
            None => {}
        }
    }

    fn read(jobs: &BTreeMap<Place, State>, states: &[State]) -> (Vec<(Place, State)>, bool) {
        let read = sorted(jobs, states, None, KEPT + 1);
        let whole = read.len() <= KEPT;
        (read, whole)
    }

    proptest! {
        /// Whatever happens before, while and after somebody reads, what is found is what is there.
        #[test]
        fn what_is_found_is_what_is_there(
            before in prop::collection::vec((0..64_u16, 0..9_u8), 0..64),
            meanwhile in prop::collection::vec((0..64_u16, 0..9_u8), 0..16),
            after in prop::collection::vec((0..64_u16, 0..9_u8), 0..64),
            only in prop::option::of(0..7_usize),
        ) {
            let (mut front, mut jobs) = (Front::default(), BTreeMap::new());
            before.iter().for_each(|(at, to)| change(&mut front, &mut jobs, *at, *to));
            let states = only.map_or_else(|| State::ALL.to_vec(), |only| vec![State::ALL[only]]);
            prop_assert_eq!(front.page(&states, None, 1), None);
            let (ticket, (found, whole)) = (front.begin(), read(&jobs, &states));
            meanwhile.iter().for_each(|(at, to)| change(&mut front, &mut jobs, *at, *to));
            front.take_in(ticket, &states, &found, whole);
            for (at, to) in [(0, 9)].iter().chain(&after) {
                change(&mut front, &mut jobs, *at, *to);
                for (behind, most) in [(None, 1), (None, 4), (Some(place(50)), 4), (None, KEPT)] {
                    if let Some(page) = front.page(&states, behind, most) {
                        prop_assert_eq!(page, sorted(&jobs, &states, behind, most));
                    }
                }
            }
        }
    }

    #[test]
    fn new_jobs_are_known_however_many_come_and_a_reading_that_is_overtaken_counts_no_more() {
        let (mut front, mut jobs) = (Front::default(), BTreeMap::new());
        let pending = State::Pending as u8;
        (0..9).for_each(|at| change(&mut front, &mut jobs, at, pending));
        let (late, first) = (front.begin(), read(&jobs, &State::ALL));
        let (ticket, second) = (front.begin(), read(&jobs, &State::ALL));
        front.take_in(late, &State::ALL, &first.0, first.1);
        assert_eq!(front.page(&State::ALL, None, 1), None);
        front.take_in(ticket, &State::ALL, &second.0, second.1);
        for at in 9..200 {
            change(&mut front, &mut jobs, at, pending);
            assert_eq!(front.page(&State::ALL, None, KEPT), Some(sorted(&jobs, &State::ALL, None, KEPT)));
        }
        let kept: usize = front.newest.iter().flatten().map(|newest| newest.places.len()).sum();
        assert!(kept <= 2 * KEPT, "{kept}");
        assert_eq!(front.page(&State::ALL, Some(place(20)), 1), None, "so far back nothing is known");
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten_and_so_is_all_when_a_slot_moves() {
        let mut moved = Delta::default();
        moved.slots.push((Slot::new(1).unwrap(), Moving::to(1, Phase::Open)));
        for (delta, stays) in [(Delta::default(), true), (moved, false)] {
            let mut front = Front::default();
            let ticket = front.begin();
            front.take_in(ticket, &State::ALL, &[], true);
            front.follow(&delta);
            assert_eq!(front.page(&State::ALL, None, 1).is_some(), stays);
        }
        let mut front = Front::default();
        let ticket = front.begin();
        front.take_in(ticket, &State::ALL, &[], true);
        front.unasked = UNASKED_MAX + 1;
        front.follow(&Delta::default());
        assert_eq!(front.page(&State::ALL, None, 1), None);
    }
}
