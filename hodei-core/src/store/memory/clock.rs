//! A clock that is set back.

use std::time::Duration;

use super::state::State;
use crate::time::Timestamp;

impl State {
    /// Looks at the clock before a verb. Where it was set back, lives, terms and what is spent of rates are brought back by as
    /// much: they end as long after this as they would have ended before.
    pub(super) fn look_at_clock(&mut self, now: Timestamp) {
        self.latest = self.latest.max(Some(now));
        match self.seen.and_then(|seen| now.set_back_from(seen)) {
            Some(by) => {
                self.bring_back(by);
                self.seen = Some(now);
            }
            None => self.seen = self.seen.max(Some(now)),
        }
    }

    fn bring_back(&mut self, by: Duration) {
        let owners = self.owners.values_mut().map(|row| &mut row.expires_at);
        let terms = self.terms.values_mut().map(|row| &mut row.expires_at);
        owners.chain(terms).for_each(|at| *at = at.saturating_sub(by));
        self.limits.bring_back(by);
    }
}
