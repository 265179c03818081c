//! Lists of jobs: several index ranges, each in order, merged into one.

use std::collections::BinaryHeap;
use std::ops::Bound;

use hodei_core::job::{Job, JobSummary, Output, State};
use hodei_core::store::{Counts, Cursor, Order, Page, Query, Scope};
use hodei_core::{Error, Fault, JobId, Result, Slot, Tenant, Timestamp};

use crate::codec::{self, Fixed, Head, Shown};
use crate::error::{corrupt, failed};
use crate::front::{self, Ticket};
use crate::inner::{Committed, Inner};
use crate::key;
use crate::reader::Snapshot;
use crate::rows::Rows;
use crate::sync::lock;
use crate::table::Tab;

/// How many rows a page looks at before it is returned short.
const EXAMINED_MAX: usize = 10_000;

/// How many places of a list are looked up in one go.
const TOGETHER: usize = 1_024;

/// (created_at, id) as the last bytes of a key: the place of a job in every list.
type Place = [u8; 24];
/// A job's place, and its state where the list tells it.
type Listed = (Place, Option<State>);
/// The places of one range of an index, in the order of the query.
type Places<'p> = Box<dyn Iterator<Item = Result<Listed>> + 'p>;

/// Returns how many rows a page may have to read, where so many tenants have jobs.
pub(crate) fn rows_of(scope: &Scope, query: &Query, tenants: usize) -> usize {
    let ranges = match scope {
        Scope::Tenant(_) => 1,
        Scope::All => tenants.saturating_mul(State::ALL.len()),
    };
    if is_filtered(query) { EXAMINED_MAX } else { query.limit.saturating_mul(2).saturating_add(ranges) }
}

/// Says whether a list may name jobs that the query does not let through.
fn is_filtered(query: &Query) -> bool {
    query.queue.is_some() || query.name.is_some() || (query.pipeline.is_some() && query.state.is_some())
}

/// Returns the slot that a scope names.
pub(crate) fn slot_of(scope: &Scope) -> impl Iterator<Item = Slot> {
    let slot = match scope {
        Scope::All => None,
        Scope::Tenant(tenant) => Some(tenant.slot()),
    };
    slot.into_iter()
}

/// A job that was asked for, and its place among those that were.
pub(crate) type Asked = (JobId, usize);

/// How many jobs are read in full in one go: what is known of them half-way stays in the processor's cache.
const FULL_TOGETHER: usize = 128;

/// Reads jobs in full, in the order of their ids.
pub(crate) fn jobs(rows: &mut Snapshot<'_>, scope: &Scope, asked: &[Asked]) -> Result<Vec<(usize, Job)>> {
    rows.view.slots.readable("store.get_many", asked.iter().map(|(id, _)| id.slot()))?;
    let mut jobs = Vec::with_capacity(asked.len());
    asked.chunks(FULL_TOGETHER).try_for_each(|some| some_jobs(rows, scope, some, &mut jobs))?;
    Ok(jobs)
}

/// Reads them table by table, so that neighbours are found together.
fn some_jobs(
    rows: &mut Snapshot<'_>,
    scope: &Scope,
    asked: &[Asked],
    jobs: &mut Vec<(usize, Job)>,
) -> Result<()> {
    let ids = || asked.iter().map(|(id, _)| &id.as_bytes()[..]);
    let mut found: Vec<Option<(Head, Fixed)>> = Vec::new();
    found.resize_with(asked.len(), || None);
    let mut names = std::mem::take(rows.names());
    let specs = rows.specs();
    rows.seek(Tab::Born, ids(), |number, row| {
        let mut is_new = false;
        let known = |print| {
            let known = specs.get(print);
            is_new = known.is_none();
            known
        };
        let born = codec::born(asked[number].0, row, &mut names, known)?;
        if is_new {
            specs.keep(&born.1.spec, row.len());
        }
        found[number] = Some(born);
        Ok(())
    })?;
    let mut moved = vec![false; asked.len()];
    rows.seek(Tab::Heads, ids(), |number, row| {
        let id = asked[number].0;
        let missing = || corrupt("row.read", "a job without its spec").with("job", id);
        found[number].as_mut().ok_or_else(missing)?.0 = codec::head(id, row, &mut names)?;
        moved[number] = true;
        Ok(())
    })?;
    *rows.names() = names;
    for job in &mut found {
        if job.as_ref().is_some_and(|(head, _)| !scope.covers(&head.job.tenant)) {
            *job = None;
        }
    }
    let unmoved = found.iter().zip(moved).map(|(job, moved)| job.as_ref().filter(|_| !moved));
    let confirmed = rows.confirmed(unmoved.map(|job| job.map(|(head, _)| head)));
    for ((job, confirmed), (_, place)) in found.into_iter().zip(confirmed).zip(asked) {
        let Some((head, fixed)) = job else { continue };
        let head = if confirmed { head } else { rows.confirm(head)? };
        jobs.push((*place, rows.whole(head, fixed)?));
    }
    Ok(())
}

