//! How slots leave and come.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use async_trait::async_trait;

use super::super::{Cursor, LimitOf, Relocate, SlotBatch, SlotRow, slot_closed};
use super::limits::Set;
use super::read::{cursor_of, key_of};
use super::state::{Key, State, sequence_of};
use super::store::MemoryStore;
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::id::{JobId, Name, Slot, Tenant};
use crate::job::{Job, State as JobState};
use crate::time::Timestamp;

/// The slots that were ever on the move; the others are open.
#[derive(Debug, Default)]
pub(super) struct Slots(BTreeMap<Slot, Moving>);

#[derive(Debug)]
struct Moving {
    number: u64,
    phase: Phase,
}

#[derive(Debug, PartialEq)]
enum Phase {
    Open,
    Leaving,
    /// What has come, out of sight until all of it is there.
    Arriving(Staged),
    Gone,
}

/// The edges from a job's parents, and whether it was told of each one's end.
type Edges = Vec<(JobId, bool)>;

#[derive(Debug, Default, PartialEq)]
struct Staged {
    jobs: HashMap<JobId, (Box<Job>, Edges, bool)>,
    limits: BTreeMap<LimitOf, Set>,
    policies: BTreeMap<(u8, Tenant, Name), SlotRow>,
}

impl Slots {
    /// Whether the rows of a slot may not change.
    pub(super) fn closed(&self, slot: impl FnOnce() -> Slot) -> bool {
        // The one look that a store pays whose slots never moved.
        !self.0.is_empty() && self.0.get(&slot()).is_some_and(|moving| moving.phase != Phase::Open)
    }

    /// Refuses a write that names a slot whose rows may not change.
    pub(super) fn writable(&self, op: &'static str, mut slots: impl Iterator<Item = Slot>) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        slots.find(|slot| self.closed(|| *slot)).map_or(Ok(()), |slot| Err(slot_closed(op, slot)))
    }

    /// Refuses a read that names a slot whose rows are not to be seen.
    pub(super) fn readable(&self, op: &'static str, mut slots: impl Iterator<Item = Slot>) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let hidden = |slot: &Slot| {
            let phase = self.0.get(slot).map(|moving| &moving.phase);
            matches!(phase, Some(Phase::Arriving(_) | Phase::Gone))
        };
        slots.find(hidden).map_or(Ok(()), |slot| Err(slot_closed(op, slot)))
    }

    /// Returns a slot's row for a move that is not older than the last.
    fn of(&mut self, op: &'static str, slot: Slot, number: u64) -> Result<&mut Moving> {
        let moving = self.0.entry(slot).or_insert(Moving { number: 0, phase: Phase::Open });
        if number < moving.number {
            return Err(conflict(op, slot).with("number", number).with("last", moving.number));
        }
        Ok(moving)
    }
}

impl State {
    fn seal_slot(&mut self, slot: Slot, number: u64, now: Timestamp) -> Result<Timestamp> {
        const OP: &str = "store.seal_slot";
        let moving = self.slots.of(OP, slot, number)?;
        match moving.phase {
            Phase::Open => *moving = Moving { number, phase: Phase::Leaving },
            Phase::Leaving if moving.number == number => {}
            _ => return Err(conflict(OP, slot)),
        }
        Ok(now)
    }

    fn export_slot(
        &self,
        slot: Slot,
        number: u64,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<SlotBatch> {
        const OP: &str = "store.export_slot";
        let leaving = self.slots.0.get(&slot);
        if !leaving.is_some_and(|moving| moving.number == number && moving.phase == Phase::Leaving) {
            return Err(conflict(OP, slot));
        }
        if limit == 0 {
            return Err(Error::invalid(OP, vec![Fault::new("limit", "zero")]));
        }
        let after = after.map(key_of).transpose()?;
        let keys = self.keys_of_slot(slot, after, limit);
        let mut rows = if after.is_none() { self.policies_of_slot(slot) } else { Vec::new() };
        rows.extend(keys.iter().filter_map(|(_, id)| self.jobs.get(id)).map(|job| self.row_of(job)));
        let next = keys.last().filter(|_| keys.len() == limit).map(|last| cursor_of(*last));
        Ok(SlotBatch { rows, next })
    }

    /// Returns the next jobs of a slot by age.
    fn keys_of_slot(&self, slot: Slot, after: Option<Key>, limit: usize) -> Vec<Key> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let lists = self.lists.iter().filter(|(tenant, _)| tenant.slot() == slot);
        let states = lists.flat_map(|(_, lists)| JobState::ALL.map(|state| lists.of(state)));
        let mut keys: Vec<Key> = states
            .flat_map(|list| list.range((from, Bound::Unbounded)).take(limit).copied().collect::<Vec<_>>())
            .collect();
        keys.sort_unstable();
        keys.truncate(limit);
        keys
    }

    fn row_of(&self, job: &Job) -> SlotRow {
        let edge = |parent: JobId| self.edges.get(&(parent, job.id)).map(|told| (parent, *told));
        let edges = job.parents.iter().filter_map(|parent| edge(parent.id)).collect();
        let last =
            sequence_of(&job.tenant, &job.spec).is_some_and(|key| self.sequences.get(&key) == Some(&job.id));
        SlotRow::Job { job: Box::new(job.clone()), edges, last }
    }

    fn policies_of_slot(&self, slot: Slot) -> Vec<SlotRow> {
        let queues = self.queues.values().cloned().map(SlotRow::Queue);
        let limits = self.limits.iter().map(|(of, set)| SlotRow::Limit(set.limit(of), set.spent));
        let schedules = self.schedules.values().cloned().map(SlotRow::Schedule);
        queues.chain(limits).chain(schedules).filter(|row| row.slot() == Some(slot)).collect()
    }

