//! What claims take of the rates of limits.

use hodei_core::Result;
use hodei_core::job::Request;
use hodei_core::store::{Lane, LaneRoom, Limit, LimitOf, Rate, Spent};

use super::work::Work;
use crate::codec;
use crate::key;
use crate::memory::Paced;
use crate::table::Tab;

impl Work<'_, '_> {
    fn are_paced(&self) -> bool {
        self.look(|index| index.is_paced(&self.delta.rates))
    }

    /// Returns the rate of a limit, as this transaction has left it.
    fn paced(&self, of: &LimitOf) -> Option<Paced> {
        match self.delta.rates.get(of) {
            Some(changed) => *changed,
            None => self.look(|index| index.rates.get(of)),
        }
    }

    /// Gives a limit that is set its rate, or takes it away.
    pub(super) fn set_rate(&mut self, limit: &Limit) {
        let before = self.paced(&limit.of);
        let now = self.now;
        let spent = |rate: Rate| {
            before.map_or_else(Spent::default, |(before, spent)| rate.instead_of(&before, spent, now))
        };
        let after = limit.rate.map(|rate| (rate, spent(rate)));
        if before != after {
            self.delta.rates.insert(limit.of.clone(), after);
        }
    }

    /// Takes away the rate of a limit that is removed.
    pub(super) fn remove_rate(&mut self, of: &LimitOf) {
        if self.paced(of).is_some() {
            self.delta.rates.insert(of.clone(), None);
        }
    }

    /// Holds a lane to its rates.
    pub(super) fn pace(&self, lane: &Lane, request: &Request, room: &mut LaneRoom) {
        if !self.are_paced() {
            return;
        }
        let under = LimitOf::of_jobs(&lane.tenant, &lane.queue, &request.limit_keys);
        under.filter_map(|of| self.paced(&of)).for_each(|(rate, spent)| room.pace(rate, spent));
    }

    /// Takes the tokens of jobs that were claimed from a lane.
    pub(super) fn spend(&mut self, lane: &Lane, request: &Request, jobs: usize) {
        if jobs == 0 || !self.are_paced() {
            return;
        }
        let each = request.resources.token_count();
        for of in LimitOf::of_jobs(&lane.tenant, &lane.queue, &request.limit_keys) {
            if let Some((rate, spent)) = self.paced(&of) {
                let spent = rate.claim(spent, jobs as u64, each, self.now);
                self.delta.rates.insert(of, Some((rate, spent)));
            }
        }
    }

    /// Writes a rate that comes from elsewhere.
    pub(super) fn bring_rate(&mut self, limit: &Limit, spent: Spent) -> Result<()> {
        match limit.rate {
            Some(rate) => {
                self.put(Tab::Rates, &key::limit(&limit.of), &codec::rate_row(&limit.of, &(rate, spent))?)
            }
            None => self.remove(Tab::Rates, &key::limit(&limit.of)).map(|_| ()),
        }
    }

    /// Writes what the transaction changed of rates, once for all of its verbs.
    pub(super) fn flush_rates(&mut self) -> Result<()> {
        let changed = std::mem::take(&mut self.delta.rates);
        for (of, paced) in &changed {
            match paced {
                Some(paced) => self.put(Tab::Rates, &key::limit(of), &codec::rate_row(of, paced)?)?,
                None => drop(self.remove(Tab::Rates, &key::limit(of))?),
            }
        }
        self.delta.rates = changed;
        Ok(())
    }
}
