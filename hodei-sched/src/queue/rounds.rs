//! Weighted fair turns among those who have work.
//!
//! Worst-case fair weighted fair queueing with a virtual time that costs nothing to keep (Bennett and Zhang 1997,
//! WF²Q+), for jobs of one size. Each member has a start: how much virtual time it has been served for. Whoever would
//! have begun in the fluid ideal, where all are served at once in proportion to their weights, is eligible; of those,
//! the one that the ideal would have finished first is next. While the same members have work, none is ever more than
//! one job behind the ideal, nor more than one ahead.

use super::crowd::Crowd;

/// A whole turn of a member of weight one, in virtual time. A member of a greater weight has shorter turns.
const TURN: u64 = 1 << 24;
/// The greatest weight that tells members apart.
pub(super) const WEIGHT_MAX: u32 = 1 << 16;
/// So many are looked through one by one: faster than any order would be kept.
const FEW: usize = 12;

/// The turns of small weights: a division is the dearest part of a turn.
static TURNS: [u32; 1 << 10] = {
    let mut turns = [0; 1 << 10];
    let mut weight: u32 = 1;
    while (weight as usize) < turns.len() {
        turns[weight as usize] = (1 << 24) / weight;
        weight += 1;
    }
    turns
};

/// How long the turns of a weight are.
#[inline]
fn turn_of(weight: u64) -> u64 {
    match usize::try_from(weight).ok().and_then(|weight| TURNS.get(weight)) {
        Some(turn) => u64::from(*turn),
        None => TURN / weight,
    }
}

/// Somebody who takes turns.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// What the member stands for.
    what: u32,
    weight: u32,
    /// When its next turn begins, while it has no work.
    start: u64,
    /// The place of its turn, while it has work.
    turn: u32,
}

/// The next turn of a member with work, in virtual time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) start: u64,
    pub(super) finish: u64,
    /// How long the turns of the member are.
    step: u64,
    member: u32,
    what: u32,
}

/// Those who take turns.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    now: u64,
    /// The weights of those who have work, together.
    weight: u64,
    /// Their turns.
    turns: Vec<Turn>,
    /// The place of the turn that was selected.
    selected: u32,
    /// Their order, where there are many.
    crowd: Option<Box<Crowd>>,
    members: Vec<Member>,
    free: Vec<u32>,
}

impl Rounds {
    /// Adds a member that has no work yet.
    pub(super) fn join(&mut self, what: u32, weight: u32) -> u32 {
        let weight = weight.clamp(1, WEIGHT_MAX);
        let member = Member { what, weight, start: self.now, turn: NONE };
        if let Some(place) = self.free.pop() {
            self.members[place as usize] = member;
            return place;
        }
        self.members.push(member);
        u32::try_from(self.members.len() - 1).expect("fewer than 2^32 members")
    }

    /// Takes out a member that has no work.
    pub(super) fn leave(&mut self, member: u32) {
        debug_assert!(self.members[member as usize].turn == NONE, "a member with work stays");
        self.free.push(member);
    }

    /// Changes a weight, from the member's next turn on.
    pub(super) fn reweigh(&mut self, member: u32, weight: u32) {
        let weight = weight.clamp(1, WEIGHT_MAX);
        let member = &mut self.members[member as usize];
        if member.turn != NONE {
            self.weight = self.weight - u64::from(member.weight) + u64::from(weight);
            self.turns[member.turn as usize].step = turn_of(u64::from(weight));
        }
        member.weight = weight;
    }

    /// Whether one member has work, and no other.
    pub(super) fn is_alone(&self) -> bool {
        self.turns.len() == 1
    }

    /// Whether nobody has work.
    pub(super) fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// A member has work now. It neither gains nor loses by having had none.
    #[inline]
    pub(super) fn activate(&mut self, at: u32) {
        let member = &mut self.members[at as usize];
        debug_assert!(member.turn == NONE, "it has work already");
        let start = member.start.max(self.now);
        let step = turn_of(u64::from(member.weight));
        member.turn = index(self.turns.len());
        self.weight += u64::from(member.weight);
        self.turns.push(Turn { start, finish: start + step, step, member: at, what: member.what });
        match &mut self.crowd {
            Some(crowd) => crowd.add(&self.turns, self.turns.len() - 1, self.now),
            None if self.turns.len() > FEW => self.crowd = Some(Box::new(Crowd::of(&self.turns, self.now))),
            None => {}
        }
    }

    /// A member has no more work.
    pub(super) fn deactivate(&mut self, at: u32) {
        self.leave_turn(self.members[at as usize].turn as usize);
    }

