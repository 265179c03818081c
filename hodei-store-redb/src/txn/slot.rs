//! Slots that leave and come. Each of these verbs has a transaction of its own.

use hodei_core::job::Job;
use hodei_core::store::{Counts, LimitOf, QueueCounts, QueueTally, SlotRow};
use hodei_core::{Error, ErrorKind, Fault, JobId, Name, Result, Slot, Tenant, Timestamp};

use super::maintain::{forget, shed};
use super::submit::sequence_key;
use super::work::Work;
use crate::codec::{self, Head};
use crate::error::corrupt;
use crate::key;
use crate::memory::{Index, Moving, Phase, conflict};
use crate::rows::{Rows, Span};
use crate::table::Tab;

/// Where operators' settings are, by tenant.
const POLICIES: [Tab; 4] = [Tab::Queues, Tab::Limits, Tab::Rates, Tab::Schedules];

impl Work<'_, '_> {
    fn put_slot(&mut self, slot: Slot, moving: Moving) -> Result<()> {
        self.delta.slots.push((slot, moving));
        self.put(Tab::Slots, &key::slot(slot), &codec::slot_row(&moving)?)
    }

    /// Returns how many jobs each queue has in a slot that is out of sight.
    fn apart(&mut self, slot: Slot) -> Result<QueueTally> {
        let mut apart = QueueTally::default();
        self.scan_prefix(Tab::Apart, &key::slot(slot), |_, row| {
            let QueueCounts { tenant, queue, counts } = codec::counts(row)?;
            apart.set(&tenant, &queue, counts);
            Ok(true)
        })?;
        Ok(apart)
    }

    fn put_apart(&mut self, slot: Slot, tenant: &Tenant, queue: &Name, counts: &Counts) -> Result<()> {
        self.put(Tab::Apart, &key::apart(slot, tenant, queue), &codec::counts_row(tenant, queue, counts)?)
    }