/// Reads what jobs that succeeded gave back.
pub(crate) fn outputs(rows: &mut Snapshot<'_>, scope: &Scope, ids: &[JobId]) -> Result<Vec<Option<Output>>> {
    rows.view.slots.readable("store.outputs", ids.iter().map(|id| id.slot()))?;
    let mut outputs = Vec::with_capacity(ids.len());
    for id in ids {
        let head = rows.head(*id)?.filter(|head| scope.covers(&head.job.tenant));
        let end = match head {
            Some(head) if head.job.state == State::Succeeded => rows.end(&head)?,
            _ => None,
        };
        outputs.push(end.map(|end| end.output.clone()));
    }
    Ok(outputs)
}

/// Reads a page of a list.
pub(crate) fn page(rows: &mut Snapshot<'_>, inner: &Inner, scope: &Scope, query: &Query) -> Result<Page> {
    if query.limit == 0 || query.limit > Query::LIMIT_MAX {
        let fault = Fault::new("limit", "out_of_range").limit(Query::LIMIT_MAX as u64);
        return Err(Error::invalid("store.query", vec![fault]));
    }
    let after = query.after.as_ref().map(place_of).transpose()?;
    let Open { tenants, open, reading } = open_places(rows, inner, scope, query, after)?;
    rows.view.slots.readable("store.query", slot_of(scope))?;
    let mut list = Merged::open(rows, query, &tenants, open, after)?;
    if let Some(ticket) = reading {
        list = left_behind(rows, inner, query, ticket, list)?;
    }
    let mut page = Page { jobs: Vec::new(), next: None };
    let (mut last, mut examined): (Option<Place>, usize) = (None, 0);
    loop {
        let wanted = if is_filtered(query) { TOGETHER } else { query.limit - page.jobs.len() };
        let most = wanted.min(EXAMINED_MAX - examined);
        let places: Vec<Listed> = list.by_ref().take(most).collect::<Result<_>>()?;
        examined += places.len();
        rows.count(places.len() as u64);
        for ((place, _), summary) in places.iter().zip(summaries(rows, &places)?) {
            if page.jobs.len() == query.limit {
                page.next = last.map(|last| Cursor::from_bytes(last.to_vec()));
                return Ok(page);
            }
            last = Some(*place);
            page.jobs.extend(Some(summary).filter(|of| scope.covers(&of.tenant) && query.matches(of)));
        }
        if places.len() < most {
            return Ok(page);
        }
        if page.jobs.len() == query.limit || examined == EXAMINED_MAX {
            if list.next().transpose()?.is_some() {
                page.next = last.map(|last| Cursor::from_bytes(last.to_vec()));
            }
            return Ok(page);
        }
    }
}

/// Reads what lists show of the jobs at places. A job that is not as its list says is damage.
fn summaries(rows: &mut Snapshot<'_>, places: &[Listed]) -> Result<Vec<JobSummary>> {
    let mut ids = Vec::with_capacity(places.len());
    for (number, (place, _)) in places.iter().enumerate() {
        ids.push((key::last_id(place).ok_or_else(short)?, number));
    }
    ids.sort_unstable();
    let sorted: Vec<JobId> = ids.iter().map(|(id, _)| *id).collect();
    let mut summaries: Vec<Option<JobSummary>> = vec![None; places.len()];
    for (shown, (id, number)) in rows.shown(&sorted)?.into_iter().zip(ids) {
        let (place, state) = places[number];
        let is_there = |shown: &Shown| key::last_time(&place) == Some(shown.summary.created_at);
        let Some(Shown { mut summary, newborn }) = shown.filter(is_there) else { continue };
        if state.is_none() && newborn {
            // The list does not tell that nothing has happened to it: the index has to.
            let Some(head) = rows.head(id)? else { continue };
            summary = head.summary();
        }
        if state.is_none_or(|state| state == summary.state) {
            summaries[number] = Some(summary);
        }
    }
    let missing = || corrupt("store.query", "a job that is not as it is listed");
    summaries.into_iter().map(|summary| summary.ok_or_else(missing)).collect()
}

