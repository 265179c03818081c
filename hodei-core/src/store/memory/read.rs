//! Lanes, lists and the change log.

use std::cmp::Reverse;
use std::iter::Peekable;
use std::ops::Bound;

use super::super::{Before, ChangePage, Cursor, Lane, LaneHead, Lanes, Order, Page, Query, Scope, Served};
use super::state::{Key, Lists, State, first_of};
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::id::JobId;
use crate::job::{Job, JobSummary, State as JobState};
use crate::time::Timestamp;

/// How many rows a page looks at before it is returned short.
const EXAMINED_MAX: usize = 10_000;

impl State {
    pub(super) fn lanes(&mut self, served: &Served, now: Timestamp) -> Lanes {
        self.promote(now);
        let (mut heads, mut opens_at) = (Vec::new(), None);
        for (lane, ready) in &self.ready {
            let closed = self.slots.closed(|| lane.tenant.slot());
            if closed || !served.covers(&lane.queue) || self.paused(lane) {
                continue;
            }
            for (level, depth) in ready.levels.iter().take(if served.every_level { usize::MAX } else { 1 }) {
                let Some((_, eligible_at, _)) = ready.jobs.range(first_of(*level)..).next() else { continue };
                let (depth, opens) = self.room(lane, &ready.request, now).shown(*depth);
                opens_at = [opens_at, opens].into_iter().flatten().min();
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
        }
        Lanes { heads, next_due: self.due.first().map(|(at, _)| *at), opens_at }
    }

    /// How many ready jobs come before one.
    pub(super) fn before(&mut self, job: &Job, most: u64, now: Timestamp) -> Before {
        self.promote(now);
        let level = Reverse(job.spec.priority());
        let (first, own) = (first_of(level), Lane::of(job));
        let mut before = Before::default();
        let others = self.ready.iter().filter(|(lane, _)| **lane != own);
        for (lane, ready) in self.ready.get_key_value(&own).into_iter().chain(others) {
            let left = before.left(most);
            if left == 0 {
                break;
            }
            if self.slots.closed(|| lane.tenant.slot()) {
                continue;
            }
            let above: u64 = ready.levels.range(..level).map(|(_, jobs)| jobs).sum();
            // The sets tell no ranks, so those of its own level are gone through.
            let same = ready.jobs.range(first..(level, job.eligible_at, job.id)).take(left).count();
            before.add(*lane == own, above + same as u64);
        }
        before.up_to(most)
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
        if let Some(pipeline) = query.pipeline {
            let with = |key: Key| (pipeline, key.0, key.1);
            let range = self.pipelines.range((from.map(with), to.map(with))).map(|(_, at, id)| (*at, *id));
            return ordered(range, query.order);
        }
        let tenants = self.lists.iter().filter(|(tenant, _)| scope.covers(tenant));
        let wanted = |state: &JobState| query.state.is_none_or(|only| only == *state);
        let states = |(_, lists): (_, &'a Lists)| {
            JobState::ALL.into_iter().filter(wanted).map(|state| lists.of(state)).collect::<Vec<_>>()
        };
        let lists = tenants.flat_map(states).filter(|list| !list.is_empty());
        let ranges = lists.map(|list| ordered(list.range((from, to)).copied(), query.order).peekable());
        Box::new(Merged { ranges: ranges.collect(), order: query.order })
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
        if skip > self.changes.len() as u64 {
            return Err(expired());
        }
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

/// Several lists, each in order, as one.
struct Merged<'a> {
    ranges: Vec<Peekable<Box<dyn Iterator<Item = Key> + 'a>>>,
    order: Order,
}

impl Iterator for Merged<'_> {
    type Item = Key;

    fn next(&mut self) -> Option<Key> {
        let heads = self.ranges.iter_mut().enumerate().filter_map(|(n, range)| Some((*range.peek()?, n)));
        let (_, first) = match self.order {
            Order::OldestFirst => heads.min(),
            Order::NewestFirst => heads.max(),
        }?;
        self.ranges[first].next()
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

pub(super) fn cursor_of((at, id): Key) -> Cursor {
    let mut bytes = at.as_micros().to_be_bytes().to_vec();
    bytes.extend_from_slice(id.as_bytes());
    Cursor::from_bytes(bytes)
}

pub(super) fn key_of(cursor: &Cursor) -> Result<Key> {
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
