//! Reading rows, in a transaction that writes or in a snapshot.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use hodei_core::job::{Job, Output, Parent, Settled, State};
use hodei_core::store::{Claimed, Input, Lane, Limit, LimitOf, QueuePolicy};
use hodei_core::{JobId, Result};
use redb::ReadableTable;

use crate::codec::{self, Fixed, Head, Names, Shown};
use crate::error::{corrupt, failed};
use crate::key;
use crate::memory::{LimitKey, Paced};
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

impl Span<'_> {
    fn covers(self, key: &[u8]) -> bool {
        self.from.is_none_or(|from| from <= key) && self.until.is_none_or(|until| key < until)
    }
}

/// A damaged key stands where its order forbids. Whoever goes on from the last key, page by page, would not come to an
/// end with it.
fn out_of_order() -> hodei_core::Error {
    corrupt("store.scan", "a key out of its order")
}

impl<'a> From<(Option<&'a [u8]>, Option<&'a [u8]>)> for Span<'a> {
    fn from((from, until): (Option<&'a [u8]>, Option<&'a [u8]>)) -> Self {
        Self { from, until }
    }
}

/// Reads rows of a table in the order of their keys until `take` returns `false`, and returns how many were read.
pub(crate) fn scan(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    tab: Tab,
    span: Span<'_>,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<bool>,
) -> Result<u64> {
    let mut read = 0;
    for row in table.range::<&[u8]>(span.bounds()).map_err(failed("store.scan"))? {
        let (key, value) = row.map_err(failed("store.scan"))?;
        read += 1;
        if !span.covers(key.value()) {
            return Err(out_of_order());
        }
        if !take(key.value(), codec::unseal(tab, key.value(), value.value())?)? {
            break;
        }
    }
    Ok(read)
}

/// Reads the last row of a table whose key is not behind another.
pub(crate) fn at_or_before<R>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    tab: Tab,
    key: &[u8],
    take: impl FnOnce(&[u8], &[u8]) -> Result<R>,
) -> Result<Option<R>> {
    let row = table.range::<&[u8]>(..=key).map_err(failed("store.scan"))?.next_back();
    let row = row.transpose().map_err(failed("store.scan"))?;
    row.map(|(key, row)| take(key.value(), codec::unseal(tab, key.value(), row.value())?)).transpose()
}

/// How many rows that nobody asked for are passed over before a look-up begins anew from the top of the table.
const PASSED_MAX: usize = 4;

/// How many keys are looked up one by one after two that were far apart.
const APART: usize = 16;

/// Looks up ascending keys: neighbours are found by going on from one to the next, keys far apart one by one. Calls
/// `take` with the number of each key that is there, and returns how many rows were read.
pub(crate) fn seek<'k>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    tab: Tab,
    keys: impl Iterator<Item = &'k [u8]>,
    mut take: impl FnMut(usize, &[u8]) -> Result<()>,
) -> Result<u64> {
    let mut read = 0;
    let mut range = None;
    let mut row = None;
    // A single key has no neighbour.
    let mut apart = usize::from(keys.size_hint().1 == Some(1));
    for (number, key) in keys.enumerate() {
        if apart > 0 {
            apart -= 1;
            read += 1;
            look_up(table, tab, key, |row| take(number, row))?;
            continue;
        }
        let (mut passed, mut fresh) = (0, false);
        loop {
            let found = row.as_ref().map(|(at, _)| redb::AccessGuard::<&[u8]>::value(at).cmp(key));
            match (found, &row) {
                (Some(Ordering::Equal), Some((_, value))) => {
                    take(number, codec::unseal(tab, key, redb::AccessGuard::<&[u8]>::value(value))?)?;
                    break;
                }
                (Some(Ordering::Greater), _) => break,
                (Some(Ordering::Less), _) if fresh => return Err(out_of_order()),
                (Some(Ordering::Less), _) if passed < PASSED_MAX => passed += 1,
                (Some(Ordering::Less), _) => {
                    apart = APART;
                    (range, row) = (None, None);
                    read += 1;
                    look_up(table, tab, key, |row| take(number, row))?;
                    break;
                }
                _ => {
                    range = Some(table.range::<&[u8]>(key..).map_err(failed("store.seek"))?);
                    (passed, fresh) = (0, true);
                }
            }
            row = range.as_mut().and_then(Iterator::next).transpose().map_err(failed("store.seek"))?;
            read += u64::from(row.is_some());
            if row.is_none() {
                // Nothing is behind this key, nor behind those that follow.
                return Ok(read);
            }
        }
    }
    Ok(read)
}