fn short() -> Error {
    corrupt("store.query", "a short key")
}

pub(super) fn bad_cursor() -> Error {
    Error::invalid("store.cursor", vec![Fault::new("cursor", "not_of_this_list")])
}

fn place_of(cursor: &Cursor) -> Result<Place> {
    cursor.as_bytes().try_into().map_err(|_| bad_cursor())
}

/// Ranges merged by place.
struct Merged<'p> {
    ranges: Vec<Places<'p>>,
    /// The next place of each range, turned over where the oldest comes first, so that the greatest is the next.
    next: BinaryHeap<(Place, usize, Option<State>)>,
    order: Order,
}

impl<'p> Merged<'p> {
    /// Merges ranges that are each in an order.
    fn of(ranges: Vec<Places<'p>>, order: Order) -> Result<Self> {
        let mut merged = Self { next: BinaryHeap::with_capacity(ranges.len()), ranges, order };
        (0..merged.ranges.len()).try_for_each(|number| merged.refill(number))?;
        Ok(merged)
    }

    /// Opens the narrowest ranges that have every job of the query, after a place.
    fn open(
        rows: &mut Snapshot<'_>,
        query: &Query,
        tenants: &[(Tenant, Counts)],
        open: Vec<Listed>,
        after: Option<Place>,
    ) -> Result<Self> {
        let mut ranges: Vec<Places<'p>> = vec![Box::new(open.into_iter().map(Ok))];
        if let Some(pipeline) = query.pipeline {
            let steps = range(rows, Tab::Pipelines, pipeline.as_bytes(), query.order, after, None)?;
            // Nothing says that a pipeline is of one tenant.
            let slots = rows.view.slots.clone();
            let id = |listed: &Listed| key::last_id(&listed.0).map(JobId::slot);
            let seen = move |step: &Result<Listed>| {
                step.as_ref().ok().and_then(id).is_none_or(|slot| !slots.hides(|| slot))
            };
            ranges.push(Box::new(steps.filter(seen)));
        } else {
            let wanted = |state: &State| state.is_terminal() && query.state.is_none_or(|only| only == *state);
            for (tenant, counts) in tenants {
                for state in State::ALL.into_iter().filter(wanted).filter(|state| counts.of(*state) > 0) {
                    let prefix = key::state_prefix(tenant, state);
                    ranges.push(range(rows, Tab::Ended, &prefix, query.order, after, Some(state))?);
                }
            }
        }
        Self::of(ranges, query.order)
    }

    fn turned(&self, place: Place) -> Place {
        match self.order {
            Order::NewestFirst => place,
            Order::OldestFirst => place.map(|byte| !byte),
        }
    }

    fn refill(&mut self, number: usize) -> Result<()> {
        if let Some(place) = self.ranges[number].next() {
            let (place, state) = place?;
            self.next.push((self.turned(place), number, state));
        }
        Ok(())
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<Listed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (place, number, state) = self.next.pop()?;
        Some(self.refill(number).map(|()| (self.turned(place), state)))
    }
}

/// What a list is made of.
#[derive(Default)]
struct Open {
    /// The tenants of a scope with their counts: what has ended is listed by them.
    tenants: Vec<(Tenant, Counts)>,
    /// The first places that are in memory, of open jobs or of all.
    open: Vec<Listed>,
    /// What is to be kept of the list: it is the beginning of one of all tenants.
    reading: Option<Ticket>,
}

/// Returns the states that a query lets through.
fn wanted_states(query: &Query) -> Vec<State> {
    State::ALL.into_iter().filter(|state| query.state.is_none_or(|only| only == *state)).collect()
}

/// Leaves the beginning of a list over all tenants to whoever asks for it next, and returns it.
fn left_behind(
    rows: &Snapshot<'_>,
    inner: &Inner,
    query: &Query,
    ticket: Ticket,
    list: Merged<'static>,
) -> Result<Merged<'static>> {
    let most = front::KEPT.max(query.limit);
    let places: Vec<Listed> = list.take(most + 1).collect::<Result<_>>()?;
    // Those that are on the page are counted there.
    rows.count(places.len().saturating_sub(query.limit) as u64);
    let read = places.iter().map(|(place, state)| Some((place_in(place)?, (*state)?)));
    if let Some(read) = read.collect::<Option<Vec<_>>>() {
        let whole = read.len() <= most;
        lock(&inner.committed).front.take_in(ticket, &wanted_states(query), &read, whole);
    }
    Merged::of(vec![Box::new(places.into_iter().map(Ok))], query.order)
}

