//! Which lanes have ready work, and what owners hold.

use std::sync::Arc;

use hodei_core::job::{Job, Lease, Priority, Request};
use hodei_core::store::{Before, Claimed, Lane, LaneHead, LaneRoom, Lanes, LimitOf, Served};
use hodei_core::{JobId, Result, Timestamp};

use crate::inner::Inner;
use crate::memory::{Delta, Place, limits_of};
use crate::reader::Snapshot;
use crate::rows::Rows;
use crate::sync::lock;

/// Returns the heads of the lanes, however many jobs wait in them.
pub(crate) fn lanes(rows: &mut Snapshot<'_>, inner: &Inner, served: &Served) -> Result<Lanes> {
    let now = inner.config.clock.now();
    let (first, next_due) = {
        let mut committed = lock(&inner.committed);
        committed.index.promote(now);
        rows.view = Arc::clone(&committed.view);
        let index = &committed.index;
        // Who serves nothing wants to know what is due, and does not go through the lanes for that.
        let nothing = served.queues.as_ref().is_some_and(Vec::is_empty);
        let lanes = (!nothing).then(|| index.lanes.iter()).into_iter().flatten();
        let full = lanes.filter(|(lane, _)| served.covers(&lane.queue) && index.serves(lane));
        let most = if served.every_level { usize::MAX } else { 1 };
        let levels = full.flat_map(|(lane, of)| of.heads().take(most).map(move |head| (lane, of, head)));
        let first = |(lane, of, head): (&Lane, &crate::memory::LaneState, _)| {
            let (lane, request) = (lane.clone(), Arc::clone(&of.request));
            let mut room = LaneRoom::unlimited(request.resources.token_count(), now);
            room.hold(index.wide_room(&lane));
            let under = LimitOf::of_jobs(&lane.tenant, &lane.queue, &request.limit_keys);
            index.rates.pace(&mut room, under);
            let (level, eligible_at, depth) = head;
            First { lane, request, level, eligible_at, depth, room }
        };
        (levels.map(first).collect::<Vec<_>>(), committed.index.next_due(&Delta::default()))
    };
    let (mut heads, mut opens_at) = (Vec::with_capacity(first.len()), None);
    for first in first {
        let Some((head, opens)) = head(rows, inner, first)? else { continue };
        heads.extend(Some(head).filter(|head| head.depth > 0));
        opens_at = [opens_at, opens].into_iter().flatten().min();
    }
    Ok(Lanes { heads, next_due, opens_at })
}

/// Says how many ready jobs come before one.
pub(crate) fn before(inner: &Inner, job: &Job, most: u64) -> Before {
    let mut committed = lock(&inner.committed);
    committed.index.promote(inner.config.clock.now());
    let (index, own) = (&committed.index, Lane::of(job));
    let place = Place::new(job.spec.priority(), job.eligible_at, job.id);
    let mut before = Before::default();
    let others = index.lanes.iter().filter(|(lane, _)| **lane != own);
    let lanes = index.lanes.get_key_value(&own).into_iter().chain(others);
    for (lane, of) in lanes.filter(|(lane, _)| index.serves(lane)) {
        let left = before.left(most);
        if left == 0 {
            break;
        }
        before.add(*lane == own, of.before(&place, left));
    }
    before.up_to(most)
}

/// What is ready in a lane.
struct First {
    lane: Lane,
    request: Arc<Request>,
    level: Priority,
    eligible_at: Timestamp,
    depth: u64,
    /// What the limits let through that are in memory.
    room: LaneRoom,
}

/// Holds what is ready in a lane to its policy and its limits, and says when its rates let more through; nothing where it is
/// paused.
fn head(
    rows: &mut Snapshot<'_>,
    inner: &Inner,
    first: First,
) -> Result<Option<(LaneHead, Option<Timestamp>)>> {
    let First { lane, request, level, eligible_at, depth, mut room } = first;
    let policy = rows.policy(&lane)?;
    if policy.as_ref().is_some_and(|policy| policy.paused) {
        return Ok(None);
    }
    for limited in limits_of(&lane.tenant, &request.limit_keys) {
        if let Some(limit) = rows.limit(&limited)? {
            let used = lock(&inner.committed).index.in_use.get(&limited).copied().unwrap_or(0);
            room.hold(u64::from(limit.max).saturating_sub(used));
        }
    }
    let weight = policy.map_or(1, |policy| policy.weight);
    let (depth, opens_at) = room.shown(depth);
    Ok(Some((LaneHead { lane, request, level, depth, eligible_at, weight }, opens_at)))
}

/// Returns what an owner holds.
pub(crate) fn leases_of(rows: &mut Snapshot<'_>, inner: &Inner, owner: &Lease) -> Result<Vec<Claimed>> {
    let ids: Vec<JobId> = {
        let committed = lock(&inner.committed);
        rows.view = Arc::clone(&committed.view);
        committed.index.leases.get(owner).into_iter().flatten().copied().collect()
    };
    rows.held(&ids)
}
