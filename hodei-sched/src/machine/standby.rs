//! What an idle node would claim if something came, so that it is claimed with its submission.
//!
//! A node that knows of no ready work says beforehand for how many jobs of the lanes that it claimed from lately it has room.
//! Whoever submits to such a lane in the same process makes that claim right behind his submission. A store that takes calls in
//! their order, and what waits together, has both in one commit: the job waits for one instead of two.

use std::collections::{HashMap, VecDeque};

use hodei_core::Timestamp;
use hodei_core::job::{Lease, NewJob, Priority};
use hodei_core::store::{Exchange, Lane, Pick};

use super::picks::Head;
use super::placement::Room;
use super::scheduler::{Scheduler, Store};
use crate::queue::ClassId;

/// So many lanes are remembered, those that were claimed from last.
const LANES_MAX: usize = 4;
/// So many jobs are claimed with their submission at most.
const JOBS_MAX: usize = 16;
/// After so many claims that brought nothing only one of [`SELDOM`] is made: here submissions and claims do not meet.
const VAIN_MAX: u32 = 4;
const SELDOM: u32 = 16;

/// What whoever submits may claim for a machine that waits for work.
#[derive(Clone, Debug, PartialEq)]
pub struct Standby {
    owner: Lease,
    /// For how many jobs of each lane there is room.
    lanes: Vec<(Lane, u32)>,
    /// From when on something else may be ready, or the node may live no more.
    until: Option<Timestamp>,
}

impl Standby {
    /// Returns the exchange that claims jobs which are about to be submitted; nothing unless they are few, can start at once, and
    /// are of one lane in which they have room. `now` is the machine's time.
    #[must_use]
    pub fn exchange(&self, jobs: &[NewJob], now: Timestamp) -> Option<Exchange> {
        let first = jobs.first().filter(|_| jobs.len() <= JOBS_MAX)?;
        let is_late = self.until.is_some_and(|until| until <= now);
        let is_in = |lane: &Lane, job: &NewJob| {
            lane.class == job.spec.class() && lane.queue == *job.spec.queue() && lane.tenant == job.tenant
        };
        let (lane, room) = self.lanes.iter().find(|(lane, _)| is_in(lane, first)).filter(|_| !is_late)?;
        let starts = |job: &NewJob| {
            job.run_at.is_none()
                && job.parents.is_empty()
                && job.spec.sequence().is_none()
                && is_in(lane, job)
        };
        if !jobs.iter().all(starts) {
            return None;
        }
        let n = u32::try_from(jobs.len()).map_or(*room, |jobs| jobs.min(*room));
        // The lane itself gives its most urgent jobs first.
        let pick = Pick { lane: lane.clone(), floor: Priority::MIN, ceiling: Priority::MAX, n };
        Some(Exchange { owner: self.owner.clone(), transitions: Vec::new(), picks: vec![pick] })
    }
}

#[cfg(test)]
impl Standby {
    /// Room for so many jobs of a lane, for ever.
    pub(crate) fn of_lane(owner: Lease, lane: Lane, room: u32) -> Self {
        Self { owner, lanes: vec![(lane, room)], until: None }
    }
}

/// From which lanes was claimed lately, and how claims with submissions went.
#[derive(Debug, Default)]
pub(super) struct Lately {
    /// The last one first. Each class is counted, so that it keeps its number.
    lanes: VecDeque<(Lane, ClassId)>,
    /// How many claims in a row have brought nothing, or were not made for that.
    vain: u32,
    /// Whether the exchange under way is such a claim.
    asks: bool,
}

impl Lately {
    /// The exchange is over, and has claimed so many jobs; nobody knows how many where it failed. Says whether it was made with a
    /// submission and brought something.
    pub(super) fn over(&mut self, claimed: Option<usize>) -> bool {
        let asked = std::mem::take(&mut self.asks);
        if let Some(claimed) = claimed.filter(|_| asked) {
            self.vain = if claimed > 0 { 0 } else { self.vain.saturating_add(1) };
        }
        asked && claimed.is_some_and(|claimed| claimed > 0)
    }