fn place_in(place: &Place) -> Option<front::Place> {
    key::last_time(place).zip(key::last_id(place))
}

/// Returns the tenants of a scope and the first places of their open jobs after a place, as many as a page may look at; from
/// here on the rows are those of the same commit.
fn open_places(
    rows: &mut Snapshot<'_>,
    inner: &Inner,
    scope: &Scope,
    query: &Query,
    after: Option<Place>,
) -> Result<Open> {
    let mut committed = lock(&inner.committed);
    rows.renew(&mut committed);
    if query.pipeline.is_some() {
        return Ok(Open::default());
    }
    let Committed { index, front, .. } = &mut *committed;
    let begins = *scope == Scope::All && query.order == Order::NewestFirst && !is_filtered(query);
    let mut reading = None;
    if begins {
        let place = after.as_ref().and_then(place_in);
        if let Some(places) = front.page(&wanted_states(query), place, query.limit + 1) {
            let open = places.into_iter().map(|((at, id), state)| (key::at(at, id), Some(state))).collect();
            return Ok(Open { open, ..Open::default() });
        }
        reading = after.is_none().then(|| front.begin());
    }
    let after = after.as_ref().and_then(place_in);
    let tenants: Vec<(Tenant, Counts)> = match scope {
        Scope::Tenant(tenant) => vec![(tenant.clone(), index.counts_of(scope))],
        Scope::All => index.counts.iter().map(|(tenant, counts)| (tenant.clone(), *counts)).collect(),
    };
    let wanted = |state: &State| !state.is_terminal() && query.state.is_none_or(|only| only == *state);
    let mut lists: Vec<Places<'_>> = Vec::new();
    for (tenant, _) in &tenants {
        for state in State::ALL.into_iter().filter(wanted) {
            let Some(list) = index.list(tenant, state) else { continue };
            let place = move |(at, id): &(Timestamp, JobId)| Ok((key::at(*at, *id), Some(state)));
            let after = after.map_or(Bound::Unbounded, Bound::Excluded);
            lists.push(match query.order {
                Order::OldestFirst => Box::new(list.range((after, Bound::Unbounded)).map(place)),
                Order::NewestFirst => Box::new(list.range((Bound::Unbounded, after)).rev().map(place)),
            });
        }
    }
    let most = match reading {
        Some(_) => front::KEPT.max(query.limit),
        None if is_filtered(query) => EXAMINED_MAX,
        None => query.limit,
    };
    let places: Result<Vec<Listed>> = Merged::of(lists, query.order)?.take(most.saturating_add(1)).collect();
    places.map(|open| Open { tenants, open, reading })
}

/// Opens what of an index begins with a prefix and comes after a place.
fn range(
    rows: &mut Snapshot<'_>,
    tab: Tab,
    prefix: &[u8],
    order: Order,
    after: Option<Place>,
    state: Option<State>,
) -> Result<Places<'static>> {
    let place = after.map(|place| [prefix, &place].concat());
    let (from, until) = match (order, place) {
        // The first key behind another is that key with a zero at its end.
        (Order::OldestFirst, Some(mut place)) => {
            place.push(0);
            (place, key::behind(prefix))
        }
        (Order::NewestFirst, Some(place)) => (prefix.to_vec(), Some(place)),
        (_, None) => (prefix.to_vec(), key::behind(prefix)),
    };
    let bounds = crate::rows::Span::from((Some(from.as_slice()), until.as_deref())).bounds();
    let range = rows.view.table(tab)?.range::<&[u8]>(bounds).map_err(failed("store.query"))?;
    let (prefix, mut last) = (prefix.to_vec(), None);
    let listed = move |row: std::result::Result<(redb::AccessGuard<'_, &[u8]>, _), redb::StorageError>| {
        let (key, _): (_, redb::AccessGuard<'_, &[u8]>) = row.map_err(failed("store.query"))?;
        let place = key.value().strip_prefix(prefix.as_slice()).and_then(|place| place.try_into().ok());
        let place: Place = place.ok_or_else(short)?;
        // A damaged key stands where its order forbids.
        let in_order =
            last.is_none_or(|last| (order == Order::OldestFirst) == (last < place) && last != place);
        last = Some(place);
        if in_order { Ok((place, state)) } else { Err(corrupt("store.query", "a key out of its order")) }
    };
    Ok(match order {
        Order::OldestFirst => Box::new(range.map(listed)),
        Order::NewestFirst => Box::new(range.rev().map(listed)),
    })
}
