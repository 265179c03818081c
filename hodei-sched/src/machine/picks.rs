//! What to claim: only what can start soon, most urgent first.

use std::collections::{HashMap, HashSet};

use hodei_core::Tenant;
use hodei_core::job::{Request, Resources};
use hodei_core::store::{LaneHead, Pick};

use super::session::{Session, times};

/// Free capacity, as it will be once the jobs claimed already have been assigned.
#[derive(Debug)]
pub(super) struct Room {
    sessions: Vec<Free>,
}

#[derive(Debug)]
struct Free {
    /// The place of the session in the list that the room was made of.
    session: usize,
    resources: Resources,
    slots: u32,
}

impl Room {
    pub(super) fn of<'a>(sessions: impl Iterator<Item = &'a Session>) -> Self {
        let free = |(session, s): (usize, &Session)| Free {
            session,
            resources: s.free().clone(),
            slots: s.open_slots(),
        };
        Self { sessions: sessions.enumerate().map(free).collect() }
    }

    /// How many slots are free.
    pub(super) fn slots(&self) -> u32 {
        self.sessions.iter().fold(0, |sum, free| sum.saturating_add(free.slots))
    }

    /// Sets room aside for up to `n` jobs of a request, and returns for how many there was any.
    pub(super) fn take(&mut self, sessions: &[&Session], request: &Request, n: u32) -> u32 {
        let mut taken = 0;
        for free in &mut self.sessions {
            if taken == n {
                break;
            }
            if free.slots == 0 || !sessions[free.session].could_run(request) {
                continue;
            }
            let here = times(&request.resources, &free.resources).min(free.slots).min(n - taken);
            if request.resources != Resources::none() {
                for _ in 0..here {
                    if let Some(rest) = free.resources.checked_sub(&request.resources) {
                        free.resources = rest;
                    }
                }
            }
            free.slots -= here;
            taken += here;
        }
        taken
    }
}

/// Orders lanes: by level, then tenants in turn by weight, then the longest waiting first.
///
/// `turn` moves on with every call, so that no tenant is always the first of its level.
pub(super) fn order(heads: &mut [LaneHead], turn: usize) {
    heads.sort_by(|a, b| {
        b.level
            .cmp(&a.level)
            .then_with(|| a.lane.tenant.cmp(&b.lane.tenant))
            .then(a.eligible_at.cmp(&b.eligible_at))
    });
    let mut start = 0;
    while start < heads.len() {
        let level = heads[start].level;
        let len = heads[start..].iter().take_while(|head| head.level == level).count();
        interleave(&mut heads[start..start + len], turn);
        start += len;
    }
}

/// Rotates the lanes of one level so that another tenant comes first each time.
fn interleave(heads: &mut [LaneHead], turn: usize) {
    let mut firsts: Vec<usize> = Vec::new();
    for (n, head) in heads.iter().enumerate() {
        if n == 0 || heads[n - 1].lane.tenant != head.lane.tenant {
            firsts.push(n);
        }
    }
    if firsts.len() > 1 {
        let first = firsts[turn % firsts.len()];
        heads.rotate_left(first);
    }
}

/// Decides what to claim.
///
/// The tenants of a level share what is free by their weights; a tenant's weight is the highest of its lanes'. What a
/// level leaves goes to the next one. `ahead` more jobs are claimed for slots that are about to become free.
pub(super) fn decide(heads: &[LaneHead], sessions: &[&Session], room: &mut Room, ahead: u32) -> Vec<Pick> {
    let mut picks = Vec::new();
    let mut ahead = ahead;
    let mut start = 0;
    while start < heads.len() {
        let level = heads[start].level;
        let len = heads[start..].iter().take_while(|head| head.level == level).count();
        decide_level(&heads[start..start + len], sessions, room, &mut ahead, &mut picks);
        start += len;
    }
    picks
}

fn decide_level(
    heads: &[LaneHead],
    sessions: &[&Session],
    room: &mut Room,
    ahead: &mut u32,
    picks: &mut Vec<Pick>,
) {
    let mut weights: HashMap<&Tenant, u32> = HashMap::new();
    for head in heads {
        let weight = weights.entry(&head.lane.tenant).or_default();
        *weight = (*weight).max(head.weight).max(1);
    }
    let able = |head: &LaneHead| sessions.iter().any(|session| session.could_run(&head.request));
    let depth = |head: &LaneHead| u32::try_from(head.depth).unwrap_or(u32::MAX);
    let mut want: Vec<u32> = heads.iter().map(|head| if able(head) { depth(head) } else { 0 }).collect();
    let mut got = vec![0_u32; heads.len()];
    loop {
        let active =
            heads.iter().zip(&want).filter(|(_, want)| **want > 0).map(|(head, _)| &head.lane.tenant);
        let active: HashSet<&Tenant> = active.collect();
        if active.is_empty() {
            break;
        }
        let total = active.iter().fold(0_u32, |sum, tenant| sum.saturating_add(weights[*tenant]));
        // What is free is shared out; what a tenant cannot use is shared out again in the next round.
        let quantum = (room.slots().saturating_add(*ahead) / total).max(1);
        // However many lanes a tenant has, they draw from the one share of the tenant.
        let mut shares: HashMap<&Tenant, u32> = HashMap::new();
        for (n, head) in heads.iter().enumerate() {
            let tenant = &head.lane.tenant;
            let share = shares.entry(tenant).or_insert_with(|| quantum.saturating_mul(weights[tenant]));
            let wanted = want[n].min(*share);
            let now = room.take(sessions, &head.request, wanted);
            let extra = (wanted - now).min(*ahead);
            *ahead -= extra;
            *share -= now + extra;
            got[n] += now + extra;
            // A lane that finds no room now finds none later.
            want[n] = if now + extra < wanted { 0 } else { want[n] - wanted };
        }
    }
    for (head, n) in heads.iter().zip(got).filter(|(_, n)| *n > 0) {
        picks.push(Pick { lane: head.lane.clone(), floor: head.level, n });
    }
}