    /// Whether such claims bring something often enough.
    fn pays(&mut self) -> bool {
        if self.vain < VAIN_MAX {
            return true;
        }
        self.vain = self.vain.wrapping_add(1).max(VAIN_MAX);
        self.vain.is_multiple_of(SELDOM)
    }
}

impl Scheduler {
    /// Returns what whoever submits may claim for this machine, as things stand: nothing unless it waits for work and knows of
    /// none. It holds until anything else is told to the machine. When somebody has made the claim, say so by
    /// [`Input::Claiming`](super::Input::Claiming) before anything else, and give the store's answer as that of an exchange.
    #[must_use]
    pub fn standby(&mut self, now: Timestamp) -> Option<Standby> {
        let nothing_ready = self.heads.is_empty() && !self.lanes_stale && self.look_due.is_none();
        let nothing_here = self.buffer.is_empty() && self.arrived.is_empty() && self.outgoing.is_empty();
        let is_sound = self.failures == 0 && !self.owner_lost && !self.leases_unknown && !self.draining;
        let asks = self.store != Store::Idle || !self.effects.is_empty() || self.awaits_loan;
        if !nothing_ready || !nothing_here || !is_sound || asks || self.lately.lanes.is_empty() {
            return None;
        }
        let until = [self.next_due, self.alive_until].into_iter().flatten().min();
        if until.is_some_and(|until| until <= now) || !self.wants_work() || !self.lately.pays() {
            return None;
        }
        let most = u32::try_from(JOBS_MAX).unwrap_or(u32::MAX);
        let room = |(lane, class): &(Lane, ClassId)| {
            let n = Room::of(&self.fleet).take(*class, Priority::MIN, most);
            (n > 0).then(|| (lane.clone(), n))
        };
        let lanes: Vec<(Lane, u32)> = self.lately.lanes.iter().filter_map(room).collect();
        (!lanes.is_empty()).then(|| Standby { owner: self.owner.clone(), lanes, until })
    }

    /// Somebody has made the claim of [`Scheduler::standby`].
    pub(super) fn claiming(&mut self) {
        self.store = Store::Exchange;
        self.asked = 0;
        self.rivals.asks(0, false);
        self.lately.asks = true;
    }

    /// The lanes among those that are claimed from now which are not remembered; none where they are many.
    pub(super) fn new_lanes(&self, picked: &HashMap<(&Lane, Priority), u32>) -> Vec<(Lane, ClassId)> {
        if picked.len() > LANES_MAX {
            return Vec::new();
        }
        let knows = |head: &Head| {
            let mut lanes = self.lately.lanes.iter();
            lanes.any(|(lane, class)| *class == head.class && *lane == head.head.lane)
        };
        let new = self
            .heads
            .iter()
            .filter(|head| picked.contains_key(&(&head.head.lane, head.head.level)) && !knows(head));
        new.map(|head| (head.head.lane.clone(), head.class)).collect()
    }

    /// Remembers that was claimed from a lane.
    pub(super) fn claims_from(&mut self, lane: Lane, class: ClassId) {
        self.forget_lanes(|known| *known == lane);
        self.fleet.count(class);
        self.lately.lanes.push_front((lane, class));
        if self.lately.lanes.len() > LANES_MAX
            && let Some((_, class)) = self.lately.lanes.pop_back()
        {
            self.fleet.discount(class);
        }
    }

    /// Forgets lanes that were claimed from: what they ask for may be asked otherwise now.
    pub(super) fn forget_lanes(&mut self, which: impl Fn(&Lane) -> bool) {
        let fleet = &mut self.fleet;
        self.lately.lanes.retain(|(lane, class)| {
            let goes = which(lane);
            if goes {
                fleet.discount(*class);
            }
            !goes
        });
    }
}
