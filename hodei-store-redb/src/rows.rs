//! Reading rows, in a transaction that writes or in a snapshot.

use std::ops::Bound;
use std::sync::Arc;

use hodei_core::job::{Job, Lease, Output, Settled, State};
use hodei_core::store::{Claimed, Input, Lane, Limit, QueuePolicy};
use hodei_core::{JobId, Result};
use redb::ReadableTable;

use crate::codec::{self, Fixed, Head};
use crate::error::{corrupt, failed};
use crate::index::LimitKey;
use crate::key;
use crate::table::Tab;

/// Where a scan begins, and before what it ends; open where there is nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    from: Option<&'a [u8]>,
    until: Option<&'a [u8]>,
}

impl<'a> Span<'a> {
    /// The whole table.
    pub(crate) const ALL: Self = Self { from: None, until: None };

    /// Returns the bounds; an end before the beginning is an empty span.
    pub(crate) fn bounds(self) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
        let until = match (self.from, self.until) {
            (Some(from), Some(until)) => Some(until.max(from)),
            (_, until) => until,
        };
        (self.from.map_or(Bound::Unbounded, Bound::Included), until.map_or(Bound::Unbounded, Bound::Excluded))
    }
}

impl<'a> From<(Option<&'a [u8]>, Option<&'a [u8]>)> for Span<'a> {
    fn from((from, until): (Option<&'a [u8]>, Option<&'a [u8]>)) -> Self {
        Self { from, until }
    }
}

/// Reads rows of a table in the order of their keys until `take` returns `false`, and returns how many were read.
pub(crate) fn scan(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    span: Span<'_>,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<bool>,
) -> Result<u64> {
    let mut read = 0;
    for row in table.range::<&[u8]>(span.bounds()).map_err(failed("store.scan"))? {
        let (key, value) = row.map_err(failed("store.scan"))?;
        read += 1;
        if !take(key.value(), value.value())? {
            break;
        }
    }
    Ok(read)
}

/// Reads the last row of a table whose key is not behind another.
pub(crate) fn at_or_before<R>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
    take: impl FnOnce(&[u8], &[u8]) -> Result<R>,
) -> Result<Option<R>> {
    let row = table.range::<&[u8]>(..=key).map_err(failed("store.scan"))?.next_back();
    let row = row.transpose().map_err(failed("store.scan"))?;
    row.map(|(key, row)| take(key.value(), row.value())).transpose()
}

/// Something that rows can be read from.
pub(crate) trait Rows {
    /// Reads one row.
    fn read<R>(&mut self, tab: Tab, key: &[u8], take: impl FnOnce(&[u8]) -> Result<R>) -> Result<Option<R>>;

    /// Reads rows in the order of their keys, from the first bound up to the second, until `take` returns `false`.
    fn scan(
        &mut self,
        tab: Tab,
        span: Span<'_>,
        take: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()>;

    /// Reads the last row whose key is not behind another.
    fn at_or_before<R>(
        &mut self,
        tab: Tab,
        key: &[u8],
        take: impl FnOnce(&[u8], &[u8]) -> Result<R>,
    ) -> Result<Option<R>>;

    /// Reads the rows whose keys begin with a prefix.
    fn scan_prefix(
        &mut self,
        tab: Tab,
        prefix: &[u8],
        take: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let end = key::behind(prefix);
        self.scan(tab, (Some(prefix), end.as_deref()).into(), take)
    }

    /// Returns the ids that end the keys of a prefix.
    fn ids(&mut self, tab: Tab, prefix: &[u8]) -> Result<Vec<JobId>> {
        self.first_ids(tab, prefix, usize::MAX)
    }

    /// Returns the first ids that end the keys of a prefix, at most so many.
    fn first_ids(&mut self, tab: Tab, prefix: &[u8], most: usize) -> Result<Vec<JobId>> {
        let mut ids = Vec::new();
        if most == 0 {
            return Ok(ids);
        }
        self.scan_prefix(tab, prefix, |key, _| {
            ids.push(key::last_id(key).ok_or_else(|| corrupt("row.key", "a short key"))?);
            Ok(ids.len() < most)
        })?;
        Ok(ids)
    }

    /// Reads what moves of a job.
    fn head(&mut self, id: JobId) -> Result<Option<Head>> {
        self.read(Tab::Heads, id.as_bytes(), |bytes| codec::head(id, bytes))
    }

    /// Reads what never changes of a job.
    fn fixed(&mut self, id: JobId) -> Result<Fixed> {
        let fixed = self.read(Tab::Specs, id.as_bytes(), |row| codec::fixed(row, |_| None))?;
        fixed.ok_or_else(|| corrupt("row.read", "a job without its spec").with("job", id))
    }

    /// Reads how the last run of a job ended.
    fn end(&mut self, head: &Head) -> Result<Option<Arc<Settled>>> {
        if !head.has_end {
            return Ok(head.plain_end());
        }
        let end = self.read(Tab::Ends, head.job.id.as_bytes(), codec::end)?;
        let missing = || corrupt("row.read", "a job without its end").with("job", head.job.id);
        Ok(Some(Arc::new(end.ok_or_else(missing)?)))
    }

    /// Reads a job in full.
    fn job(&mut self, head: Head) -> Result<Job> {
        let (fixed, end) = (self.fixed(head.job.id)?, self.end(&head)?);
        if head.job.state.is_terminal() && end.is_none() {
            return Err(corrupt("row.read", "a settled job without its end").with("job", head.job.id));
        }
        Ok(head.full(fixed, end))
    }

    /// Reads what the parents of a job gave back.
    fn inputs(&mut self, job: &Job) -> Result<Arc<[Input]>> {
        let mut inputs = Vec::with_capacity(job.parents.len());
        for parent in job.parents.iter() {
            let Some(head) = self.head(parent.id)? else { continue };
            let end = if head.job.state == State::Succeeded { self.end(&head)? } else { None };
            let output = end.map_or_else(Output::none, |end| end.output.clone());
            inputs.push(Input { job: parent.id, name: head.name, output });
        }
        Ok(inputs.into())
    }

    /// Reads how a lane's queue is served; nothing when nobody set it.
    fn policy(&mut self, lane: &Lane) -> Result<Option<QueuePolicy>> {
        self.read(Tab::Queues, &key::tenant_text(&lane.tenant, lane.queue.as_str()), codec::queue)
    }

    /// Reads a limit; nothing when nobody set it.
    fn limit(&mut self, (tenant, text): &LimitKey) -> Result<Option<Limit>> {
        self.read(Tab::Limits, &key::tenant_text(tenant, text), codec::limit)
    }

    /// Reads what an owner holds.
    fn held(&mut self, owner: &Lease) -> Result<Vec<Claimed>> {
        let mut held = Vec::new();
        for id in self.ids(Tab::Leases, &key::lease_prefix(owner))? {
            if let Some(head) = self.head(id)? {
                let job = self.job(head)?;
                let inputs = self.inputs(&job)?;
                held.push(Claimed { job: Arc::new(job), inputs });
            }
        }
        Ok(held)
    }
}
