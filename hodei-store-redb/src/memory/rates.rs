//! The rates of limits, and what is spent of them.

use std::collections::BTreeMap;
use std::time::Duration;

use hodei_core::store::{LaneRoom, LimitOf, Rate, Spent};
use hodei_core::{Result, Slot, Tenant};

use super::index::Index;
use super::slots::Slots;
use crate::rows::Rows;

/// A rate, and what is spent of it.
pub(crate) type Paced = (Rate, Spent);

/// The rates as of the last commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates(BTreeMap<LimitOf, Paced>);

/// What a transaction will have changed of them: nothing stands for a rate that was removed.
pub(crate) type RatesDelta = BTreeMap<LimitOf, Option<Paced>>;

impl Rates {
    /// Says whether no limit has a rate.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the rate of a limit; nothing where it has none.
    pub(crate) fn get(&self, of: &LimitOf) -> Option<Paced> {
        self.0.get(of).copied()
    }

    /// Returns the rates, and what they are after a clock was set back by so much.
    pub(crate) fn brought_back(&self, by: Duration) -> Vec<(LimitOf, Paced)> {
        self.0.iter().map(|(of, (rate, spent))| (of.clone(), (*rate, spent.brought_back(by)))).collect()
    }

    /// Holds a lane to the rates that it is under.
    pub(crate) fn pace(&self, room: &mut LaneRoom, under: impl Iterator<Item = LimitOf>) {
        if !self.is_empty() {
            under.filter_map(|of| self.get(&of)).for_each(|(rate, spent)| room.pace(rate, spent));
        }
    }

    /// Takes over what a committed transaction changed.
    pub(super) fn apply(&mut self, delta: &RatesDelta) {
        for (of, paced) in delta {
            match paced {
                Some(paced) => drop(self.0.insert(of.clone(), *paced)),
                None => drop(self.0.remove(of)),
            }
        }
    }

    /// Reads the rates that are in sight, or those of one slot.
    pub(super) fn read(rows: &mut impl Rows, slots: &Slots, only: Option<Slot>) -> Result<Self> {
        let mut rates = rows.rates()?;
        rates.retain(|of, _| {
            let slot = of.tenant().map(Tenant::slot);
            only.map_or_else(|| slot.is_none_or(|slot| !slots.hides(|| slot)), |only| slot == Some(only))
        });
        Ok(Self(rates))
    }

    /// Forgets those of a slot.
    pub(super) fn hide(&mut self, slot: Slot) {
        self.0.retain(|of, _| of.tenant().is_none_or(|tenant| tenant.slot() != slot));
    }

    /// Takes in those of tenants of whom there was none.
    pub(super) fn join(&mut self, mut part: Self) {
        self.0.append(&mut part.0);
    }
}

impl Index {
    /// Says whether claims take tokens, or will have to where a transaction has changed so much.
    pub(crate) fn is_paced(&self, delta: &RatesDelta) -> bool {
        !(self.rates.is_empty() && delta.is_empty())
    }
}
