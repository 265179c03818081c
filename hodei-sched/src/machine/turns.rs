//! Whose turn it is among the tenants of a level, and among the queues of each tenant, over all exchanges.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996), in two stages: each tenant has a start, how much virtual time it has
//! been served for, and whoever has the lowest comes first; so has each queue within its tenant. A job moves the starts of
//! its tenant and of its queue by a turn each, which is the shorter the more these weigh. Who comes with work after a while,
//! or could not be served, begins where those are who are served: it neither gains nor loses by that. When nobody has had work
//! at a level, nobody is behind there any more.

use std::collections::{BTreeMap, BTreeSet};

use hodei_core::job::Priority;
use hodei_core::store::Lane;
use hodei_core::{Name, Tenant};

use super::picks::Head;

/// A turn of a weight of one.
const TURN: u128 = 1 << 32;

/// Of so many without work it is remembered that they were ahead.
const IDLE_MAX: usize = 1_024;

/// Where a lane is in both stages: who is lower comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) tenant: u128,
    pub(super) queue: u128,
}

/// Those who take turns with each other.
#[derive(Debug)]
struct Stage<K> {
    /// Where those are who are served.
    now: u128,
    starts: BTreeMap<K, u128>,
}

impl<K> Default for Stage<K> {
    fn default() -> Self {
        Self { now: 0, starts: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Stage<K> {
    /// Of who has no work, only what is ahead of the others is remembered: of [`IDLE_MAX`] at most, those that are ahead the most.
    fn keep(&mut self, has_work: impl Fn(&K) -> bool) {
        let (now, mut idle) = (self.now, Vec::new());
        self.starts.retain(|who, start| {
            let works = has_work(who);
            if !works && *start > now {
                idle.push(*start);
            }
            works || *start > now
        });
        if idle.len() > IDLE_MAX {
            let first = idle.len() - IDLE_MAX / 2;
            let (_, least, _) = idle.select_nth_unstable(first);
            let least = *least;
            self.starts.retain(|who, start| *start > least || has_work(who));
        }
    }

    /// Somebody has work.
    fn enter(&mut self, who: &K) {
        match self.starts.get_mut(who) {
            Some(start) => *start = self.now.max(*start),
            None => drop(self.starts.insert(who.clone(), self.now)),
        }
    }

    /// Somebody is served who is here: nobody who comes later begins before.
    fn reach(&mut self, start: u128) {
        self.now = self.now.max(start);
    }

    fn charge(&mut self, who: &K, weight: u32, jobs: u32) {
        if let Some(start) = self.starts.get_mut(who) {
            *start += TURN * u128::from(jobs) / u128::from(weight.max(1));
        }
    }

    fn start(&self, who: &K) -> u128 {
        self.starts.get(who).copied().unwrap_or(0)
    }
}

/// The turns of one level.
#[derive(Debug, Default)]
struct Level {
    tenants: Stage<Tenant>,
    /// Of the tenants that have work.
    queues: BTreeMap<Tenant, Stage<Name>>,
}

impl Level {
    fn turn(&self, lane: &Lane) -> Turn {
        let queue = self.queues.get(&lane.tenant).map_or(0, |queues| queues.start(&lane.queue));
        Turn { tenant: self.tenants.start(&lane.tenant), queue }
    }

    /// Notes that jobs of a tenant were asked for. The lanes are those of the tenant, in order.
    fn serve(&mut self, heads: &mut [Head], jobs: impl Fn(&Head) -> u32) {
        let Some(first) = heads.first() else { return };
        let (tenant, weight) = (first.head.lane.tenant.clone(), weight(heads));
        let all = heads.iter().fold(0_u32, |sum, head| sum.saturating_add(jobs(head)));
        self.tenants.charge(&tenant, weight, all);
        if let Some(queues) = self.queues.get_mut(&tenant) {
            queues.reach(heads.iter().find(|head| jobs(head) > 0).map_or(0, |head| head.turn.queue));
            for head in heads.iter() {
                queues.charge(&head.head.lane.queue, head.head.weight, jobs(head));
            }
        }
        heads.iter_mut().for_each(|head| head.turn = self.turn(&head.head.lane));
    }
}

/// The turns of all levels at which anybody has work.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<Priority, Level>);

impl Turns {
    /// Takes in who has work at which level, from now on.
    pub(super) fn line_up(&mut self, heads: &mut [Head]) {
        let mut busy: BTreeMap<Priority, BTreeMap<&Tenant, BTreeSet<&Name>>> = BTreeMap::new();
        for Head { head, level, .. } in heads.iter() {
            let tenants = busy.entry(*level).or_default();
            tenants.entry(&head.lane.tenant).or_default().insert(&head.lane.queue);
        }
        self.0.retain(|at, level| {
            // Where nobody has work, nobody is behind: whoever comes next begins anew.
            let Some(here) = busy.get(at) else { return false };
            level.tenants.keep(|tenant| here.contains_key(tenant));
            level.queues.retain(|tenant, _| here.contains_key(tenant));
            true
        });
        for (at, tenants) in busy {
            let level = self.0.entry(at).or_default();
            for (tenant, busy) in tenants {
                level.tenants.enter(tenant);
                if !level.queues.contains_key(tenant) {
                    level.queues.insert(tenant.clone(), Stage::default());
                }
                if let Some(queues) = level.queues.get_mut(tenant) {
                    queues.keep(|queue| busy.contains(queue));
                    busy.iter().for_each(|queue| queues.enter(queue));
                }
            }
        }
        for head in heads {
            head.turn = self.0.get(&head.level).map(|level| level.turn(&head.head.lane)).unwrap_or_default();
        }
    }

    /// Notes how many jobs were asked for of each lane. The lanes are in order, and have other turns afterwards.
    pub(super) fn serve(&mut self, heads: &mut [Head], jobs: impl Fn(&Head) -> u32) {
        for heads in heads.chunk_by_mut(|a, b| a.level == b.level) {
            let Some(level) = heads.first().and_then(|head| self.0.get_mut(&head.level)) else { continue };
            // The first one that is served is the one that was behind all others.
            if let Some(first) = heads.iter().find(|head| jobs(head) > 0) {
                level.tenants.reach(first.turn.tenant);
            }
            for heads in heads.chunk_by_mut(|a, b| a.head.lane.tenant == b.head.lane.tenant) {
                if heads.iter().any(|head| jobs(head) > 0) {
                    level.serve(heads, &jobs);
                }
            }
        }
    }
}

/// How a tenant weighs: as the heaviest of its queues that has work.
pub(super) fn weight(heads: &[Head]) -> u32 {
    heads.iter().map(|head| head.head.weight).max().unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_ahead_without_work_is_remembered_up_to_a_bound() {
        let mut stage = Stage::default();
        stage.enter(&0);
        for who in 1..10_000_u32 {
            // Somebody new each time, who has one job; the first one has work all the time.
            stage.enter(&who);
            stage.charge(&who, 1, who);
            stage.keep(|it| *it == 0);
            assert!(stage.starts.len() <= IDLE_MAX + 1, "{} are remembered", stage.starts.len());
        }
        assert!(stage.starts.contains_key(&0), "who has work stays");
        assert!(stage.starts.contains_key(&9_999), "and who is ahead the most");
    }
}
