//! Who else takes what a look at the lanes has shown.
//!
//! Nodes and dispatchers do not divide the work: each claims what it can start of what it saw, and asks in vain for what others have
//! taken since. So what is shown is looked at again when a part of it has been claimed here, and where less is there then than
//! ought to be, others are at work: nobody asks for more than the part of the rest that has lately been theirs, and looks
//! again for what they leave. Whoever is alone asks for all that has room.

use std::collections::HashMap;

use hodei_core::store::{Lane, LaneHead};

use super::picks::Head;

/// A smaller rest is asked for without another look, where nobody else was seen.
const REST_MIN: u64 = 256;
/// So many lanes are compared, those whose turn comes first.
const LANES_MAX: usize = 256;
/// Others are taken for so many at most, each as fast as we are.
const RIVALS_MAX: u64 = 3;
/// So many times may others have claimed between a look and the claim that follows it.
const AHEAD: u64 = 2;

/// What became of what was shown.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    /// How many jobs of it were claimed here lately, and how many had gone otherwise. What was before counts half at each look.
    ours: u64,
    theirs: u64,
    /// For how many was asked since the last look.
    since: u64,
    /// Whether the last exchange left something to others that had room here too.
    leaves: bool,
}

impl Rivals {
    /// So many jobs of what was shown are asked for, and perhaps something that has room is left.
    pub(super) fn asks(&mut self, jobs: usize, leaves: bool) {
        self.since = self.since.saturating_add(jobs as u64);
        self.leaves = leaves;
    }

    /// Whether what was left is looked for.
    pub(super) fn leaves(&self) -> bool {
        self.leaves
    }

    /// So many jobs were asked for in vain.
    pub(super) fn lacked(&mut self, jobs: usize) {
        self.theirs = self.theirs.saturating_add(jobs as u64);
    }

    /// Takes in a new look, beside what should be left of the one before.
    pub(super) fn looked(&mut self, left: &[Head], shown: &[LaneHead]) {
        if self.since == 0 {
            return;
        }
        let first = left.iter().filter(|head| !head.behind).take(LANES_MAX);
        let mut left: HashMap<&Lane, &LaneHead> = first.map(|head| (&head.head.lane, &head.head)).collect();
        let mut gone = 0;
        for head in shown {
            if left.is_empty() {
                break;
            }
            let before = left.remove(&head.lane).filter(|before| before.level == head.level);
            gone += before.map_or(0, |before| before.depth.saturating_sub(head.depth));
        }
        gone += left.values().map(|before| before.depth).sum::<u64>();
        self.ours = self.ours / 2 + std::mem::take(&mut self.since);
        self.theirs = self.theirs / 2 + gone;
    }

    /// Whether so much was asked for since the last look that what is left by our own count may be gone.
    pub(super) fn may_be_gone(&self, left: u64) -> bool {
        if self.since == 0 || left == 0 {
            return false;
        }
        let taken = self.since.saturating_mul(self.theirs) / self.ours.max(1);
        if self.theirs > 0 { taken * 2 > left } else { left >= REST_MIN && self.since * 3 >= left }
    }

    /// How much of a lane to ask for at most.
    pub(super) fn part(&self, depth: u64) -> u64 {
        if self.theirs == 0 {
            return depth;
        }
        let ours = self.ours.max(self.theirs / RIVALS_MAX).max(1);
        let part = u128::from(depth) * u128::from(ours);
        let part = part.div_ceil(u128::from(ours) + u128::from(self.theirs) * u128::from(AHEAD));
        u64::try_from(part).unwrap_or(depth).max(1)
    }
}
