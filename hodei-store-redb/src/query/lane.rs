//! Which lanes have ready work.

use std::sync::Mutex;

use hodei_core::job::Priority;
use hodei_core::store::{LaneHead, Lanes, Served};
use hodei_core::{Result, Timestamp};

use crate::error::corrupt;
use crate::index::{Index, LaneState, limits_of};
use crate::key;
use crate::reader::Snapshot;
use crate::rows::{Rows, Span};
use crate::sync::lock;
use crate::table::Tab;

/// Returns when the next delayed job becomes ready; what is already due counts.
pub(crate) fn next_due(rows: &mut Snapshot<'_>) -> Result<Option<Timestamp>> {
    let mut due = None;
    rows.scan(Tab::Due, Span::ALL, |key, _| {
        due = key::last_time(key);
        Ok(false)
    })?;
    Ok(due)
}

/// Returns the heads of the lanes: one row is read for each, however many jobs wait.
pub(crate) fn lanes(rows: &mut Snapshot<'_>, index: &Mutex<Index>, served: &Served) -> Result<Lanes> {
    let full: Vec<(Vec<u8>, LaneState)> = {
        let index = lock(index);
        let full =
            index.lanes.iter().filter(|(_, of)| !of.levels.is_empty() && served.covers(&of.lane.queue));
        full.map(|(key, of)| (key.clone(), of.clone())).collect()
    };
    let mut heads = Vec::with_capacity(full.len());
    for (key, of) in full {
        heads.extend(head(rows, index, &key, of)?);
    }
    Ok(Lanes { heads, next_due: next_due(rows)? })
}

fn head(
    rows: &mut Snapshot<'_>,
    index: &Mutex<Index>,
    key: &[u8],
    of: LaneState,
) -> Result<Option<LaneHead>> {
    let policy = rows.policy(&of.lane)?;
    if policy.as_ref().is_some_and(|policy| policy.paused) {
        return Ok(None);
    }
    let Some((level, eligible_at)) = first(rows, key)? else { return Ok(None) };
    let mut depth = of.levels.get(&level).copied().unwrap_or(1);
    for limited in limits_of(&of.lane.tenant, &of.request.limit_keys) {
        if let Some(limit) = rows.limit(&limited)? {
            let used = lock(index).in_use.get(&limited).copied().unwrap_or(0);
            depth = depth.min(u64::from(limit.max).saturating_sub(used));
        }
    }
    let weight = policy.map_or(1, |policy| policy.weight);
    let head = LaneHead { lane: of.lane, request: of.request, level, depth, eligible_at, weight };
    Ok((depth > 0).then_some(head))
}

fn first(rows: &mut Snapshot<'_>, lane: &[u8]) -> Result<Option<(Priority, Timestamp)>> {
    let mut first = None;
    rows.scan_prefix(Tab::Ready, lane, |key, _| {
        let (_, level, at, _) = key::split_ready(key).ok_or_else(|| corrupt("store.lanes", "a short key"))?;
        first = Some((level, at));
        Ok(false)
    })?;
    Ok(first)
}