fn look_up(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    tab: Tab,
    key: &[u8],
    take: impl FnOnce(&[u8]) -> Result<()>,
) -> Result<()> {
    match table.get(key).map_err(failed("store.seek"))? {
        Some(row) => take(codec::unseal(tab, key, row.value())?),
        None => Ok(()),
    }
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

    /// Looks up ascending keys, and calls `take` with the number of each that is there.
    fn seek<'k>(
        &mut self,
        tab: Tab,
        keys: impl Iterator<Item = &'k [u8]>,
        take: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()>;

    /// Returns the names of the last row.
    fn names(&mut self) -> &mut Names;

    /// Reads what moves of a job.
    fn head(&mut self, id: JobId) -> Result<Option<Head>> {
        let mut names = std::mem::take(self.names());
        let moved = self.read(Tab::Heads, id.as_bytes(), |row| codec::head(id, row, &mut names))?;
        let head = match moved {
            Some(head) => Some(head),
            None => {
                let newborn =
                    self.read(Tab::Born, id.as_bytes(), |row| codec::newborn(id, row, &mut names))?;
                newborn.map(|head| self.confirm(head)).transpose()?
            }
        };
        *self.names() = names;
        Ok(head)
    }

    /// Makes sure that a job without a row of what moves really is as it was born, and has not lost that row.
    fn confirm(&mut self, head: Head) -> Result<Head>;

    /// Reads what moves of jobs in ascending order. Whoever asks knows which of them are as they were born: a row that is
    /// lost is not told from one that was never written.
    fn heads(&mut self, ids: &[JobId]) -> Result<Vec<Option<Head>>> {
        let mut names = std::mem::take(self.names());
        let mut heads: Vec<Option<Head>> = vec![None; ids.len()];
        self.seek(Tab::Heads, ids.iter().map(|id| &id.as_bytes()[..]), |number, row| {
            heads[number] = Some(codec::head(ids[number], row, &mut names)?);
            Ok(())
        })?;
        let unmoved: Vec<usize> = (0..ids.len()).filter(|number| heads[*number].is_none()).collect();
        self.seek(Tab::Born, unmoved.iter().map(|number| &ids[*number].as_bytes()[..]), |place, row| {
            let number = unmoved[place];
            let head = codec::newborn(ids[number], row, &mut names)?;
            if !head.is_newborn() {
                // A job with parents always has a row of its moves.
                return Err(corrupt("row.read", "a job whose moves are lost").with("job", ids[number]));
            }
            heads[number] = Some(head);
            Ok(())
        })?;
        *self.names() = names;
        Ok(heads)
    }

    /// Reads what lists show of jobs in ascending order; of jobs as they were born, as [`Rows::heads`] does.
    fn shown(&mut self, ids: &[JobId]) -> Result<Vec<Option<Shown>>> {
        let mut names = std::mem::take(self.names());
        let mut shown: Vec<Option<Shown>> = vec![None; ids.len()];
        self.seek(Tab::Heads, ids.iter().map(|id| &id.as_bytes()[..]), |number, row| {
            shown[number] = Some(codec::shown(ids[number], row, &mut names)?);
            Ok(())
        })?;
        let unmoved: Vec<usize> = (0..ids.len()).filter(|number| shown[*number].is_none()).collect();
        self.seek(Tab::Born, unmoved.iter().map(|number| &ids[*number].as_bytes()[..]), |place, row| {
            let number = unmoved[place];
            shown[number] = Some(codec::newborn_shown(ids[number], row, &mut names)?);
            Ok(())
        })?;
        *self.names() = names;
        Ok(shown)
    }

    /// Reads what never changes of a job.
    fn fixed(&mut self, id: JobId) -> Result<Fixed> {
        let mut names = std::mem::take(self.names());
        let fixed = self.read(Tab::Born, id.as_bytes(), |row| codec::fixed(row, &mut names, |_| None))?;
        *self.names() = names;
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
        let fixed = self.fixed(head.job.id)?;
        self.whole(head, fixed)
    }

    /// Puts a job together, with how its last run ended.
    fn whole(&mut self, head: Head, fixed: Fixed) -> Result<Job> {
        let end = self.end(&head)?;
        if head.job.state.is_terminal() && end.is_none() {
            return Err(corrupt("row.read", "a settled job without its end").with("job", head.job.id));
        }
        Ok(head.full(fixed, end))
    }

    /// Reads what the parents of a job gave back.
    fn inputs(&mut self, parents: &[Parent]) -> Result<Arc<[Input]>> {
        let mut inputs = Vec::with_capacity(parents.len());
        for parent in parents.iter().filter(|parent| parent.requires.hands_on()) {
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

    /// Reads the limit of a key; nothing when nobody set it.
    fn limit(&mut self, (tenant, text): &LimitKey) -> Result<Option<Limit>> {
        // The key is that of [`key::limit`].
        self.read(Tab::Limits, &key::tenant_text(tenant, text), codec::limit)
    }

    /// Reads the rates of all limits that have one.
    fn rates(&mut self) -> Result<BTreeMap<LimitOf, Paced>> {
        let mut rates = BTreeMap::new();
        self.scan(Tab::Rates, Span::ALL, |_, row| {
            rates.extend([codec::rate(row)?]);
            Ok(true)
        })?;
        Ok(rates)
    }

    /// Reads jobs that are held, with what their parents gave back.
    fn held(&mut self, ids: &[JobId]) -> Result<Vec<Claimed>> {
        let mut held = Vec::new();
        for id in ids {
            if let Some(head) = self.head(*id)? {
                let job = self.job(head)?;
                let inputs = self.inputs(&job.parents)?;
                held.push(Claimed { job: Arc::new(job), inputs });
            }
        }
        Ok(held)
    }
}