    #[inline]
    fn leave_turn(&mut self, place: usize) {
        if let Some(crowd) = &mut self.crowd {
            crowd.remove(&self.turns, place);
        }
        let turn = self.turns.swap_remove(place);
        let member = &mut self.members[turn.member as usize];
        member.turn = NONE;
        member.start = turn.start;
        self.weight -= u64::from(member.weight);
        if let Some(moved) = self.turns.get(place) {
            self.members[moved.member as usize].turn = index(place);
        }
        if self.turns.len() <= FEW / 2 && self.crowd.is_some() {
            self.crowd = None;
        }
    }

    /// Says whose turn it is: what the member stands for. Nobody's, when nobody has work.
    #[inline]
    pub(super) fn select(&mut self) -> Option<u32> {
        let place = match &self.turns[..] {
            [only] => {
                self.now = self.now.max(only.start);
                0
            }
            _ => self.next()?,
        };
        self.selected = index(place);
        Some(self.turns[place].what)
    }

    fn next(&mut self) -> Option<usize> {
        if let Some(crowd) = &mut self.crowd {
            return crowd.next(&self.turns, &mut self.now);
        }
        loop {
            // Without branches that nobody can foresee.
            let (mut best, mut place, mut first) = (u64::MAX, 0, u64::MAX);
            for (at, turn) in self.turns.iter().enumerate() {
                let finish = if turn.start <= self.now { turn.finish } else { u64::MAX };
                let better = finish < best;
                best = if better { finish } else { best };
                place = if better { at } else { place };
                first = first.min(turn.start);
            }
            if best < u64::MAX {
                return Some(place);
            }
            if first == u64::MAX {
                return None;
            }
            // Nobody would have begun yet: the ideal skips to the first who does.
            self.now = first;
        }
    }

    /// The member that was just selected has been served so often; more than once only when it is alone. With `more` it
    /// has work left. Returns whether anybody has.
    #[inline]
    pub(super) fn served(&mut self, times: usize, more: bool) -> bool {
        let place = self.selected as usize;
        let turn = &mut self.turns[place];
        turn.start = turn.finish;
        turn.finish += turn.step;
        self.now += turn_of(self.weight);
        if times > 1 {
            // As if it had been selected and served again and again.
            let further = (times as u64 - 1) * turn.step;
            self.now = self.now.max(turn.start) + further;
            turn.start += further;
            turn.finish += further;
        }
        if !more {
            self.leave_turn(place);
        } else if let Some(crowd) = &mut self.crowd {
            crowd.served(&self.turns, place, self.now);
        }
        !self.turns.is_empty()
    }
}

/// No turn.
const NONE: u32 = u32::MAX;

fn index(n: usize) -> u32 {
    u32::try_from(n).expect("fewer than 2^32 turns")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Serves so many jobs and returns how often each member was.
    fn serve(rounds: &mut Rounds, n: usize, counts: &mut [u64]) {
        for _ in 0..n {
            // In these tests a member stands for its own number.
            let member = rounds.select().expect("somebody has work");
            counts[member as usize] += 1;
            rounds.served(1, true);
        }
    }

    proptest! {
        #[test]
        fn nobody_is_a_job_behind_or_ahead_of_the_ideal(weights in prop::collection::vec(1_u32..50, 1..40)) {
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
    fn coming_and_going_changes_nothing_for_those_who_stay() {
        for others in [1_u32, 30] {
            let mut rounds = Rounds::default();
            (0..=others).for_each(|what| {
                rounds.join(what, 1);
            });
            rounds.activate(0);
            for n in 0..10_000 {
                rounds.activate(1 + n % others);
                if n % 3 == 0 {
                    assert!(rounds.select().is_some());
                }
                rounds.deactivate(1 + n % others);
            }
            assert_eq!(rounds.select(), Some(0));
        }
    }

    proptest! {
        #[test]
        fn a_crowd_takes_the_same_turns_as_a_few(
            ops in prop::collection::vec((any::<bool>(), 0_u32..20), 0..400),
        ) {
            // Twenty that come and go, among which there are sometimes few and sometimes many.
            let mut rounds = Rounds::default();
            (0..20).for_each(|what| {
                rounds.join(what, what % 5 + 1);
            });
            let mut active = [false; 20];
            for (serve, which) in ops {
                if serve {
                    let expected = rounds.turns.iter().filter(|turn| turn.start <= rounds.now);
                    let expected = expected.map(|turn| turn.finish).min();
                    let selected = rounds.select();
                    prop_assert_eq!(selected.is_some(), active.contains(&true));
                    let Some(member) = selected else { continue };
                    prop_assert!(active[member as usize]);
                    let turn = rounds.turns[rounds.members[member as usize].turn as usize];
                    prop_assert!(expected.is_none_or(|finish| turn.finish == finish));
                    rounds.served(1, true);
                } else {
                    let active = &mut active[which as usize];
                    *active = !*active;
                    if *active {
                        rounds.activate(which);
                    } else {
                        rounds.deactivate(which);
                    }
                }
            }
        }
    }
}
