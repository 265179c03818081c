//! Counts of jobs, and the counting of a file of an older schema while it is in use.

use hodei_core::store::QueueCounts;
use hodei_core::{JobId, Name, Result};
use redb::TableHandle as _;

use super::work::Work;
use crate::codec::{self, Shown};
use crate::error::{corrupt, failed};
use crate::key;
use crate::memory::Uncounted;
use crate::rows::Rows;
use crate::table::{Definition, META_COUNTING, Tab};

const OP: &str = "store.count";

/// The tables of schema 1 that nobody reads any more.
pub(crate) const GONE: [&str; 8] =
    ["specs", "ready", "lanes", "due", "by_state", "leases", "cancels", "deadlines"];

impl Work<'_, '_> {
    /// Returns the queue whose count has a job; nothing while the job is still to be counted.
    pub(super) fn queue_counting<'q>(&self, id: JobId, queue: &'q Name) -> Option<&'q Name> {
        self.counting.is_none_or(|uncounted| !uncounted.has(id)).then_some(queue)
    }

    /// Writes the counts that have changed.
    pub(super) fn flush_counts(&mut self) -> Result<()> {
        for QueueCounts { tenant, queue, counts } in self.look(|index| index.queues_with(&self.delta.queues))
        {
            let key = key::tenant_text(&tenant, queue.as_str());
            if counts.total() == 0 {
                self.remove(Tab::Counts, &key)?;
            } else {
                self.put(Tab::Counts, &key, &codec::counts_row(&tenant, &queue, &counts)?)?;
            }
        }
        for (tenant, counts) in self.look(|index| index.uncounted_with(&self.delta.uncounted)) {
            let key = key::tenant_prefix(&tenant);
            if counts.total() == 0 {
                self.remove(Tab::Counts, &key)?;
            } else {
                self.put(Tab::Counts, &key, &codec::uncounted_row(&tenant, &counts)?)?;
            }
        }
        Ok(())
    }

    /// Removes rows of the tables that nobody reads any more, at most so many, and the first table that has none; says
    /// whether others may be left.
    fn remove_gone(&mut self, most: usize) -> Result<bool> {
        let there: Vec<String> =
            self.txn.list_tables().map_err(failed(OP))?.map(|table| table.name().to_owned()).collect();
        let Some(gone) = GONE.into_iter().find(|gone| there.iter().any(|name| name == gone)) else {
            return Ok(false);
        };
        let (gone, mut left): (Definition, _) = (Definition::new(gone), most);
        let mut table = self.txn.open_table(gone).map_err(failed(OP))?;
        while left > 0 && table.pop_first().map_err(failed(OP))?.is_some() {
            left -= 1;
        }
        drop(table);
        if left > 0 {
            self.txn.delete_table(gone).map_err(failed(OP))?;
        }
        self.tally.written += 1;
        Ok(true)
    }

    /// Returns the next jobs that are still to be counted, at most so many.
    fn next_uncounted(&mut self, uncounted: &Uncounted, most: usize) -> Result<Vec<JobId>> {
        let (mut ids, mut full) = (Vec::with_capacity(most), false);
        let from = [&uncounted.after.as_bytes()[..], &[0]].concat();
        let end = [&uncounted.last.as_bytes()[..], &[0]].concat();
        self.scan(Tab::Born, (Some(from.as_slice()), Some(end.as_slice())).into(), |key, _| {
            ids.push(key::last_id(key).ok_or_else(|| corrupt(OP, "a short key"))?);
            full = ids.len() == most;
            Ok(!full)
        })?;
        Ok(ids)
    }

    /// Counts jobs that nobody sees, where their slot is counted.
    fn count_apart(&mut self, Shown { summary, .. }: &Shown) -> Result<()> {
        let key = key::apart(summary.id.slot(), &summary.tenant, &summary.queue);
        let counted = self.read(Tab::Apart, &key, |row| Ok(codec::counts(row)?.counts))?;
        let mut counts = counted.unwrap_or_default();
        counts.moved(None, Some(summary.state));
        self.put(Tab::Apart, &key, &codec::counts_row(&summary.tenant, &summary.queue, &counts)?)
    }

    /// Notes that every job is counted.
    fn all_counted(&mut self) -> Result<()> {
        // Of slots that nobody sees an older schema has counted the tenants.
        let mut older = Vec::new();
        self.scan(Tab::Apart, crate::rows::Span::ALL, |key, _| {
            older.extend(key::ends_with_tenant(key).then(|| key.to_vec()));
            Ok(true)
        })?;
        for key in older {
            self.remove(Tab::Apart, &key)?;
        }
        self.remove(Tab::Meta, META_COUNTING)?;
        self.delta.uncounted.is_over = true;
        Ok(())
    }
}

/// Counts jobs of a file of an older schema by queue, at most so many, after it has removed what that schema leaves behind;
/// says whether there is more to do. It has a transaction of its own: what else is in one goes by the place from which it began.
pub(crate) fn count_some(work: &mut Work<'_, '_>, most: usize) -> Result<bool> {
    let Some(uncounted) = work.counting else { return Ok(false) };
    if work.remove_gone(most)? {
        return Ok(true);
    }
    let ids = work.next_uncounted(&uncounted, most)?;
    let Some(last) = ids.last() else {
        if !work.look(crate::memory::Index::is_counted) {
            return Err(corrupt(OP, "other jobs than were counted"));
        }
        work.all_counted()?;
        return Ok(false);
    };
    let shown: Option<Vec<Shown>> = work.shown(&ids)?.into_iter().collect();
    let shown = shown.ok_or_else(|| corrupt(OP, "a job that went away"))?;
    let slots = work.slots.clone();
    let (unseen, seen): (Vec<_>, Vec<_>) =
        shown.into_iter().partition(|of| slots.hides(|| of.summary.id.slot()));
    unseen.iter().try_for_each(|of| work.count_apart(of))?;
    for Shown { summary: job, .. } in seen {
        work.delta.counted(&job.tenant, &job.queue, job.state);
    }
    if work.look(|index| !index.has_uncounted(&work.delta.uncounted)) {
        return Err(corrupt(OP, "other jobs than were counted"));
    }
    let place = Uncounted { after: *last, ..uncounted };
    work.put(Tab::Meta, META_COUNTING, &place.row()?)?;
    work.delta.uncounted.place = Some(place);
    Ok(true)
}
