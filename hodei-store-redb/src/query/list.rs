//! Lists of jobs: several index ranges, each in order, merged into one.

use std::collections::BinaryHeap;

use hodei_core::job::{Job, Output, State};
use hodei_core::store::{Counts, Cursor, Order, Page, Query, Scope};
use hodei_core::{Error, Fault, JobId, Result, Tenant};

use crate::codec;
use crate::error::{corrupt, failed};
use crate::key;
use crate::reader::Snapshot;
use crate::rows::Rows;
use crate::table::Tab;

/// How many rows a page looks at before it is returned short.
const EXAMINED_MAX: usize = 10_000;

/// (created_at, id) as the last bytes of a key: the place of a job in every list.
type Place = [u8; 24];
/// The places of one range of an index, in the order of the query.
type Places = Box<dyn Iterator<Item = Result<Place>>>;

/// Returns how many rows a page may have to read, where so many tenants have jobs.
pub(crate) fn rows_of(scope: &Scope, query: &Query, tenants: usize) -> usize {
    let filtered =
        query.queue.is_some() || query.name.is_some() || (query.pipeline.is_some() && query.state.is_some());
    let ranges = match scope {
        Scope::Tenant(_) => 1,
        Scope::All => tenants.saturating_mul(State::ALL.len()),
    };
    if filtered { EXAMINED_MAX } else { query.limit.saturating_mul(2).saturating_add(ranges) }
}

/// Reads jobs in full.
pub(crate) fn jobs(rows: &mut Snapshot<'_>, scope: &Scope, ids: &[JobId]) -> Result<Vec<Option<Job>>> {
    let mut jobs = Vec::with_capacity(ids.len());
    for id in ids {
        let head = rows.head(*id)?.filter(|head| scope.covers(&head.job.tenant));
        jobs.push(head.map(|head| rows.job(head)).transpose()?);
    }
    Ok(jobs)
}

/// Reads what jobs that succeeded gave back.
pub(crate) fn outputs(rows: &mut Snapshot<'_>, scope: &Scope, ids: &[JobId]) -> Result<Vec<Option<Output>>> {
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
pub(crate) fn page(rows: &mut Snapshot<'_>, scope: &Scope, query: &Query) -> Result<Page> {
    if query.limit == 0 || query.limit > Query::LIMIT_MAX {
        let fault = Fault::new("limit", "out_of_range").limit(Query::LIMIT_MAX as u64);
        return Err(Error::invalid("store.query", vec![fault]));
    }
    let after = query.after.as_ref().map(place_of).transpose()?;
    let mut list = Merged::open(rows, scope, query, after)?;
    let mut page = Page { jobs: Vec::new(), next: None };
    let mut last = None;
    let mut examined = 0;
    while let Some(place) = list.next()? {
        if page.jobs.len() == query.limit || examined == EXAMINED_MAX as u64 {
            page.next = last.map(|last: Place| Cursor::from_bytes(last.to_vec()));
            break;
        }
        examined += 1;
        last = Some(place);
        let id = key::last_id(&place).ok_or_else(short)?;
        let head = rows.head(id)?.filter(|head| key::last_time(&place) == Some(head.job.created_at));
        let head = head.ok_or_else(|| corrupt("store.query", "a listed job that is not there"))?;
        if scope.covers(&head.job.tenant) {
            page.jobs.extend(Some(head.summary()).filter(|summary| query.matches(summary)));
        }
    }
    rows.count(examined);
    Ok(page)
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
struct Merged {
    ranges: Vec<Places>,
    /// The next place of each range, turned over where the oldest comes first, so that the greatest is the next.
    next: BinaryHeap<(Place, usize)>,
    order: Order,
}

impl Merged {
    /// Opens the narrowest ranges that have every job of the query, after a place.
    fn open(rows: &mut Snapshot<'_>, scope: &Scope, query: &Query, after: Option<Place>) -> Result<Self> {
        let mut ranges = Vec::new();
        if let Some(pipeline) = query.pipeline {
            ranges.push(range(rows, Tab::Pipelines, pipeline.as_bytes(), query.order, after)?);
        } else {
            let wanted = |state: &State| query.state.is_none_or(|only| only == *state);
            for (tenant, counts) in tenants(rows, scope)? {
                for state in State::ALL.into_iter().filter(wanted).filter(|state| counts.of(*state) > 0) {
                    let prefix = key::state_prefix(&tenant, state);
                    ranges.push(range(rows, Tab::ByState, &prefix, query.order, after)?);
                }
            }
        }
        let mut merged = Self { next: BinaryHeap::with_capacity(ranges.len()), ranges, order: query.order };
        (0..merged.ranges.len()).try_for_each(|number| merged.refill(number))?;
        Ok(merged)
    }

    fn turned(&self, place: Place) -> Place {
        match self.order {
            Order::NewestFirst => place,
            Order::OldestFirst => place.map(|byte| !byte),
        }
    }

    fn refill(&mut self, number: usize) -> Result<()> {
        if let Some(place) = self.ranges[number].next() {
            let place = self.turned(place?);
            self.next.push((place, number));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Place>> {
        let Some((place, number)) = self.next.pop() else { return Ok(None) };
        self.refill(number)?;
        Ok(Some(self.turned(place)))
    }
}

/// Returns the tenants of a scope and how many jobs they have in each state, as of the snapshot.
fn tenants(rows: &mut Snapshot<'_>, scope: &Scope) -> Result<Vec<(Tenant, Counts)>> {
    let mut tenants = Vec::new();
    match scope {
        Scope::Tenant(tenant) => {
            tenants.extend(rows.read(Tab::Counts, &key::tenant_prefix(tenant), codec::counts)?);
        }
        Scope::All => rows.scan_prefix(Tab::Counts, &[], |_, row| {
            tenants.push(codec::counts(row)?);
            Ok(true)
        })?,
    }
    Ok(tenants)
}

/// Opens what of an index begins with a prefix and comes after a place.
fn range(
    rows: &mut Snapshot<'_>,
    tab: Tab,
    prefix: &[u8],
    order: Order,
    after: Option<Place>,
) -> Result<Places> {
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
    let range = rows.table(tab)?.range::<&[u8]>(bounds).map_err(failed("store.query"))?;
    let place = |row: std::result::Result<(redb::AccessGuard<'_, &[u8]>, _), redb::StorageError>| {
        let (key, _): (_, redb::AccessGuard<'_, &[u8]>) = row.map_err(failed("store.query"))?;
        key.value().last_chunk::<24>().copied().ok_or_else(short)
    };
    Ok(match order {
        Order::OldestFirst => Box::new(range.map(place)),
        Order::NewestFirst => Box::new(range.rev().map(place)),
    })
}
