//! The rows of a slot that leaves.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use hodei_core::job::{Job, State};
use hodei_core::store::{Cursor, Limit, LimitOf, Scope, SlotBatch, SlotRow, Spent};
use hodei_core::{Error, Fault, JobId, Result, Slot, Tenant, Timestamp};

use super::list::{Asked, bad_cursor, jobs};
use crate::codec;
use crate::error::corrupt;
use crate::inner::Inner;
use crate::key;
use crate::memory::{Index, Paced, Phase, conflict};
use crate::reader::Snapshot;
use crate::rows::Rows;
use crate::sync::lock;
use crate::table::Tab;

/// Reads about so many rows of a slot that leaves, each once: the settings, then the jobs by (tenant, state, creation).
pub(crate) fn export_slot(
    rows: &mut Snapshot<'_>,
    inner: &Inner,
    (slot, number): (Slot, u64),
    after: Option<&Cursor>,
    limit: usize,
) -> Result<SlotBatch> {
    const OP: &str = "store.export_slot";
    rows.view = Arc::clone(&lock(&inner.committed).view);
    let moving = rows.view.slots.get(slot);
    if moving.number != number || moving.phase != Phase::Leaving {
        return Err(conflict(OP, slot));
    }
    if limit == 0 {
        return Err(Error::invalid(OP, vec![Fault::new("limit", "zero")]));
    }
    let after = after.map(|cursor| Place::of(cursor.as_bytes())).transpose()?;
    let mut found = if after.is_none() { policies(rows, slot)? } else { Vec::new() };
    let places = places(rows, inner, slot, after, limit)?;
    let mut asked: Vec<Asked> = places.iter().map(|place| place.id).zip(0..).collect();
    asked.sort_unstable();
    let mut jobs = jobs(rows, &Scope::All, &asked)?;
    if jobs.len() != places.len() {
        // Whatever is left out here is gone when the slot is removed from this file.
        return Err(corrupt(OP, "a listed job that is not there").with("slot", slot.number()));
    }
    jobs.sort_unstable_by_key(|(place, _)| *place);
    for (_, job) in jobs {
        found.push(row_of(rows, job)?);
    }
    let next = places.last().filter(|_| places.len() == limit).map(Place::cursor);
    Ok(SlotBatch { rows: found, next })
}

/// The place of a job in its slot.
struct Place {
    tenant: Tenant,
    state: State,
    at: Timestamp,
    id: JobId,
}

impl Place {
    /// Reads a place from the bytes of a cursor.
    fn of(bytes: &[u8]) -> Result<Self> {
        let of = || {
            let (tenant, state) = key::split_ended(bytes)?;
            let (at, id) = key::last_time(bytes).zip(key::last_id(bytes))?;
            Some(Self { tenant: Tenant::new(tenant).ok()?, state, at, id })
        };
        of().ok_or_else(bad_cursor)
    }

    fn key(&self) -> Vec<u8> {
        key::ended(&self.tenant, self.state, self.at, self.id)
    }

    fn cursor(&self) -> Cursor {
        Cursor::from_bytes(self.key())
    }
}

/// Returns the next places of a slot. What is open is found in memory: a slot that leaves does not change.
fn places(
    rows: &mut Snapshot<'_>,
    inner: &Inner,
    slot: Slot,
    mut after: Option<Place>,
    limit: usize,
) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    let mut behind: Option<Tenant> = None;
    while places.len() < limit {
        let from = after.as_ref().map(|after| after.tenant.clone());
        let (tenant, open) = {
            let index = &lock(&inner.committed).index;
            let Some(tenant) = next_tenant(index, slot, from.as_ref(), behind.as_ref()) else { break };
            let open = open_places(index, &tenant, after.as_ref(), limit - places.len());
            (tenant, open)
        };
        places.extend(open);
        ended_places(rows, &tenant, after.take().filter(|after| after.tenant == tenant), limit, &mut places)?;
        behind = Some(tenant);
    }
    Ok(places)
}

