//! Whose turn it is among the tenants of a level, over all exchanges.
//!
//! Worst-case fair weighted fair queueing in its simple form (Bennett and Zhang 1997): each tenant has a start, how much virtual time
//! it has been served for, and the level has a time of its own, which goes on by a job's part of all weights whenever a job is
//! served. A tenant whose start has come is eligible, and of those the one whose turn would end first comes first: nobody gets
//! ahead by more than a job, so nobody falls behind by more. A job moves the start of its tenant by a turn, which is the shorter the
//! more the tenant weighs. Who comes with work after a while begins where the level is: it neither gains nor loses by having had
//! none.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use hodei_core::Tenant;
use hodei_core::job::Priority;

use super::picks::Head;

/// A turn of a tenant of weight one.
const TURN: u128 = 1 << 32;

/// How much virtual time so many jobs of a weight take.
pub(super) fn turn(jobs: u32, weight: u32) -> u128 {
    TURN * u128::from(jobs) / u128::from(weight.max(1))
}

/// The turns of one level.
#[derive(Debug, Default)]
struct Level {
    /// Its own time.
    now: u128,
    starts: BTreeMap<Tenant, u128>,
    /// Who had work when it was looked last.
    busy: BTreeSet<Tenant>,
}

/// The turns of all levels at which anybody has work.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<Priority, Level>);

/// A tenant with work, for which jobs are to be claimed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimant {
    pub(super) start: u128,
    pub(super) weight: u32,
    /// How many jobs it has that may be claimed.
    pub(super) wants: u32,
}

impl Turns {
    /// Takes in who has work at which level, from now on.
    pub(super) fn line_up(&mut self, heads: &[Head]) {
        let mut busy: BTreeMap<Priority, BTreeSet<&Tenant>> = BTreeMap::new();
        for head in heads {
            busy.entry(head.level).or_default().insert(&head.head.lane.tenant);
        }
        // Of who has none, only what is ahead of the others is remembered.
        self.0.retain(|at, level| {
            let here = busy.get(at);
            let now = level.now;
            let has_work = |tenant: &Tenant| here.is_some_and(|here| here.contains(tenant));
            level.starts.retain(|tenant, start| *start > now || has_work(tenant));
            level.busy.retain(has_work);
            here.is_some() || !level.starts.is_empty()
        });
        for (at, tenants) in busy {
            let level = self.0.entry(at).or_default();
            let now = level.now;
            let mut first = None;
            for tenant in tenants {
                let start = level.starts.entry(tenant.clone()).or_insert(now);
                if !level.busy.contains(tenant) {
                    *start = (*start).max(now);
                    level.busy.insert(tenant.clone());
                }
                first = Some(first.map_or(*start, |first: u128| first.min(*start)));
            }
            // Everybody is further: so is the level.
            level.now = now.max(first.unwrap_or(now));
        }
    }

    /// Where a tenant is at a level: who is lower comes first.
    pub(super) fn start(&self, level: Priority, tenant: &Tenant) -> u128 {
        self.0.get(&level).and_then(|level| level.starts.get(tenant)).copied().unwrap_or(0)
    }

    /// Notes that so many jobs of a tenant were asked for.
    pub(super) fn served(&mut self, level: Priority, tenant: &Tenant, weight: u32, jobs: u32) {
        if let Some(start) = self.0.get_mut(&level).and_then(|level| level.starts.get_mut(tenant)) {
            *start += turn(jobs, weight);
        }
    }

    /// Notes that so many jobs were asked for at a level, of tenants that weigh so much together.
    pub(super) fn passed(&mut self, level: Priority, weights: u32, jobs: u32) {
        if let Some(level) = self.0.get_mut(&level) {
            level.now += turn(jobs, weights);
        }
    }

    /// Says how many of so many jobs fall to each of several tenants, of whom so many were served since it was noted.
    pub(super) fn share_out(
        &self,
        level: Priority,
        tenants: &[Claimant],
        before: u32,
        jobs: u32,
    ) -> Vec<u32> {
        if let [only] = tenants {
            return vec![only.wants.min(jobs)];
        }
        let mut got = vec![0; tenants.len()];
        let mut now = self.0.get(&level).map_or(0, |level| level.now);
        let active = tenants.iter().enumerate().filter(|(_, tenant)| tenant.wants > 0);
        let mut weights = active.clone().fold(0, |sum: u32, (_, tenant)| sum.saturating_add(tenant.weight));
        now += turn(before, weights);
        let mut to_come: BinaryHeap<Reverse<(u128, usize)>> =
            active.map(|(n, tenant)| Reverse((tenant.start, n))).collect();
        // By when their turns would end.
        let mut eligible: BinaryHeap<Reverse<(u128, usize)>> = BinaryHeap::new();
        for _ in 0..jobs {
            if let Some(Reverse((first, _))) = to_come.peek().filter(|_| eligible.is_empty()) {
                now = now.max(*first);
            }
            while let Some(Reverse((_, n))) =
                to_come.peek().copied().filter(|Reverse((start, _))| *start <= now)
            {
                to_come.pop();
                let Claimant { start, weight, .. } = tenants[n];
                eligible.push(Reverse((start + turn(got[n] + 1, weight), n)));
            }
            let Some(Reverse((end, n))) = eligible.pop() else { return got };
            now += turn(1, weights);
            got[n] += 1;
            if got[n] < tenants[n].wants {
                to_come.push(Reverse((end, n)));
            } else {
                weights = weights.saturating_sub(tenants[n].weight);
            }
        }
        got
    }
}