    /// Returns the first keys of a table of settings that are of a slot, at most so many.
    fn policies_of(&mut self, tab: Tab, slot: Slot, most: usize) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        self.scan(tab, Span::ALL, |key, _| {
            if key == key::limit(&LimitOf::All) {
                return Ok(true);
            }
            let tenant = key::tenant_of(key).ok_or_else(|| corrupt("store.slot", "a bad tenant"))?;
            if tenant.slot() == slot {
                keys.push(key.to_vec());
            }
            Ok(keys.len() < most)
        })?;
        Ok(keys)
    }

    /// Says whether a slot that is in sight has neither jobs nor settings.
    fn is_empty(&mut self, slot: Slot) -> Result<bool> {
        if self.look(|index| index.counts.keys().any(|tenant| tenant.slot() == slot)) {
            return Ok(false);
        }
        for tab in POLICIES {
            if !self.policies_of(tab, slot, 1)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads a job that is out of sight.
    pub(super) fn unseen(&mut self, id: JobId) -> Result<Option<Head>> {
        Ok(self.heads(&[id])?.pop().flatten())
    }

    /// Removes a job that is out of sight.
    fn withdraw(&mut self, head: &Head) -> Result<()> {
        if let Some(batch) = head.open_batch() {
            *self.delta.closed.entry(batch).or_default() += 1;
            *self.delta.apart.entry(batch).or_default() -= 1;
        }
        self.delta.moved_rows -= i64::from(head.waits_again());
        forget(self, head).map(|_| ())
    }

    /// Removes the edges to the children of a job that is out of sight, and then the job; says whether there was room for all
    /// of that.
    fn clear(&mut self, head: &Head, left: &mut usize) -> Result<bool> {
        if *left == 0 || !shed(self, head.job.id, left)? {
            return Ok(false);
        }
        self.withdraw(head)?;
        *left -= 1;
        Ok(true)
    }
}

/// Seals an open slot.
pub(crate) fn seal_slot(work: &mut Work<'_, '_>, slot: Slot, number: u64) -> Result<Timestamp> {
    const OP: &str = "store.seal_slot";
    let moving = work.slots.of(OP, slot, number)?;
    match moving.phase {
        Phase::Open => work.put_slot(slot, Moving::to(number, Phase::Leaving))?,
        Phase::Leaving if moving.number == number => {}
        _ => return Err(conflict(OP, slot)),
    }
    Ok(work.now)
}

/// Takes a slot out of sight; its rows are removed by [`clear_slot`].
pub(crate) fn close_slot(work: &mut Work<'_, '_>, slot: Slot, number: u64) -> Result<()> {
    const OP: &str = "store.close_slot";
    let moving = work.slots.of(OP, slot, number)?;
    match moving.phase {
        Phase::Open => Err(conflict(OP, slot)),
        Phase::Leaving => {
            for of in work.look(|index| index.queues.of_slot(slot)) {
                work.put_apart(slot, &of.tenant, &of.queue, &of.counts)?;
                work.delta.shown(&of, -1);
            }
            work.put_slot(slot, Moving::to(number, Phase::Closing))
        }
        Phase::Arriving => work.put_slot(slot, Moving::to(number, Phase::Closing)),
        Phase::Closing | Phase::Gone if moving.number == number => Ok(()),
        Phase::Closing | Phase::Gone => work.put_slot(slot, Moving { number, ..moving }),
    }
}

/// Removes rows of a slot that is closing, about so many jobs of them; says whether some are left.
pub(crate) fn clear_slot(work: &mut Work<'_, '_>, slot: Slot, limit: usize) -> Result<bool> {
    let moving = work.slots.get(slot);
    if moving.phase != Phase::Closing {
        return Ok(false);
    }
    let mut left = limit.max(1);
    for tab in POLICIES {
        for key in work.policies_of(tab, slot, left)? {
            work.remove(tab, &key)?;
            left -= 1;
        }
        if left == 0 {
            return Ok(true);
        }
    }
    let from = clear_open(work, slot, moving.from, &mut left)?;
    if left > 0 && clear_ended(work, slot, &mut left)? {
        work.put_slot(slot, Moving::to(moving.number, Phase::Gone))?;
        return Ok(false);
    }
    work.put_slot(slot, Moving { from, ..moving })?;
    Ok(true)
}

/// Removes open jobs, found by the rows that name them; returns where to go on. There is something left to do when all of
/// `left` is used up.
fn clear_open(work: &mut Work<'_, '_>, slot: Slot, from: u64, left: &mut usize) -> Result<u64> {
    let mut next = from;
    loop {
        let (mut named, mut full, begin, most) = (Vec::new(), false, key::sequence(next), *left);
        work.scan(Tab::Open, (Some(&begin[..]), None).into(), |key, row| {
            let batch = key::sequence_of(key).ok_or_else(|| corrupt("store.close_slot", "a short key"))?;
            named.extend(codec::ids(row)?.into_iter().filter(|id| id.slot() == slot).map(|id| (id, batch)));
            next = batch.saturating_add(1);
            full = named.len() >= most;
            Ok(!full)
        })?;
        for (id, batch) in named {
            // What went round again is named twice, and what has ended is named until its whole batch has.
            let head = work.unseen(id)?.filter(|head| head.open_batch() == Some(batch));
            if let Some(head) = head
                && !work.clear(&head, left)?
            {
                return Ok(batch);
            }
        }
        if !full || *left == 0 {
            return Ok(next);
        }
    }
}

/// Removes what has ended, tenant by tenant, and says whether that was all.
fn clear_ended(work: &mut Work<'_, '_>, slot: Slot, left: &mut usize) -> Result<bool> {
    for QueueCounts { tenant, queue, .. } in work.apart(slot)?.of_slot(slot) {
        for id in work.first_ids(Tab::Ended, &key::tenant_prefix(&tenant), *left)? {
            let missing = || corrupt("store.close_slot", "a list of a job that is not there").with("job", id);
            let head = work.unseen(id)?.ok_or_else(missing)?;
            if !work.clear(&head, left)? {
                return Ok(false);
            }
        }
        if *left == 0 {
            return Ok(false);
        }
        work.remove(Tab::Apart, &key::apart(slot, &tenant, &queue))?;
    }
    Ok(true)
}

/// Keeps rows that come, out of sight; `false`, and nothing kept, while something of an earlier move is left.
pub(crate) fn import_slot(
    work: &mut Work<'_, '_>,
    slot: Slot,
    number: u64,
    rows: &[SlotRow],
    max_jobs: u64,
) -> Result<bool> {
    const OP: &str = "store.import_slot";
    let elsewhere = |row: &SlotRow| match row {
        SlotRow::Job { job, .. } => job.tenant.slot() != slot || job.id.slot() != slot,
        SlotRow::Queue(_) | SlotRow::Limit(..) | SlotRow::Schedule(_) => row.slot() != Some(slot),
    };
    if rows.iter().any(elsewhere) {
        return Err(Error::invalid(OP, vec![Fault::new("rows", "wrong_slot")]));
    }
    let moving = work.slots.of(OP, slot, number)?;
    let begins = match moving.phase {
        Phase::Arriving if moving.number == number => false,
        Phase::Arriving | Phase::Closing => return Ok(false),
        Phase::Gone => true,
        Phase::Open if moving.number < number && work.is_empty(slot)? => true,
        Phase::Open | Phase::Leaving => return Err(conflict(OP, slot)),
    };
    if begins {
        // Nothing of what comes is named by an earlier row.
        let from = work.look(|index| index.next_batch);
        work.put_slot(slot, Moving { number, phase: Phase::Arriving, from })?;
    }
    let mut apart = work.apart(slot)?;
    for row in rows {
        match row {
            SlotRow::Job { job, edges, last } => bring(work, job, (edges, *last), &mut apart)?,
            SlotRow::Queue(policy) => {
                let key = key::tenant_text(&policy.tenant, policy.queue.as_str());
                work.put(Tab::Queues, &key, &codec::queue_row(policy)?)?;
            }
            SlotRow::Limit(limit, spent) => {
                work.bring_rate(limit, *spent)?;
                work.put(Tab::Limits, &key::limit(&limit.of), &codec::limit_row(limit)?)?;
            }
            SlotRow::Schedule(schedule) => {
                let key = key::tenant_text(&schedule.tenant, schedule.name.as_str());
                work.put(Tab::Schedules, &key, &codec::schedule_row(schedule)?)?;
            }
        }
    }
    let come: u64 = apart.iter().map(|(_, _, counts)| counts.total()).sum();
    if work.look(Index::total).saturating_add(come) > max_jobs {
        return Err(Error::new(ErrorKind::Full, OP).with("max_jobs", max_jobs));
    }
    for (tenant, queue, counts) in apart.iter() {
        work.put_apart(slot, tenant, queue, counts)?;
    }
    Ok(true)
}

/// Stores a job that comes, instead of what came of it before.
fn bring(
    work: &mut Work<'_, '_>,
    job: &Job,
    (edges, last): (&[(JobId, bool)], bool),
    apart: &mut QueueTally,
) -> Result<()> {
    let id = job.id;
    if let Some(before) = work.unseen(id)? {
        apart.moved(&before.job.tenant, &before.queue, Some(before.job.state), None);
        // Its children may have come before it, and keep their edges.
        let children = work.ids(Tab::Children, id.as_bytes())?;
        let kept: Result<Vec<_>> =
            children.iter().map(|child| Ok((*child, edge(work, id, *child)?))).collect();
        let kept = kept?;
        work.withdraw(&before)?;
        for (child, row) in kept {
            work.put(Tab::Children, &key::child(id, child), &row)?;
        }
    }
    apart.moved(&job.tenant, job.spec.queue(), None, Some(job.state));
    work.store_whole(job, edges, last)
}

fn edge(work: &mut Work<'_, '_>, parent: JobId, child: JobId) -> Result<Vec<u8>> {
    let row = work.read(Tab::Children, &key::child(parent, child), |row| Ok(row.to_vec()))?;
    row.ok_or_else(|| corrupt("store.import_slot", "an edge that went away"))
}

impl Work<'_, '_> {
    /// Writes the rows of a job that nobody sees yet, the last of its sequence perhaps, and the edges from its parents.
    pub(super) fn store_whole(&mut self, job: &Job, edges: &[(JobId, bool)], last: bool) -> Result<()> {
        let id = job.id;
        let mut batch = 0;
        if !job.state.is_terminal() {
            batch = self.open(id);
            *self.delta.apart.entry(batch).or_default() += 1;
        }
        let mut spec = Vec::new();
        codec::work_part(&job.spec, &mut spec)?;
        self.append(Tab::Born, id.as_bytes(), |into| codec::born_row(job, &spec, batch, into))?;
        self.delta.highest = self.delta.highest.max(Some(id));
        self.rise(id);
        if let Some(text) = job.held_key() {
            self.put(Tab::Unique, &key::tenant_text(&job.tenant, text), &codec::id_row(id)?)?;
        }
        if let Some(key) = sequence_key(&job.tenant, &job.spec).filter(|_| last) {
            self.put(Tab::Sequences, &key, &codec::id_row(id)?)?;
        }
        if let Some(pipeline) = job.pipeline {
            self.put(Tab::Pipelines, &key::pipeline(pipeline, job.created_at, id), &[])?;
        }
        let mut head = Head::of(job.clone(), batch);
        head.has_children = !self.first_ids(Tab::Children, id.as_bytes(), 1)?.is_empty();
        self.delta.moved_rows += i64::from(head.waits_again());
        self.write_head(true, true, &mut head)?;
        self.write_ended(None, &head)?;
        for (parent, told) in edges {
            let of = job.parents.iter().find(|of| of.id == *parent);
            let fault = || Error::invalid("store.import", vec![Fault::new("edges", "no_parent")]);
            let row = codec::edge_row(of.ok_or_else(fault)?.requires, *told)?;
            self.put(Tab::Children, &key::child(*parent, id), &row)?;
            if let Some(mut parent) = self.unseen(*parent)?.filter(|parent| !parent.has_children) {
                let before = parent.waits_again();
                parent.has_children = true;
                self.delta.moved_rows += i64::from(parent.waits_again()) - i64::from(before);
                self.write_head(false, false, &mut parent)?;
            }
        }
        Ok(())
    }
}

/// Opens a slot.
pub(crate) fn open_slot(work: &mut Work<'_, '_>, slot: Slot, number: u64) -> Result<()> {
    const OP: &str = "store.open_slot";
    let moving = work.slots.of(OP, slot, number)?;
    match moving.phase {
        Phase::Closing | Phase::Gone => return Err(conflict(OP, slot)),
        Phase::Open if moving.number == number => return Ok(()),
        Phase::Open | Phase::Leaving => {}
        Phase::Arriving => {
            for of in work.apart(slot)?.of_slot(slot) {
                work.delta.shown(&of, 1);
                work.remove(Tab::Apart, &key::apart(slot, &of.tenant, &of.queue))?;
            }
        }
    }
    work.delta.ring = true;
    work.put_slot(slot, Moving::to(number, Phase::Open))
}
