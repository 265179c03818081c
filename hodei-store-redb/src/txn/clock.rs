//! The clock, and what is done about one that is set back.

use std::time::Duration;

use hodei_core::Result;

use super::work::Work;
use crate::codec;
use crate::key;
use crate::table::Tab;

impl Work<'_, '_> {
    /// Looks at the clock, before each verb. Where it was set back, lives, terms and what is spent of rates are brought back by
    /// as much: they end as long after this as they would have ended before.
    pub(crate) fn tick(&mut self) -> Result<()> {
        let now = self.context.clock.now();
        (self.now, self.delta.now) = (now, now);
        match self.delta.seen.and_then(|seen| now.set_back_from(seen)) {
            Some(by) => {
                self.bring_lives_back(by)?;
                self.bring_rates_back(by)?;
                self.delta.seen = Some(now);
            }
            None => self.delta.seen = self.delta.seen.max(Some(now)),
        }
        Ok(())
    }

    fn bring_rates_back(&mut self, by: Duration) -> Result<()> {
        let mut rates = self.look(|index| index.rates.brought_back(by));
        for (of, changed) in &self.delta.rates {
            rates.retain(|(known, _)| known != of);
            rates.extend(changed.map(|(rate, spent)| (of.clone(), (rate, spent.brought_back(by)))));
        }
        for (of, paced) in rates {
            // At once: a transaction that writes nothing else is committed for it.
            self.put(Tab::Rates, &key::limit(&of), &codec::rate_row(&of, &paced)?)?;
            self.delta.rates.insert(of, Some(paced));
        }
        Ok(())
    }
}
