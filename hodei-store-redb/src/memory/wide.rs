//! The limits of tenants, of queues and of the whole store, and what counts against them.

use std::collections::{BTreeMap, HashMap};

use hodei_core::job::State;
use hodei_core::map::IdState;
use hodei_core::store::{Lane, LimitOf};
use hodei_core::{Name, Result, Slot, Tenant};

use super::index::{Index, add};
use super::slots::Slots;
use crate::codec::{self, Head};
use crate::rows::{Rows, Span};
use crate::table::Tab;

/// A tenant's queue.
type Queue = (Tenant, Name);

/// The wide limits as of the last commit. How much of those of a tenant and of the whole store is used follows from the
/// counts by state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wide {
    set: BTreeMap<LimitOf, u32>,
    /// How many leased jobs count against the limit of a queue; only of queues that have one, and never zero.
    queues: HashMap<Queue, u64, IdState>,
}

/// What a transaction will have changed of the wide limits.
#[derive(Clone, Debug, Default)]
pub(crate) struct WideDelta {
    /// Limits that were set, and those that were removed.
    pub(crate) set: BTreeMap<LimitOf, Option<u32>>,
    /// Uses of queues.
    pub(crate) queues: HashMap<Queue, i64, IdState>,
}

/// Returns how many more jobs of a lane its wide limits let through, given how much each that somebody set does, and how much
/// of it is used; `u64::MAX` where nobody set one.
pub(crate) fn wide_room(
    lane: &Lane,
    max: impl Fn(&LimitOf) -> Option<u32>,
    used: impl Fn(&LimitOf) -> u64,
) -> u64 {
    let free = |of| Some(u64::from(max(&of)?).saturating_sub(used(&of)));
    LimitOf::wide(&lane.tenant, &lane.queue).into_iter().filter_map(free).min().unwrap_or(u64::MAX)
}

impl Wide {
    /// Says whether there is no wide limit.
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Returns how much a limit lets through; nothing when nobody set it.
    pub(crate) fn max(&self, of: &LimitOf) -> Option<u32> {
        self.set.get(of).copied()
    }

    fn of_queue(&self, tenant: &Tenant, queue: &Name) -> u64 {
        self.queues.get(&(tenant.clone(), queue.clone())).copied().unwrap_or(0)
    }

    /// Takes over what a committed transaction changed.
    pub(super) fn apply(&mut self, delta: &WideDelta) {
        for (of, max) in &delta.set {
            match (of, max) {
                (_, Some(max)) => drop(self.set.insert(of.clone(), *max)),
                (LimitOf::Queue(tenant, queue), None) => {
                    self.set.remove(of);
                    self.queues.remove(&(tenant.clone(), queue.clone()));
                }
                (_, None) => drop(self.set.remove(of)),
            }
        }
        for ((tenant, queue), change) in &delta.queues {
            if !self.set.contains_key(&LimitOf::Queue(tenant.clone(), queue.clone())) {
                continue;
            }
            match add(self.of_queue(tenant, queue), *change) {
                0 => drop(self.queues.remove(&(tenant.clone(), queue.clone()))),
                uses => drop(self.queues.insert((tenant.clone(), queue.clone()), uses)),
            }
        }
    }

    /// Reads the limits that are in sight, or those of one slot.
    pub(super) fn read(rows: &mut impl Rows, slots: &Slots, only: Option<Slot>) -> Result<Self> {
        let mut wide = Self::default();
        rows.scan(Tab::Limits, Span::ALL, |_, row| {
            let limit = codec::limit(row)?;
            let slot = limit.of.tenant().map(Tenant::slot);
            let shown = slot.is_none_or(|slot| !slots.hides(|| slot));
            let is_wide = !matches!(limit.of, LimitOf::Key(..));
            if is_wide && only.map_or(shown, |only| slot == Some(only)) {
                wide.set.insert(limit.of, limit.max);
            }
            Ok(true)
        })?;
        Ok(wide)
    }

    /// Counts a job that was found leased.
    pub(super) fn count(&mut self, head: &Head) {
        let (tenant, queue) = (&head.job.tenant, &head.queue);
        if !self.set.is_empty() && self.set.contains_key(&LimitOf::Queue(tenant.clone(), queue.clone())) {
            *self.queues.entry((tenant.clone(), queue.clone())).or_default() += 1;
        }
    }

    /// Forgets those of a slot.
    pub(super) fn hide(&mut self, slot: Slot) {
        self.set.retain(|of, _| of.tenant().is_none_or(|tenant| tenant.slot() != slot));
        self.queues.retain(|(tenant, _), _| tenant.slot() != slot);
    }

    /// Takes in those of tenants of whom there was none.
    pub(super) fn join(&mut self, mut part: Self) {
        self.set.append(&mut part.set);
        self.queues.extend(part.queues);
    }
}

impl Index {
    /// Returns how many leased jobs count against a wide limit that somebody set.
    pub(crate) fn wide_use(&self, of: &LimitOf) -> u64 {
        match of {
            LimitOf::All => {
                [State::Scheduled, State::Running].map(|state| self.all[state as usize]).iter().sum()
            }
            LimitOf::Tenant(tenant) => self
                .counts
                .get(tenant)
                .map_or(0, |counts| counts.of(State::Scheduled) + counts.of(State::Running)),
            LimitOf::Queue(tenant, queue) => self.wide.of_queue(tenant, queue),
            LimitOf::Key(..) => 0,
        }
    }

    /// Returns how many more jobs of a lane the wide limits let through; `u64::MAX` without limits.
    pub(crate) fn wide_room(&self, lane: &Lane) -> u64 {
        if self.wide.is_empty() {
            return u64::MAX;
        }
        wide_room(lane, |of| self.wide.max(of), |of| self.wide_use(of))
    }
}
