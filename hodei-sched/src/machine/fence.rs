//! How long the node goes on without hearing of its store, and its agents without hearing of it.
//!
//! What a node holds may be taken from it when its life has ended, and a node that cannot reach the store does not hear of
//! that. So it gives itself up before: whoever takes its jobs over finds nobody at work on them. For the same reason it tells
//! its agents with every answer how long they may run on without the next one.

use std::time::Duration;

use hodei_core::Timestamp;
use hodei_core::job::Lease;

use super::scheduler::Scheduler;

/// This part of its patience with a silent agent a node keeps to itself: so long the agent has to end what it runs.
const MARGIN: u32 = 8;

impl Scheduler {
    /// Takes in what a heartbeat came to. One for a life that is over says nothing.
    pub(super) fn beaten(&mut self, lease: &Lease, until: Option<Timestamp>) {
        if *lease != self.owner || self.owner_lost {
            return;
        }
        match until {
            Some(until) => self.alive_until = self.alive_until.max(Some(until)),
            None => self.lose_owner(),
        }
    }

    /// Gives the node up when its life may have ended.
    pub(super) fn fence(&mut self, now: Timestamp) {
        if self.fence_at().is_some_and(|at| at <= now) {
            self.lose_owner();
        }
    }

    /// When the node gives itself up, unless a heartbeat comes first.
    pub(super) fn fence_at(&self) -> Option<Timestamp> {
        self.alive_until.filter(|_| !self.owner_lost)
    }
}

/// How long after a call came an agent may run on without another answer: until the node, which heard of it last at `heard`,
/// has no more patience, or until the node's own life may have ended.
pub(super) fn alone(
    called: Timestamp,
    heard: Timestamp,
    patience: Duration,
    alive_until: Option<Timestamp>,
) -> Duration {
    let until = heard.saturating_add(patience - patience / MARGIN);
    alive_until.map_or(until, |alive| alive.min(until)).saturating_since(called)
}
