//! What to claim: only what can start soon, most urgent first.

use std::cmp::Reverse;

use hodei_core::Timestamp;
use hodei_core::job::{Priority, Share};
use hodei_core::store::LaneHead;

use super::deal::Deal;
use super::placement::{Fleet, Room};
use super::turns::Turn;
use crate::queue::{Ageing, ClassId};

/// A lane with ready work, as the machine sees it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) head: LaneHead,
    pub(super) class: ClassId,
    /// Whom its jobs have their turns with.
    pub(super) share: Share,
    /// The level that its first job has risen to.
    pub(super) level: Priority,
    /// Whether it has risen behind more urgent jobs of its lane.
    pub(super) behind: bool,
    /// Whose turn it is, when the lanes were put in order last.
    pub(super) turn: Turn,
}

/// The level that a job has risen to by waiting since a time.
pub(super) fn risen(born: Priority, since: Timestamp, ageing: Option<Ageing>, now: Timestamp) -> Priority {
    let Some(ageing) = ageing.filter(|ageing| !ageing.every.is_zero()) else { return born };
    let waited = now.saturating_since(since).as_micros() / ageing.every.as_micros().max(1);
    let above = u128::from(born.level()) + waited;
    let most = ageing.ceiling.level().max(born.level());
    let level = u8::try_from(above).map_or(most, |above| above.min(most));
    Priority::new(level).unwrap_or(born)
}

/// Orders lanes: by level, then the tenant first that was served the least for its weight, then the queue of it of which the
/// same is true, then the share of that, then the longest waiting first.
pub(super) fn order(heads: &mut [Head]) {
    let place = |head: &Head| (Reverse(head.level), head.turn.tenant);
    heads.sort_by(|a, b| {
        let (of, than) = (&a.head.lane, &b.head.lane);
        let tenants = place(a).cmp(&place(b)).then_with(|| of.tenant.cmp(&than.tenant));
        let queues = || a.turn.queue.cmp(&b.turn.queue).then_with(|| of.queue.cmp(&than.queue));
        let shares = || a.turn.share.cmp(&b.turn.share).then_with(|| a.share.cmp(&b.share));
        let since = || a.head.eligible_at.cmp(&b.head.eligible_at);
        tenants.then_with(queues).then_with(shares).then_with(since)
    });
}

/// The parts of the list that have a level in common.
fn levels(heads: &[Head]) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let mut ends: Vec<usize> = (1..heads.len()).filter(|n| heads[*n].level != heads[*n - 1].level).collect();
    ends.extend((!heads.is_empty()).then_some(heads.len()));
    let mut start = 0;
    ends.into_iter().map(move |end| std::mem::replace(&mut start, end)..end)
}

/// What is decided over.
#[derive(Debug)]
pub(super) struct Decision<'f> {
    pub(super) fleet: &'f Fleet,
    pub(super) room: Room<'f>,
    /// So many more jobs are claimed for slots that are about to become free.
    pub(super) ahead: u32,
    /// Whether a worker is kept for the most urgent job that finds no room.
    pub(super) keep: bool,
}

impl Decision<'_> {
    /// Decides how many to claim of each lane.
    ///
    /// The tenants of a level share what is free by their weights, the queues of a tenant what it gets, and the pipelines of a
    /// queue what that gets; a tenant weighs as the heaviest of its queues, and a pipeline as it says. What a level leaves goes
    /// to the next one. The first lane that finds no room although slots are free has one job claimed all the same: a worker is
    /// kept for it from then on, or smaller jobs would have all room before it for ever. So is one for which what runs makes
    /// room.
    pub(super) fn take(
        mut self,
        heads: &[Head],
        waits: impl Fn(ClassId) -> bool,
        makes_room: impl Fn(Priority) -> bool,
    ) -> Vec<u32> {
        let mut wanted = vec![0; heads.len()];
        // The first lane that got nothing, and the first that got nothing although slots were free.
        let (mut waiting, mut refused): (Option<usize>, Option<usize>) = (None, None);
        for level in levels(heads) {
            let start = level.start;
            let (got, lacked) = self.level(&heads[level]);
            for (n, got) in got.into_iter().enumerate() {
                let (at, head) = (start + n, &heads[start + n]);
                wanted[at] = got;
                if got == 0 && self.fleet.is_able(head.class) && !waits(head.class) {
                    waiting = waiting.or(Some(at));
                    if self.keep && refused.is_none() && lacked[n] && self.room.keep(head.class, head.level) {
                        refused = Some(at);
                    }
                }
            }
        }
        if let Some(at) = refused.or_else(|| waiting.filter(|at| makes_room(heads[*at].head.level))) {
            wanted[at] = 1;
        }
        wanted
    }

    /// How many to claim from each lane of a level, and whether it found no room for any although slots were free.
    fn level(&mut self, heads: &[Head]) -> (Vec<u32>, Vec<bool>) {
        let want = |head: &Head| {
            let depth = u32::try_from(head.head.depth).unwrap_or(u32::MAX);
            if self.fleet.is_able(head.class) { depth } else { 0 }
        };
        let mut want: Vec<u32> = heads.iter().map(want).collect();
        let mut got = vec![0_u32; heads.len()];
        let mut lacked = vec![false; heads.len()];
        let mut deal = Deal::among(heads);
        // What is free is dealt out; what somebody cannot use is dealt out again in the next round.
        while deal.round(self.room.slots().saturating_add(self.ahead), &want) {
            for (n, head) in heads.iter().enumerate() {
                let wanted = want[n].min(deal.left(n));
                let slots = self.room.slots();
                let now = if wanted == 0 { 0 } else { self.room.take(head.class, head.level, wanted) };
                lacked[n] |= wanted > 0 && now == 0 && slots > 0;
                let extra = (wanted - now).min(self.ahead);
                self.ahead -= extra;
                deal.draw(n, now + extra);
                got[n] += now + extra;
                // A lane that finds no room now finds none later.
                want[n] = if now + extra < wanted { 0 } else { want[n] - wanted };
            }
        }
        (got, lacked)
    }
}
