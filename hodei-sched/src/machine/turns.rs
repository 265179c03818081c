//! Whose turn it is among the tenants of a level, among the queues of each tenant, and among the pipelines of each queue, over
//! all exchanges.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996), in three stages: each tenant has a start, how much virtual time it has
//! been served for, and whoever has the lowest comes first; so has each queue within its tenant, and within the queue each
//! [`Share`] of it: pipelines are spread among a few of them, as in stochastic fairness queueing (McKenney 1990). A job moves
//! the start of its tenant, that of its queue and that of its share by a turn each, which is the shorter the more these weigh.
//! Who comes with work after a while, or could not be served, begins where those are who are served: it
//! neither gains nor loses by that. When nobody has had work at a level, nobody is behind there any more.

use std::collections::{BTreeMap, BTreeSet};

use hodei_core::job::{Priority, Share};
use hodei_core::{Name, Tenant};

use super::picks::Head;

/// A turn of a weight of one.
const TURN: u128 = 1 << 32;

/// Of so many without work it is remembered that they were ahead.
const IDLE_MAX: usize = 1_024;

/// Where a lane is in each stage: who is lower comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) tenant: u128,
    pub(super) queue: u128,
    pub(super) share: u128,
}

/// The shares of a queue that have work.
#[derive(Clone, Debug, Default)]
struct Shares {
    /// Of those that weigh 1, a bit each.
    light: u64,
    heavy: BTreeSet<Share>,
}

const _: () = assert!(Share::COUNT <= 64, "a bit for each share");

impl Shares {
    fn add(&mut self, share: Share) {
        if share.weight() > 1 {
            self.heavy.insert(share);
        } else {
            self.light |= 1 << share.number();
        }
    }

    fn has(&self, share: Share) -> bool {
        if share.weight() > 1 { self.heavy.contains(&share) } else { self.light >> share.number() & 1 == 1 }
    }

    fn iter(&self) -> impl Iterator<Item = Share> + '_ {
        Share::all().filter(|share| self.has(*share)).chain(self.heavy.iter().copied())
    }

    /// Whether others have work than the jobs of no pipeline.
    fn take_turns(&self) -> bool {
        self.light > 1 << Share::NONE.number() || !self.heavy.is_empty()
    }
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

/// The turns of a tenant at a level.
#[derive(Debug, Default)]
struct Tenancy {
    queues: Stage<Name>,
    /// Of the queues in which pipelines have work, or had more of it than their turns.
    shares: BTreeMap<Name, Stage<Share>>,
}

impl Tenancy {
    /// Takes in who has work in which queues of the tenant.
    fn line_up(&mut self, busy: &BTreeMap<&Name, Shares>) {
        self.queues.keep(|queue| busy.contains_key(queue));
        self.shares.retain(|queue, _| busy.contains_key(queue));
        for (queue, busy) in busy {
            self.queues.enter(queue);
            if busy.take_turns() && !self.shares.contains_key(*queue) {
                self.shares.insert((*queue).clone(), Stage::default());
            }
            let Some(shares) = self.shares.get_mut(*queue) else { continue };
            shares.keep(|share| busy.has(*share));
            busy.iter().for_each(|share| shares.enter(&share));
            if !busy.take_turns() && shares.starts.len() == 1 {
                self.shares.remove(*queue);
            }
        }
    }

    /// Where a lane of the tenant is.
    fn turn(&self, head: &Head, tenant: u128) -> Turn {
        let queue = &head.head.lane.queue;
        let share = self.shares.get(queue).map_or(0, |shares| shares.start(&head.share));
        Turn { tenant, queue: self.queues.start(queue), share }
    }

    /// Notes that jobs of the tenant were asked for; the lanes are in order.
    fn serve(&mut self, heads: &[Head], jobs: impl Fn(&Head) -> u32) {
        let served = || heads.iter().filter(|head| jobs(head) > 0);
        self.queues.reach(served().next().map_or(0, |head| head.turn.queue));
        for queue in heads.chunk_by(|a, b| a.head.lane.queue == b.head.lane.queue) {
            let (Some(first), name) = (queue.iter().find(|head| jobs(head) > 0), &queue[0].head.lane.queue)
            else {
                continue;
            };
            if let Some(shares) = self.shares.get_mut(name) {
                shares.reach(first.turn.share);
                queue.iter().for_each(|head| shares.charge(&head.share, head.share.weight(), jobs(head)));
            }
        }
        for head in served() {
            self.queues.charge(&head.head.lane.queue, head.head.weight, jobs(head));
        }
    }
}

/// The turns of one level.
#[derive(Debug, Default)]
struct Level {
    tenants: Stage<Tenant>,
    /// Of the tenants that have work.
    within: BTreeMap<Tenant, Tenancy>,
}

impl Level {
    fn turn(&self, head: &Head) -> Turn {
        let tenant = &head.head.lane.tenant;
        let start = self.tenants.start(tenant);
        let alone = || Turn { tenant: start, ..Turn::default() };
        self.within.get(tenant).map_or_else(alone, |within| within.turn(head, start))
    }

    /// Notes that jobs of a tenant were asked for. The lanes are those of the tenant, in order.
    fn serve(&mut self, heads: &mut [Head], jobs: impl Fn(&Head) -> u32) {
        let Some(first) = heads.first() else { return };
        let (tenant, weight) = (first.head.lane.tenant.clone(), weight(heads));
        let all = heads.iter().fold(0_u32, |sum, head| sum.saturating_add(jobs(head)));
        self.tenants.charge(&tenant, weight, all);
        if let Some(within) = self.within.get_mut(&tenant) {
            within.serve(heads, jobs);
        }
        heads.iter_mut().for_each(|head| head.turn = self.turn(head));
    }
}

/// The turns of all levels at which anybody has work.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<Priority, Level>);

impl Turns {
    /// Takes in who has work at which level, from now on.
    pub(super) fn line_up(&mut self, heads: &mut [Head]) {
        let mut busy: BTreeMap<Priority, BTreeMap<&Tenant, BTreeMap<&Name, Shares>>> = BTreeMap::new();
        for Head { head, level, share, .. } in heads.iter() {
            let tenants = busy.entry(*level).or_default();
            let queues = tenants.entry(&head.lane.tenant).or_default();
            queues.entry(&head.lane.queue).or_default().add(*share);
        }
        self.0.retain(|at, level| {
            // Where nobody has work, nobody is behind: whoever comes next begins anew.
            let Some(here) = busy.get(at) else { return false };
            level.tenants.keep(|tenant| here.contains_key(tenant));
            level.within.retain(|tenant, _| here.contains_key(tenant));
            true
        });
        for (at, tenants) in busy {
            let level = self.0.entry(at).or_default();
            for (tenant, busy) in tenants {
                level.tenants.enter(tenant);
                if !level.within.contains_key(tenant) {
                    level.within.insert(tenant.clone(), Tenancy::default());
                }
                if let Some(within) = level.within.get_mut(tenant) {
                    within.line_up(&busy);
                }
            }
        }
        for head in heads {
            head.turn = self.0.get(&head.level).map(|level| level.turn(head)).unwrap_or_default();
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
