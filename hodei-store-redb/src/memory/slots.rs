//! Which slots are not open, as of a commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use hodei_core::store::slot_closed;
use hodei_core::{Error, ErrorKind, Result, Slot};

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// As if it had never moved.
    Open = 0,
    /// Its rows are read and not written.
    Leaving = 1,
    /// Its rows come, out of sight.
    Arriving = 2,
    /// It is out of sight, and some of its rows are still here.
    Closing = 3,
    /// Nothing of it is here.
    Gone = 4,
}

impl Phase {
    /// Every phase, in the order of their numbers.
    pub(crate) const ALL: [Self; 5] = [Self::Open, Self::Leaving, Self::Arriving, Self::Closing, Self::Gone];

    /// Says whether no verb sees the rows of the slot.
    pub(crate) const fn hides(self) -> bool {
        matches!(self, Self::Arriving | Self::Closing | Self::Gone)
    }
}

/// The last move of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moving {
    /// Its number; those of later moves are higher.
    pub(crate) number: u64,
    pub(crate) phase: Phase,
    /// While it is closing or arriving: no row of open jobs below this number names one of its jobs that is here.
    pub(crate) from: u64,
}

impl Moving {
    /// Of a slot that never moved.
    const NEVER: Self = Self { number: 0, phase: Phase::Open, from: 0 };

    /// Comes to another phase.
    pub(crate) const fn to(number: u64, phase: Phase) -> Self {
        Self { number, phase, from: 0 }
    }
}

/// The slots that were ever on the move; the others are open. Cloning shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots(Arc<BTreeMap<Slot, Moving>>);

impl Slots {
    /// Says whether no slot ever moved.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the last move of a slot.
    pub(crate) fn get(&self, slot: Slot) -> Moving {
        self.0.get(&slot).copied().unwrap_or(Moving::NEVER)
    }

    /// Returns the last move of a slot, for a verb that names one which is not older.
    pub(crate) fn of(&self, op: &'static str, slot: Slot, number: u64) -> Result<Moving> {
        let moving = self.get(slot);
        if number < moving.number {
            return Err(conflict(op, slot).with("number", number).with("last", moving.number));
        }
        Ok(moving)
    }

    /// Returns what they are when moves have come so far.
    pub(crate) fn after(&self, moves: &[(Slot, Moving)]) -> Self {
        let mut after = self.clone();
        moves.iter().for_each(|(slot, moving)| after.set(*slot, *moving));
        after
    }

    /// Notes how far a move has come.
    pub(super) fn set(&mut self, slot: Slot, moving: Moving) {
        Arc::make_mut(&mut self.0).insert(slot, moving);
    }

    /// Says whether the rows of a slot may not change. The slot is asked for only where some slot ever moved.
    pub(crate) fn closed(&self, slot: impl FnOnce() -> Slot) -> bool {
        !self.0.is_empty() && self.get(slot()).phase != Phase::Open
    }

    /// Says whether no verb sees the rows of a slot.
    pub(crate) fn hides(&self, slot: impl FnOnce() -> Slot) -> bool {
        !self.0.is_empty() && self.get(slot()).phase.hides()
    }

    /// Refuses a write that names a slot whose rows may not change.
    pub(crate) fn writable(&self, op: &'static str, mut slots: impl Iterator<Item = Slot>) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        slots.find(|slot| self.closed(|| *slot)).map_or(Ok(()), |slot| Err(slot_closed(op, slot)))
    }

    /// Refuses a read that names a slot whose rows nobody sees.
    pub(crate) fn readable(&self, op: &'static str, mut slots: impl Iterator<Item = Slot>) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        slots.find(|slot| self.hides(|| *slot)).map_or(Ok(()), |slot| Err(slot_closed(op, slot)))
    }
}

/// A verb that comes late, or out of its order.
pub(crate) fn conflict(op: &'static str, slot: Slot) -> Error {
    Error::new(ErrorKind::Conflict, op).with("slot", slot.number())
}
