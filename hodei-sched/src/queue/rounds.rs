//! Weighted fair turns among those who have work.
//!
//! Worst-case fair weighted fair queueing with a virtual time that costs nothing to keep (Bennett and Zhang 1997,
//! WF²Q+), for jobs of one size. Each member has a start: how much virtual time it has been served for. Whoever would
//! have begun in the fluid ideal, where all are served at once in proportion to their weights, is eligible; of those,
//! the one that the ideal would have finished first is next. While the same members have work, none is ever more than
//! one job behind the ideal, nor more than one ahead.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A whole turn of a member of weight one, in virtual time. A member of a greater weight has shorter turns.
const TURN: u64 = 1 << 24;
/// The greatest weight that tells members apart.
pub(super) const WEIGHT_MAX: u32 = 1 << 16;
/// How many entries of members that have left may be among the others before they are cleared away.
const STALE_MAX: usize = 64;

/// Somebody who takes turns.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// What the member stands for.
    what: u32,
    weight: u32,
    /// The length of its turns.
    step: u64,
    start: u64,
    finish: u64,
    /// Entries of another stamp are of an earlier stay.
    stamp: u32,
    active: bool,
}

/// An entry of a heap: the virtual time that orders it, the member, and its stamp.
type Entry = Reverse<(u64, u32, u32)>;

/// Those who take turns.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    now: u64,
    members: Vec<Member>,
    free: Vec<u32>,
    /// How many have work, and their weights together.
    active: u32,
    weight: u64,
    /// Those who would have begun, by when they would have finished.
    eligible: BinaryHeap<Entry>,
    /// The others, by when they begin.
    waiting: BinaryHeap<Entry>,
}

impl Rounds {
    /// Adds a member that has no work yet.
    pub(super) fn join(&mut self, what: u32, weight: u32) -> u32 {
        let weight = weight.clamp(1, WEIGHT_MAX);
        let step = TURN / u64::from(weight);
        let fresh = Member { what, weight, step, start: self.now, finish: self.now, stamp: 0, active: false };
        if let Some(place) = self.free.pop() {
            let member = &mut self.members[place as usize];
            *member = Member { stamp: member.stamp.wrapping_add(1), ..fresh };
            return place;
        }
        self.members.push(fresh);
        u32::try_from(self.members.len() - 1).expect("fewer than 2^32 members")
    }

    /// Takes out a member that has no work.
    pub(super) fn leave(&mut self, member: u32) {
        debug_assert!(!self.members[member as usize].active, "a member with work stays");
        self.free.push(member);
    }

    /// Changes a weight, from the member's next turn on.
    pub(super) fn reweigh(&mut self, member: u32, weight: u32) {
        let weight = weight.clamp(1, WEIGHT_MAX);
        let member = &mut self.members[member as usize];
        if member.active {
            self.weight = self.weight - u64::from(member.weight) + u64::from(weight);
        }
        member.weight = weight;
        member.step = TURN / u64::from(weight);
    }

    /// Whether nobody has work.
    pub(super) fn is_idle(&self) -> bool {
        self.active == 0
    }

    /// A member has work now. It neither gains nor loses by having had none.
    #[inline]
    pub(super) fn activate(&mut self, at: u32) {
        let member = &mut self.members[at as usize];
        debug_assert!(!member.active, "it has work already");
        member.active = true;
        member.stamp = member.stamp.wrapping_add(1);
        member.start = member.start.max(self.now);
        member.finish = member.start + member.step;
        self.active += 1;
        self.weight += u64::from(member.weight);
        self.queue(at);
    }

    /// A member has no more work.
    #[inline]
    pub(super) fn deactivate(&mut self, at: u32) {
        let member = &mut self.members[at as usize];
        debug_assert!(member.active, "it has no work");
        member.active = false;
        self.active -= 1;
        self.weight -= u64::from(member.weight);
        if self.eligible.len() + self.waiting.len() > 2 * self.active as usize + STALE_MAX {
            let members = &self.members;
            let valid = |Reverse((_, at, stamp)): &Entry| is_valid(members, *at, *stamp);
            self.eligible.retain(valid);
            self.waiting.retain(valid);
        }
    }

