//! What is free, dealt out to tenants, what each of them gets to its queues, and what these get to their pipelines.

use super::picks::Head;
use super::turns;

/// Somebody who has a part.
#[derive(Debug, Default)]
struct Member {
    weight: u32,
    /// Of whom it draws.
    of: usize,
    /// Whether it can use what it gets in this round.
    is_active: bool,
    /// What the active ones weigh that draw from it.
    within: u32,
    /// What is left of what it got in this round.
    left: u32,
}

/// The parts of those who have work at a level, by their weights; the lanes are in order.
///
/// However many queues a tenant has, they draw from the one part of the tenant, however many pipelines a queue has, from the
/// one of the queue, and however many lanes a pipeline has, from the one of the pipeline.
#[derive(Debug)]
pub(super) struct Deal {
    /// First the whole, then everybody behind whom it draws from.
    members: Vec<Member>,
    /// From whom each lane draws.
    lanes: Vec<usize>,
}

impl Deal {
    pub(super) fn among(heads: &[Head]) -> Self {
        let whole = Member::default();
        let mut deal = Self { members: vec![whole], lanes: Vec::with_capacity(heads.len()) };
        for heads in heads.chunk_by(|a, b| a.head.lane.tenant == b.head.lane.tenant) {
            let tenant = deal.add(turns::weight(heads), 0);
            for heads in heads.chunk_by(|a, b| a.head.lane.queue == b.head.lane.queue) {
                let queue = deal.add(turns::weight(heads), tenant);
                for heads in heads.chunk_by(|a, b| a.share == b.share) {
                    let share = deal.add(heads[0].share.weight(), queue);
                    deal.lanes.extend(heads.iter().map(|_| share));
                }
            }
        }
        deal
    }

    fn add(&mut self, weight: u32, of: usize) -> usize {
        self.members.push(Member { weight: weight.max(1), of, ..Member::default() });
        self.members.len() - 1
    }

    /// Begins a round: deals out what is free among those of which a lane wants any; `false` when none does. Whoever
    /// has a part has at least one job's.
    pub(super) fn round(&mut self, free: u32, want: &[u32]) -> bool {
        for member in &mut self.members {
            (member.is_active, member.within, member.left) = (false, 0, 0);
        }
        for (lane, _) in self.lanes.iter().zip(want).filter(|(_, want)| **want > 0) {
            let mut at = *lane;
            while at != 0 && !self.members[at].is_active {
                self.members[at].is_active = true;
                let Member { of, weight, .. } = self.members[at];
                self.members[of].within = self.members[of].within.saturating_add(weight);
                at = of;
            }
        }
        self.members[0].left = free;
        for at in 1..self.members.len() {
            let Member { weight, of, is_active, .. } = self.members[at];
            let from = &self.members[of];
            if is_active {
                self.members[at].left = (from.left / from.within).max(1).saturating_mul(weight);
            }
        }
        self.members[0].within > 0
    }

    /// What is left for a lane in this round.
    pub(super) fn left(&self, lane: usize) -> u32 {
        self.draws_from(self.lanes[lane]).map(|member| self.members[member].left).min().unwrap_or(0)
    }

    /// A lane has got so much of what is left for it.
    pub(super) fn draw(&mut self, lane: usize, jobs: u32) {
        let mut at = self.lanes[lane];
        while at != 0 {
            let member = &mut self.members[at];
            member.left -= jobs;
            at = member.of;
        }
    }

    /// Somebody, whom it draws from, and so on, but for the whole.
    fn draws_from(&self, member: usize) -> impl Iterator<Item = usize> {
        let of = |at: &usize| Some(self.members[*at].of).filter(|of| *of != 0);
        std::iter::successors(Some(member), of)
    }
}
