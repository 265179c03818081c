//! Slots that go out of sight, and that come into it.

use hodei_core::store::Lane;
use hodei_core::{Result, Slot};

use super::delta::Delta;
use super::index::Index;
use super::rates::Rates;
use super::slots::{Phase, Slots};
use super::wide::Wide;
use crate::rows::Rows;

impl Index {
    /// Takes over where slots are and what came into or left the rows of what is open out of sight.
    pub(super) fn apply_slots(&mut self, delta: &Delta) {
        for (slot, moving) in &delta.slots {
            if moving.phase.hides() && !self.slots.hides(|| *slot) {
                self.hide(*slot);
            }
            self.slots.set(*slot, *moving);
        }
        for (batch, change) in &delta.apart {
            let named = self.batches.get(batch).map_or(0, |named| i64::from(*named)) + change;
            match u32::try_from(named) {
                Ok(0) | Err(_) => drop(self.batches.remove(batch)),
                Ok(named) => drop(self.batches.insert(*batch, named)),
            }
        }
        self.highest = self.highest.max(delta.highest);
    }

    /// Forgets what is open in a slot, but for the rows that name it.
    fn hide(&mut self, slot: Slot) {
        self.lists.retain(|tenant, _| tenant.slot() != slot);
        self.lanes.retain(|lane, _| lane.tenant.slot() != slot);
        self.moved.retain(|id| id.slot() != slot);
        self.due.retain(|(_, id), _| id.slot() != slot);
        self.deadlines.retain(|(_, id)| id.slot() != slot);
        self.in_use.retain(|(tenant, _), _| tenant.slot() != slot);
        self.wide.hide(slot);
        self.rates.hide(slot);
        self.leases.retain(|_, held| {
            held.retain(|id| id.slot() != slot);
            !held.is_empty()
        });
        self.cancels.retain(|_, asked| {
            asked.retain(|id, _| id.slot() != slot);
            !asked.is_empty()
        });
    }

    /// Reads what is open in the slots that a transaction has opened to those who look.
    pub(crate) fn read_shown(before: &Slots, delta: &Delta, rows: &mut impl Rows) -> Result<Self> {
        let mut part = Self::default();
        for (slot, moving) in &delta.slots {
            if moving.phase == Phase::Open && before.hides(|| *slot) {
                part.wide.join(Wide::read(rows, before, Some(*slot))?);
                part.rates.join(Rates::read(rows, before, Some(*slot))?);
                let from = before.get(*slot).from;
                part.read_slot(rows, delta.now, from, *slot)?;
            }
        }
        Ok(part)
    }

    /// Takes in what is open of tenants of whom nothing was open.
    pub(crate) fn join(&mut self, mut part: Self) {
        self.lists.append(&mut part.lists);
        self.lanes.extend(part.lanes);
        self.moved.extend(part.moved);
        self.due.append(&mut part.due);
        self.deadlines.append(&mut part.deadlines);
        self.in_use.extend(part.in_use);
        self.wide.join(part.wide);
        self.rates.join(part.rates);
        for (lease, held) in part.leases {
            self.leases.entry(lease).or_default().extend(held);
        }
        for (lease, asked) in part.cancels {
            self.cancels.entry(lease).or_default().extend(asked);
        }
    }

    /// Says whether work of a lane may be claimed, as far as its slot is concerned.
    pub(crate) fn serves(&self, lane: &Lane) -> bool {
        !self.slots.closed(|| lane.tenant.slot())
    }
}
