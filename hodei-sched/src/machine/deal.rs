//! What is free, dealt out to tenants, and what each of them gets to its queues.

use super::picks::Head;
use super::turns;

/// Somebody who has a share.
#[derive(Debug)]
struct Member {
    weight: u32,
    /// Whether it can use what it gets in this round.
    is_active: bool,
    /// What the active ones weigh that draw from it.
    within: u32,
    /// What is left of what it got in this round.
    share: u32,
}

impl Member {
    fn new(weight: u32) -> Self {
        Self { weight: weight.max(1), is_active: false, within: 0, share: 0 }
    }
}

/// The shares of those who have work at a level, by their weights; the lanes are in order.
///
/// However many queues a tenant has, they draw from the one share of the tenant, and however many lanes a queue has, from
/// the one share of the queue.
#[derive(Debug, Default)]
pub(super) struct Deal {
    tenants: Vec<Member>,
    /// With the tenant of each.
    queues: Vec<(Member, usize)>,
    /// The queue of each lane.
    lanes: Vec<usize>,
}

impl Deal {
    pub(super) fn among(heads: &[Head]) -> Self {
        let mut deal = Self { lanes: Vec::with_capacity(heads.len()), ..Self::default() };
        for heads in heads.chunk_by(|a, b| a.head.lane.tenant == b.head.lane.tenant) {
            deal.tenants.push(Member::new(turns::weight(heads)));
            for heads in heads.chunk_by(|a, b| a.head.lane.queue == b.head.lane.queue) {
                deal.queues.push((Member::new(turns::weight(heads)), deal.tenants.len() - 1));
                deal.lanes.extend(heads.iter().map(|_| deal.queues.len() - 1));
            }
        }
        deal
    }

    /// Begins a round: deals out what is free among those of which a lane wants any; `false` when none does. Whoever
    /// has a share has at least one job's.
    pub(super) fn round(&mut self, free: u32, want: &[u32]) -> bool {
        for tenant in &mut self.tenants {
            (tenant.is_active, tenant.within, tenant.share) = (false, 0, 0);
        }
        for (queue, _) in &mut self.queues {
            (queue.is_active, queue.share) = (false, 0);
        }
        let mut total = 0_u32;
        for (lane, _) in self.lanes.iter().zip(want).filter(|(_, want)| **want > 0) {
            let (queue, of) = &mut self.queues[*lane];
            let tenant = &mut self.tenants[*of];
            if !queue.is_active {
                queue.is_active = true;
                tenant.within = tenant.within.saturating_add(queue.weight);
            }
            if !tenant.is_active {
                tenant.is_active = true;
                total = total.saturating_add(tenant.weight);
            }
        }
        if total == 0 {
            return false;
        }
        let each = (free / total).max(1);
        for tenant in self.tenants.iter_mut().filter(|tenant| tenant.is_active) {
            tenant.share = each.saturating_mul(tenant.weight);
        }
        for (queue, of) in self.queues.iter_mut().filter(|(queue, _)| queue.is_active) {
            let tenant = &self.tenants[*of];
            queue.share = (tenant.share / tenant.within).max(1).saturating_mul(queue.weight);
        }
        true
    }

    /// What is left for a lane in this round.
    pub(super) fn left(&self, lane: usize) -> u32 {
        let (queue, of) = &self.queues[self.lanes[lane]];
        queue.share.min(self.tenants[*of].share)
    }

    /// A lane has got so much of what is left for it.
    pub(super) fn draw(&mut self, lane: usize, jobs: u32) {
        let (queue, of) = &mut self.queues[self.lanes[lane]];
        queue.share -= jobs;
        self.tenants[*of].share -= jobs;
    }
}