    /// Says whose turn it is: what the member stands for, and the member. Nobody's, when nobody has work.
    #[inline]
    pub(super) fn select(&mut self) -> Option<(u32, u32)> {
        if self.active == 0 {
            return None;
        }
        loop {
            while let Some(&Reverse((start, at, stamp))) = self.waiting.peek() {
                let valid = is_valid(&self.members, at, stamp);
                if valid && start > self.now {
                    break;
                }
                self.waiting.pop();
                if valid {
                    self.eligible.push(Reverse((self.members[at as usize].finish, at, stamp)));
                }
            }
            while let Some(&Reverse((_, at, stamp))) = self.eligible.peek() {
                if is_valid(&self.members, at, stamp) {
                    return Some((self.members[at as usize].what, at));
                }
                self.eligible.pop();
            }
            // Nobody would have begun yet: the ideal skips to the first who does.
            let &Reverse((start, ..)) = self.waiting.peek()?;
            self.now = start;
        }
    }

    /// The member whose turn it was has been served.
    #[inline]
    pub(super) fn served(&mut self, at: u32) {
        self.now += TURN / self.weight.max(1);
        let member = &mut self.members[at as usize];
        member.start = member.finish;
        member.finish = member.start + member.step;
        let (start, finish, stamp) = (member.start, member.finish, member.stamp);
        let top = self.eligible.peek_mut();
        let Some(mut top) = top.filter(|top| (top.0.1, top.0.2) == (at, stamp)) else { return };
        if start <= self.now {
            *top = Reverse((finish, at, stamp));
        } else {
            std::collections::binary_heap::PeekMut::pop(top);
            self.waiting.push(Reverse((start, at, stamp)));
        }
    }

    fn queue(&mut self, at: u32) {
        let member = &self.members[at as usize];
        if member.start <= self.now {
            self.eligible.push(Reverse((member.finish, at, member.stamp)));
        } else {
            self.waiting.push(Reverse((member.start, at, member.stamp)));
        }
    }
}

fn is_valid(members: &[Member], at: u32, stamp: u32) -> bool {
    let member = &members[at as usize];
    member.active && member.stamp == stamp
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Serves so many jobs and returns how often each member was.
    fn serve(rounds: &mut Rounds, n: usize, counts: &mut [u64]) {
        for _ in 0..n {
            let (what, member) = rounds.select().expect("somebody has work");
            counts[what as usize] += 1;
            rounds.served(member);
        }
    }

    proptest! {
        #[test]
        fn nobody_is_a_job_behind_or_ahead_of_the_ideal(weights in prop::collection::vec(1_u32..50, 1..20)) {
            let mut rounds = Rounds::default();
            for (what, weight) in (0_u32..).zip(&weights) {
                let member = rounds.join(what, *weight);
                rounds.activate(member);
            }
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            let mut counts = vec![0_u64; weights.len()];
            for n in 1..2_000_u32 {
                serve(&mut rounds, 1, &mut counts);
                for (count, weight) in counts.iter().zip(&weights) {
                    let ideal = f64::from(n) * f64::from(*weight) / total;
                    let lag = ideal - f64::from(u32::try_from(*count).unwrap());
                    prop_assert!(lag.abs() <= 1.001, "lag {lag} of weight {weight} after {n}");
                }
            }
        }
    }

    #[test]
    fn who_was_away_neither_catches_up_nor_pays() {
        let mut rounds = Rounds::default();
        let members: Vec<u32> = (0..3).map(|what| rounds.join(what, 1)).collect();
        rounds.activate(members[0]);
        rounds.activate(members[1]);
        let mut counts = [0_u64; 3];
        serve(&mut rounds, 1_000, &mut counts);
        rounds.activate(members[2]);
        serve(&mut rounds, 300, &mut counts);
        assert_eq!(counts, [600, 600, 100]);
        rounds.deactivate(members[0]);
        serve(&mut rounds, 100, &mut counts);
        rounds.activate(members[0]);
        serve(&mut rounds, 300, &mut counts);
        assert_eq!(counts, [700, 750, 250]);
    }

    #[test]
    fn coming_and_going_leaves_nothing_behind() {
        let mut rounds = Rounds::default();
        let (stays, goes) = (rounds.join(0, 1), rounds.join(1, 1));
        rounds.activate(stays);
        for _ in 0..10_000 {
            rounds.activate(goes);
            rounds.deactivate(goes);
        }
        assert!(rounds.eligible.len() + rounds.waiting.len() <= 2 + STALE_MAX + 1);
        assert_eq!(rounds.select(), Some((0, stays)));
    }
}
