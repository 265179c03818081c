//! Whose turn it is among the tenants of a level, over all exchanges.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996): each tenant has a start, how much virtual time it has been served for,
//! and whoever has the lowest comes first. A job moves the start of its tenant by a turn, which is the shorter the more the
//! tenant weighs. Who comes with work after a while begins where the others are: it neither gains nor loses by having had
//! none.

use std::collections::{BTreeMap, BTreeSet};

use hodei_core::Tenant;
use hodei_core::job::Priority;

use super::picks::Head;

/// A turn of a tenant of weight one.
const TURN: u128 = 1 << 32;

/// The turns of one level.
#[derive(Debug, Default)]
struct Level {
    /// Where those are who have work.
    now: u128,
    starts: BTreeMap<Tenant, u128>,
}

/// The turns of all levels at which anybody has work.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<Priority, Level>);

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
            level
                .starts
                .retain(|tenant, start| *start > now || here.is_some_and(|here| here.contains(tenant)));
            here.is_some() || !level.starts.is_empty()
        });
        for (at, tenants) in busy {
            let level = self.0.entry(at).or_default();
            let now = level.now;
            let starts = tenants.into_iter().map(|tenant| {
                let start = level.starts.entry(tenant.clone()).or_insert(now);
                *start = (*start).max(now);
                *start
            });
            // Everybody who has work is here or further.
            level.now = starts.min().unwrap_or(now);
        }
    }

    /// Where a tenant is at a level: who is lower comes first.
    pub(super) fn start(&self, level: Priority, tenant: &Tenant) -> u128 {
        self.0.get(&level).and_then(|level| level.starts.get(tenant)).copied().unwrap_or(0)
    }

    /// Notes that so many jobs of a tenant were asked for.
    pub(super) fn served(&mut self, level: Priority, tenant: &Tenant, weight: u32, jobs: u32) {
        if let Some(start) = self.0.get_mut(&level).and_then(|level| level.starts.get_mut(tenant)) {
            *start += TURN * u128::from(jobs) / u128::from(weight.max(1));
        }
    }
}