    fn import_slot(&mut self, slot: Slot, number: u64, rows: Vec<SlotRow>) -> Result<()> {
        const OP: &str = "store.import_slot";
        if rows.iter().any(|row| row.slot() != Some(slot)) {
            return Err(Error::invalid(OP, vec![Fault::new("rows", "wrong_slot")]));
        }
        let (kept, max) = (self.jobs.len(), self.max_jobs);
        let empty = self.keys_of_slot(slot, None, 1).is_empty() && self.policies_of_slot(slot).is_empty();
        let moving = self.slots.of(OP, slot, number)?;
        let comes = match &moving.phase {
            // An earlier move that was given up may have left something.
            Phase::Arriving(_) => moving.number == number,
            Phase::Gone => false,
            Phase::Open if empty && moving.number < number => false,
            Phase::Open | Phase::Leaving => return Err(conflict(OP, slot)),
        };
        if !comes {
            *moving = Moving { number, phase: Phase::Arriving(Staged::default()) };
        }
        let Phase::Arriving(staged) = &mut moving.phase else { return Err(conflict(OP, slot)) };
        for row in rows {
            match row {
                SlotRow::Job { job, edges, last } => drop(staged.jobs.insert(job.id, (job, edges, last))),
                SlotRow::Queue(ref policy) => {
                    staged.policies.insert((0, policy.tenant.clone(), policy.queue.clone()), row);
                }
                SlotRow::Limit(limit, spent) => {
                    let set = Set { max: limit.max, rate: limit.rate, spent };
                    staged.limits.insert(limit.of, set);
                }
                SlotRow::Schedule(ref schedule) => {
                    staged.policies.insert((1, schedule.tenant.clone(), schedule.name.clone()), row);
                }
            }
        }
        if staged.jobs.len() > max.saturating_sub(kept) {
            return Err(Error::new(ErrorKind::Full, OP).with("max_jobs", max));
        }
        Ok(())
    }

    fn close_slot(&mut self, slot: Slot, number: u64) -> Result<bool> {
        const OP: &str = "store.close_slot";
        let moving = self.slots.of(OP, slot, number)?;
        let leaves = match moving.phase {
            Phase::Open => return Err(conflict(OP, slot)),
            Phase::Leaving => true,
            Phase::Arriving(_) | Phase::Gone => false,
        };
        *moving = Moving { number, phase: Phase::Gone };
        if leaves {
            self.forget_slot(slot);
        }
        Ok(false)
    }

    fn forget_slot(&mut self, slot: Slot) {
        for (_, id) in self.keys_of_slot(slot, None, usize::MAX) {
            self.remove(id);
        }
        self.queues.retain(|(tenant, _), _| tenant.slot() != slot);
        self.limits.retain(|of| of.tenant().is_none_or(|tenant| tenant.slot() != slot));
        self.schedules.retain(|(tenant, _), _| tenant.slot() != slot);
    }

    fn open_slot(&mut self, slot: Slot, number: u64, now: Timestamp) -> Result<()> {
        const OP: &str = "store.open_slot";
        let moving = self.slots.of(OP, slot, number)?;
        if moving.phase == Phase::Gone {
            return Err(conflict(OP, slot));
        }
        let before = std::mem::replace(moving, Moving { number, phase: Phase::Open });
        if let Phase::Arriving(staged) = before.phase {
            self.install(staged, now);
        }
        self.readied = true;
        Ok(())
    }

    fn install(&mut self, staged: Staged, now: Timestamp) {
        for (of, set) in staged.limits {
            self.put_limit(of, Some(set));
        }
        for row in staged.policies.into_values() {
            match row {
                SlotRow::Queue(row) => {
                    self.queues.insert((row.tenant.clone(), row.queue.clone()), row);
                }
                SlotRow::Schedule(row) => {
                    self.schedules.insert((row.tenant.clone(), row.name.clone()), row);
                }
                SlotRow::Job { .. } | SlotRow::Limit(..) => {}
            }
        }
        for (id, (job, edges, last)) in staged.jobs {
            let parents = std::sync::Arc::clone(&job.parents);
            if let Some(key) = sequence_of(&job.tenant, &job.spec).filter(|_| last) {
                self.sequences.insert(key, id);
            }
            self.create(*job, None, now);
            // A parent that was pruned has no edge any more.
            for parent in parents.iter() {
                self.edges.remove(&(parent.id, id));
            }
            self.edges.extend(edges.into_iter().map(|(parent, told)| ((parent, id), told)));
        }
    }
}

fn conflict(op: &'static str, slot: Slot) -> Error {
    Error::new(ErrorKind::Conflict, op).with("slot", slot.number())
}

#[async_trait]
impl Relocate for MemoryStore {
    async fn seal_slot(&self, slot: Slot, number: u64) -> Result<Timestamp> {
        let sealed = self.write(|state, now| state.seal_slot(slot, number, now))?;
        self.told();
        Ok(sealed)
    }

    async fn export_slot(
        &self,
        slot: Slot,
        number: u64,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<SlotBatch> {
        self.read(|state, _| state.export_slot(slot, number, after.as_ref(), limit))
    }

    async fn import_slot(&self, slot: Slot, number: u64, rows: Vec<SlotRow>) -> Result<()> {
        self.write(|state, _| state.import_slot(slot, number, rows))
    }

    /// Removes all rows at once, whatever the limit.
    async fn close_slot(&self, slot: Slot, number: u64, _: usize) -> Result<bool> {
        self.write(|state, _| state.close_slot(slot, number))
    }

    async fn open_slot(&self, slot: Slot, number: u64) -> Result<()> {
        self.write(|state, now| state.open_slot(slot, number, now))
    }
}
