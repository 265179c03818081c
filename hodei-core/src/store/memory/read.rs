//! Lanes, lists and the change log.

use std::ops::Bound;

use super::super::{ChangePage, Cursor, LaneHead, Lanes, Order, Page, Query, Scope, Served};
use super::state::State;
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::id::JobId;
use crate::job::JobSummary;
use crate::time::Timestamp;

/// How many rows a page looks at before it is returned short.
const EXAMINED_MAX: usize = 10_000;

/// The place of a job in a list.
type Key = (Timestamp, JobId);

impl State {
    pub(super) fn lanes(&mut self, served: &Served, now: Timestamp) -> Lanes {
        self.promote(now);
        let mut heads = Vec::new();
        for (lane, ready) in &self.ready {
            if !served.covers(&lane.queue) || self.paused(lane) {
                continue;
            }
            let Some(((level, eligible_at, _), depth)) = ready.jobs.first().zip(ready.levels.values().next())
            else {
                continue;
            };
            let depth = self.room(&lane.tenant, &ready.request).min(*depth);
            if depth > 0 {
                heads.push(LaneHead {
                    lane: lane.clone(),
                    request: std::sync::Arc::clone(&ready.request),
                    level: level.0,
                    depth,
                    eligible_at: *eligible_at,
                    weight: self.weight(lane),
                });
            }
        }
        Lanes { heads, next_due: self.due.first().map(|(at, _)| *at) }
    }

    pub(super) fn query(&self, scope: &Scope, query: &Query) -> Result<Page> {
        if query.limit == 0 || query.limit > Query::LIMIT_MAX {
            let fault = Fault::new("limit", "out_of_range").limit(Query::LIMIT_MAX as u64);
            return Err(Error::invalid("store.query", vec![fault]));
        }
        let after = query.after.as_ref().map(key_of).transpose()?;
        let mut jobs: Vec<JobSummary> = Vec::new();
        let mut next = None;
        for (n, key) in self.keys(scope, query, after).enumerate() {
            if jobs.len() == query.limit || n == EXAMINED_MAX {
                return Ok(Page { jobs, next });
            }
            next = Some(cursor_of(key));
            let found =
                self.jobs.get(&key.1).filter(|job| scope.covers(&job.tenant)).map(|job| job.summary());
            jobs.extend(found.filter(|summary| query.matches(summary)));
        }
        Ok(Page { jobs, next: None })
    }

    /// Goes through the narrowest index that has every job of the query, in its order, after a place.
    fn keys<'a>(
        &'a self,
        scope: &'a Scope,
        query: &'a Query,
        after: Option<Key>,
    ) -> Box<dyn Iterator<Item = Key> + 'a> {
        let (low, high) = (
            (Timestamp::from_micros(i64::MIN), JobId::from_bytes([0; 16])),
            (Timestamp::MAX, JobId::from_bytes([0xff; 16])),
        );
        let (from, to) = match (query.order, after) {
            (Order::OldestFirst, Some(key)) => (Bound::Excluded(key), Bound::Included(high)),
            (Order::NewestFirst, Some(key)) => (Bound::Included(low), Bound::Excluded(key)),
            (_, None) => (Bound::Included(low), Bound::Included(high)),
        };
        match (query.pipeline, scope, query.state) {
            (Some(pipeline), ..) => {
                let with = |key: Key| (pipeline, key.0, key.1);
                let range =
                    self.pipelines.range((from.map(with), to.map(with))).map(|(_, at, id)| (*at, *id));
                ordered(range, query.order)
            }
            (None, Scope::Tenant(tenant), Some(state)) => {
                let with = |key: Key| (tenant.clone(), state, key.0, key.1);
                let range =
                    self.by_tenant.range((from.map(with), to.map(with))).map(|(_, _, at, id)| (*at, *id));
                ordered(range, query.order)
            }
            (None, Scope::All, Some(state)) => {
                let with = |key: Key| (state, key.0, key.1);
                let range = self.by_state.range((from.map(with), to.map(with))).map(|(_, at, id)| (*at, *id));
                ordered(range, query.order)
            }
            (None, _, None) => ordered(self.by_created.range((from, to)).copied(), query.order),
        }
    }

    pub(super) fn changes_after(
        &self,
        scope: &Scope,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<ChangePage> {
        if limit == 0 {
            return Err(Error::invalid("store.changes", vec![Fault::new("limit", "zero")]));
        }
        let expired = || Error::new(ErrorKind::CursorExpired, "store.changes");
        let from = match after {
            None => self.first_change,
            Some(cursor) => number_of(cursor)?,
        };
        let skip = from.checked_sub(self.first_change).ok_or_else(expired)?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut changes = Vec::new();
        let mut next = from;
        for change in self.changes.iter().skip(skip).take(EXAMINED_MAX) {
            if changes.len() == limit {
                break;
            }
            next += 1;
            if scope.covers(&change.tenant) {
                changes.push(change.clone());
            }
        }
        Ok(ChangePage { changes, next: Cursor::from_bytes(next.to_be_bytes().to_vec()) })
    }

    pub(super) fn changes_end(&self) -> Cursor {
        Cursor::from_bytes((self.first_change + self.changes.len() as u64).to_be_bytes().to_vec())
    }
}

fn ordered<'a>(
    range: impl DoubleEndedIterator<Item = Key> + 'a,
    order: Order,
) -> Box<dyn Iterator<Item = Key> + 'a> {
    match order {
        Order::OldestFirst => Box::new(range),
        Order::NewestFirst => Box::new(range.rev()),
    }
}

fn cursor_of((at, id): Key) -> Cursor {
    let mut bytes = at.as_micros().to_be_bytes().to_vec();
    bytes.extend_from_slice(id.as_bytes());
    Cursor::from_bytes(bytes)
}

fn key_of(cursor: &Cursor) -> Result<Key> {
    let parts = cursor.as_bytes().split_first_chunk::<8>();
    let key = parts.and_then(|(at, id)| {
        Some((Timestamp::from_micros(i64::from_be_bytes(*at)), JobId::from_bytes(id.try_into().ok()?)))
    });
    key.ok_or_else(bad_cursor)
}

fn number_of(cursor: &Cursor) -> Result<u64> {
    cursor.as_bytes().try_into().map(u64::from_be_bytes).map_err(|_| bad_cursor())
}

fn bad_cursor() -> Error {
    Error::invalid("store.cursor", vec![Fault::new("cursor", "not_of_this_list")])
}
