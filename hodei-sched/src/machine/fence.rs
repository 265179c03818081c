//! How long the node goes on without hearing of its store, and its agents without hearing of it.
//!
//! What a node holds may be taken from it when its life has ended, and a node that cannot reach the store does not hear of
//! that. So it gives itself up before: whoever takes its jobs over finds nobody at work on them. For the same reason it tells
//! its agents with every answer how long they may run on without the next one.

use std::time::Duration;

use hodei_core::Timestamp;
use hodei_core::job::Lease;

use super::scheduler::{Scheduler, Store};

/// This part of its patience with a silent agent a node keeps to itself: so long the agent has to end what it runs.
const MARGIN: u32 = 8;

impl Scheduler {
    /// Takes in what a heartbeat came to. One for a life that is over says nothing.
    pub(super) fn beaten(&mut self, lease: &Lease, until: Option<Timestamp>) {
        if *lease != self.owner || (self.owner_lost && !self.rests) {
            return;
        }
        match until {
            // It rested, and somebody needs it to live.
            Some(until) if self.rests => {
                (self.rests, self.owner_lost) = (false, false);
                self.alive_until = Some(until);
            }
            Some(until) => self.alive_until = self.alive_until.max(Some(until)),
            None => self.lose_owner(),
        }
    }

    /// Gives the node up when its life may have ended, and lets it rest when it has held nothing for long.
    pub(super) fn fence(&mut self, now: Timestamp) {
        if let Some(at) = self.fence_at().filter(|at| *at <= now) {
            self.lose_owner();
            self.register_at = at.saturating_add(self.config.fence_margin);
        }
        if !self.could_rest() {
            self.busy_at = now;
        } else if self.rest_at().is_some_and(|at| at <= now) {
            if self.lent.is_empty() {
                self.lose_owner();
                self.rests = true;
            } else {
                // What was lent is ours by the store's book until it has started: is there any of it left?
                (self.leases_unknown, self.busy_at) = (true, now);
            }
        }
    }

    /// When the node gives itself up or goes to rest, unless something comes first.
    pub(super) fn fence_at(&self) -> Option<Timestamp> {
        self.alive_until.filter(|_| !self.owner_lost)
    }

    /// Whether its life has ended and it begins another one, when the time has come: one that gave itself up lets its agents
    /// end what they run, for as long as the store still holds the old life to last. One that the store gave up need not wait:
    /// others may take its jobs already.
    pub(super) fn must_register(&self) -> bool {
        self.owner_lost && !self.rests
    }

    /// When it goes to rest, as things stand.
    pub(super) fn rest_at(&self) -> Option<Timestamp> {
        (!self.owner_lost && self.could_rest()).then(|| self.busy_at.saturating_add(self.config.rest_after))
    }

    /// Says whether it may rest: as long as nobody needs it to live, it then does so only while it holds something or there
    /// is work for it. Until it is told so it never rests.
    pub fn let_rest(&mut self, may: bool) {
        self.may_rest = may;
    }

    /// Whether it rests: its life has ended because nobody needed it, and a new one begins when there is work.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.rests
    }

    /// Whether nothing would be lost if it did not live: it holds nothing, has nothing on its way to the store or from it,
    /// and knows of no work.
    fn could_rest(&self) -> bool {
        let sure = !self.leases_unknown && self.doubt.is_none() && self.failures == 0;
        let no_work = self.heads.is_empty()
            && self.next_due.is_none()
            && self.look_due.is_none()
            && self.store != Store::Exchange;
        let no_loan = self.borrowed.is_empty() && !self.awaits_loan;
        self.may_rest && sure && no_work && no_loan && self.arrived.is_empty() && self.is_idle()
    }

    /// Whether it has to live to do what is to be done: then it rests no more.
    pub(super) fn must_live(&self) -> bool {
        let tells = !self.outgoing.is_empty() || !self.buffer.is_empty() || !self.arrived.is_empty();
        tells
            || !self.borrowed.is_empty()
            || self.leases_unknown
            || (!self.heads.is_empty() && self.wants_work())
    }
}

/// So much of its patience with a silent agent a node tells the agent of.
pub(crate) fn trusted(patience: Duration) -> Duration {
    patience - patience / MARGIN
}

/// How long after a call came an agent may run on without another answer: until the node, which heard of it last at `heard`,
/// has no more patience, or until the node's own life may have ended.
pub(super) fn alone(
    called: Timestamp,
    heard: Timestamp,
    patience: Duration,
    alive_until: Option<Timestamp>,
) -> Duration {
    let until = heard.saturating_add(trusted(patience));
    alive_until.map_or(until, |alive| alive.min(until)).saturating_since(called)
}
