//! What to claim: only what can start soon, most urgent first.

use std::cmp::Reverse;
use std::collections::HashMap;

use hodei_core::job::Priority;
use hodei_core::store::{LaneHead, Pick};
use hodei_core::{Tenant, Timestamp};

use super::placement::{Fleet, Room};
use super::turns::{Claimant, Turns, turn};
use crate::queue::{Ageing, ClassId};

/// A lane with ready work, as the machine sees it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) head: LaneHead,
    pub(super) class: ClassId,
    /// The level that its first job has risen to.
    pub(super) level: Priority,
    /// How many jobs its rates let through now.
    pub(super) allowed: u32,
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

/// Orders lanes: by level, then the tenant first that was served the least for its weight, then the longest waiting first.
pub(super) fn order(heads: &mut [Head], turns: &Turns) {
    heads.sort_by_cached_key(|head| {
        let lane = &head.head.lane;
        let start = turns.start(head.level, &lane.tenant);
        (Reverse(head.level), start, lane.tenant.clone(), head.head.eligible_at)
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
    pub(super) turns: &'f Turns,
    pub(super) room: Room<'f>,
    /// So many more jobs are claimed for slots that are about to become free.
    pub(super) ahead: u32,
    /// Whether a worker is kept for the most urgent job that finds no room.
    pub(super) keep: bool,
}

impl Decision<'_> {
    /// Decides what to claim.
    ///
    /// The tenants of a level share what is free by their weights; a tenant's weight is the highest of its lanes'. What
    /// a level leaves goes to the next one. The first lane that finds no room although slots are free has one job claimed
    /// all the same: a worker is kept for it from then on, or smaller jobs would have all room before it for ever.
    /// So is one for which what runs makes room.
    pub(super) fn take(
        mut self,
        heads: &[Head],
        waits: impl Fn(ClassId) -> bool,
        makes_room: impl Fn(Priority) -> bool,
    ) -> Vec<Pick> {
        let mut picks = Vec::new();
        // The first lane that got nothing, and the first that got nothing although slots were free.
        let (mut waiting, mut refused): (Option<&Head>, Option<&Head>) = (None, None);
        for level in levels(heads) {
            let heads = &heads[level];
            let (got, lacked) = self.level(heads);
            for (n, head) in heads.iter().enumerate() {
                if got[n] > 0 {
                    picks.push(pick(head, got[n]));
                } else if self.fleet.is_able(head.class) && head.allowed > 0 && !waits(head.class) {
                    waiting = waiting.or(Some(head));
                    if self.keep && refused.is_none() && lacked[n] && self.room.keep(head.class, head.level) {
                        refused = Some(head);
                    }
                }
            }
        }
        if let Some(head) = refused.or_else(|| waiting.filter(|head| makes_room(head.head.level))) {
            picks.push(pick(head, 1));
        }
        picks
    }

    /// How many to claim from each lane of a level, and whether it found no room for any although slots were free.
    fn level(&mut self, heads: &[Head]) -> (Vec<u32>, Vec<bool>) {
        let mut weights: HashMap<&Tenant, u32> = HashMap::new();
        for Head { head, .. } in heads {
            let weight = weights.entry(&head.lane.tenant).or_default();
            *weight = (*weight).max(head.weight).max(1);
        }
        let want = |head: &Head| {
            let depth = u32::try_from(head.head.depth).unwrap_or(u32::MAX);
            if self.fleet.is_able(head.class) { depth.min(head.allowed) } else { 0 }
        };
        let mut want: Vec<u32> = heads.iter().map(want).collect();
        let mut got = vec![0_u32; heads.len()];
        let mut lacked = vec![false; heads.len()];
        // What each tenant has got, which its start does not know yet.
        let mut served: HashMap<&Tenant, u32> = HashMap::new();
        let mut stuck = false;
        while self.room.slots() > 0 || self.ahead > 0 {
            let shares = self.shares(heads, &want, &weights, &served, stuck);
            let Some(mut shares) = shares else { break };
            stuck = true;
            for (n, head) in heads.iter().enumerate() {
                let tenant = &head.head.lane.tenant;
                let Some(share) = shares.get_mut(tenant) else { continue };
                let wanted = want[n].min(*share);
                let slots = self.room.slots();
                let now = if wanted == 0 { 0 } else { self.room.take(head.class, head.level, wanted) };
                lacked[n] |= wanted > 0 && now == 0 && slots > 0;
                let extra = (wanted - now).min(self.ahead);
                self.ahead -= extra;
                *share -= now + extra;
                got[n] += now + extra;
                *served.entry(tenant).or_default() += now + extra;
                stuck &= now + extra == 0;
                // A lane that finds no room now finds none later.
                want[n] = if now + extra < wanted { 0 } else { want[n] - wanted };
            }
        }
        (got, lacked)
    }

    /// How many of the jobs for which there is room fall to each tenant of a level; nothing when nobody wants any. What a tenant
    /// cannot use is shared out again in the next round. Where nobody could use his share, everybody is tried with one job.
    fn shares<'h>(
        &self,
        heads: &'h [Head],
        want: &[u32],
        weights: &HashMap<&Tenant, u32>,
        served: &HashMap<&Tenant, u32>,
        stuck: bool,
    ) -> Option<HashMap<&'h Tenant, u32>> {
        let level = heads.first()?.level;
        let mut places: HashMap<&Tenant, usize> = HashMap::new();
        let (mut tenants, mut claimants): (Vec<&Tenant>, Vec<Claimant>) = (Vec::new(), Vec::new());
        for (head, want) in heads.iter().zip(want).filter(|(_, want)| **want > 0) {
            let tenant = &head.head.lane.tenant;
            let place = *places.entry(tenant).or_insert_with(|| {
                let weight = weights.get(tenant).copied().unwrap_or(1);
                let before = served.get(tenant).copied().unwrap_or(0);
                let start = self.turns.start(level, tenant) + turn(before, weight);
                tenants.push(tenant);
                claimants.push(Claimant { start, weight, wants: 0 });
                tenants.len() - 1
            });
            let claimant = &mut claimants[place];
            claimant.wants = claimant.wants.saturating_add(*want);
        }
        if tenants.is_empty() {
            return None;
        }
        let free = self.room.slots().saturating_add(self.ahead);
        let before = served.values().fold(0, |sum: u32, n| sum.saturating_add(*n));
        let out = if stuck {
            vec![1; tenants.len()]
        } else {
            self.turns.share_out(level, &claimants, before, free)
        };
        Some(tenants.into_iter().zip(out).collect())
    }
}

fn pick(head: &Head, n: u32) -> Pick {
    Pick { lane: head.head.lane.clone(), floor: head.head.level, n }
}