/// Returns the first tenant of a slot from one on, or behind one.
fn next_tenant(index: &Index, slot: Slot, from: Option<&Tenant>, behind: Option<&Tenant>) -> Option<Tenant> {
    let begin = match (from, behind) {
        (Some(from), _) => Bound::Included(from),
        (None, Some(behind)) => Bound::Excluded(behind),
        (None, None) => Bound::Unbounded,
    };
    let mut tenants = index.counts.range::<Tenant, _>((begin, Bound::Unbounded)).map(|(tenant, _)| tenant);
    tenants.find(|tenant| tenant.slot() == slot).cloned()
}

fn open_places(index: &Index, tenant: &Tenant, after: Option<&Place>, most: usize) -> Vec<Place> {
    let after = after.filter(|after| after.tenant == *tenant);
    let mut places = Vec::new();
    for state in State::ALL.into_iter().filter(|state| !state.is_terminal()) {
        let from = match after {
            Some(after) if after.state > state => continue,
            Some(after) if after.state == state => Bound::Excluded((after.at, after.id)),
            Some(_) | None => Bound::Unbounded,
        };
        let list =
            index.list(tenant, state).into_iter().flat_map(|list| list.range((from, Bound::Unbounded)));
        let place = |(at, id): &(Timestamp, JobId)| Place { tenant: tenant.clone(), state, at: *at, id: *id };
        places.extend(list.take(most - places.len()).map(place));
    }
    places
}

/// Adds what has ended of a tenant, as far as there is room.
fn ended_places(
    rows: &mut Snapshot<'_>,
    tenant: &Tenant,
    after: Option<Place>,
    limit: usize,
    places: &mut Vec<Place>,
) -> Result<()> {
    if places.len() == limit {
        return Ok(());
    }
    let prefix = key::tenant_prefix(tenant);
    // The first key behind another is that key with a zero at its end. Nothing open is in this table.
    let from = after.map_or_else(|| prefix.clone(), |after| [&after.key()[..], &[0]].concat());
    let end = key::behind(&prefix);
    rows.scan(Tab::Ended, (Some(from.as_slice()), end.as_deref()).into(), |key, _| {
        places.push(Place::of(key)?);
        Ok(places.len() < limit)
    })
}

/// Makes the whole row of a job.
pub(crate) fn row_of(rows: &mut Snapshot<'_>, job: Job) -> Result<SlotRow> {
    let edges = edges(rows, &job)?;
    let last = match job.spec.sequence() {
        Some(sequence) => {
            let last = rows.read(Tab::Sequences, &key::tenant_text(&job.tenant, sequence), codec::id)?;
            last == Some(job.id)
        }
        None => false,
    };
    Ok(SlotRow::Job { job: Box::new(job), edges, last })
}

/// Reads the edges from the parents of a job that are kept.
fn edges(rows: &mut Snapshot<'_>, job: &Job) -> Result<Vec<(JobId, bool)>> {
    let mut edges = Vec::with_capacity(job.parents.len());
    for parent in job.parents.iter() {
        let edge = rows.read(Tab::Children, &key::child(parent.id, job.id), codec::edge)?;
        edges.extend(edge.map(|(_, told)| (parent.id, told)));
    }
    Ok(edges)
}

/// A limit with its rate.
pub(crate) fn limit_row(limit: Limit, rates: &BTreeMap<LimitOf, Paced>) -> SlotRow {
    match rates.get(&limit.of) {
        Some((rate, spent)) => SlotRow::Limit(limit.rate(*rate), *spent),
        None => SlotRow::Limit(limit, Spent::default()),
    }
}

fn policies(rows: &mut Snapshot<'_>, slot: Slot) -> Result<Vec<SlotRow>> {
    let mut found = Vec::new();
    rows.scan(Tab::Queues, crate::rows::Span::ALL, |_, row| {
        found.extend(Some(SlotRow::Queue(codec::queue(row)?)).filter(|row| row.slot() == Some(slot)));
        Ok(true)
    })?;
    let rates = rows.rates()?;
    rows.scan(Tab::Limits, crate::rows::Span::ALL, |_, row| {
        let row = limit_row(codec::limit(row)?, &rates);
        found.extend(Some(row).filter(|row| row.slot() == Some(slot)));
        Ok(true)
    })?;
    rows.scan(Tab::Schedules, crate::rows::Span::ALL, |_, row| {
        found.extend(Some(SlotRow::Schedule(codec::schedule(row)?)).filter(|row| row.slot() == Some(slot)));
        Ok(true)
    })?;
    Ok(found)
}
