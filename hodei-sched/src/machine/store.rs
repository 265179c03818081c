//! The scheduler's dealings with the store: what it is asked, when, and what its answers mean.

use std::time::Duration;

use hodei_core::gateway::StopCause;
use hodei_core::job::{Job, Lease};
use hodei_core::store::{Applied, Claimed, Exchange, Exchanged, Lanes, Pick};
use hodei_core::{Error, JobId, Timestamp};

use super::picks::{self, Room};
use super::scheduler::{Effect, Outgoing, Scheduler, Store};
use super::session::Session;

impl Scheduler {
    pub(super) fn lanes(&mut self, lanes: Result<Lanes, Error>, now: Timestamp) {
        self.store = Store::Idle;
        match lanes {
            Ok(lanes) => {
                self.failures = 0;
                self.heads = lanes.heads;
                self.next_due = lanes.next_due;
                self.turn = self.turn.wrapping_add(1);
                picks::order(&mut self.heads, self.turn);
            }
            Err(_) => self.failed(now),
        }
    }

    fn failed(&mut self, now: Timestamp) {
        self.retry_at = self.after_failures(self.failures, now);
        self.failures += 1;
        self.lanes_stale = true;
    }

    fn after_failures(&self, failures: u32, now: Timestamp) -> Timestamp {
        now.saturating_add(self.config.retry_wait * (1 << failures.min(6)))
    }

    /// Tells a transition again later; what one part of the store does not take holds up nobody. The times lie a first
    /// wait apart, so that there are few calls however many transitions wait.
    fn defer(&mut self, mut outgoing: Outgoing, now: Timestamp) {
        let at = self.after_failures(outgoing.refused, now);
        let apart = i64::try_from(self.config.retry_wait.as_micros()).unwrap_or(i64::MAX).max(1);
        let short = (apart - at.as_micros().rem_euclid(apart)) % apart;
        let at = at.saturating_add(Duration::from_micros(short.unsigned_abs()));
        outgoing.refused = outgoing.refused.saturating_add(1);
        self.later.entry(at).or_default().push(outgoing);
    }

    pub(super) fn exchanged(&mut self, exchanged: Result<Exchanged, Error>, now: Timestamp) {
        self.store = Store::Idle;
        let sent = std::mem::take(&mut self.sent);
        let Ok(exchanged) = exchanged else {
            // Perhaps it was applied. The transitions can be repeated; for the claims we ask.
            for outgoing in sent.into_iter().rev() {
                self.outgoing.push_front(outgoing);
            }
            self.leases_unknown = true;
            return self.failed(now);
        };
        self.failures = 0;
        for (outgoing, applied) in sent.into_iter().zip(exchanged.applied) {
            if applied == Applied::Unavailable {
                self.defer(outgoing, now);
            } else {
                self.settled(outgoing, applied);
            }
        }
        self.next_due = exchanged.next_due;
        if exchanged.owner_lost {
            return self.lose_owner();
        }
        let claimed = exchanged.claimed.len();
        if claimed < self.asked {
            // The lanes are not as they were.
            self.heads.clear();
        }
        // There may be more behind what was claimed.
        self.lanes_stale |= claimed > 0 && self.heads.is_empty();
        self.arrived = exchanged.claimed;
        if !exchanged.reclaimed.is_empty() {
            self.take_in();
            for claimed in exchanged.reclaimed {
                if !self.knows(&claimed.job) {
                    self.claimed(claimed);
                }
            }
        }
        if self.arrived.is_empty() {
            self.unwanted.clear();
            self.shed();
        }
    }

    /// Takes what was claimed into the buffer.
    pub(super) fn take_in(&mut self) {
        if self.arrived.is_empty() {
            return;
        }
        std::mem::take(&mut self.arrived).into_iter().for_each(|claimed| self.claimed(claimed));
        self.unwanted.clear();
        self.shed();
    }

    fn claimed(&mut self, claimed: Claimed) {
        if self.draining || self.unwanted.contains(&claimed.job.id) {
            self.give_back(&claimed.job);
        } else {
            self.buffer.push(claimed);
        }
    }

    fn settled(&mut self, outgoing: Outgoing, applied: Applied) {
        let Some((worker, incarnation, report)) = outgoing.report else { return };
        let Some(session) = self.sessions.get_mut(&worker).filter(|s| s.incarnation == incarnation) else {
            return;
        };
        session.settled(report);
        if matches!(applied, Applied::LeaseLost { .. } | Applied::NotFound) {
            session.stop_run(outgoing.transition.job, outgoing.transition.epoch);
        }
    }

    pub(super) fn leases(&mut self, leases: Result<Vec<Claimed>, Error>, now: Timestamp) {
        self.store = Store::Idle;
        let Ok(leases) = leases else { return self.failed(now) };
        self.failures = 0;
        self.leases_unknown = false;
        for claimed in leases {
            if !self.knows(&claimed.job) {
                self.claimed(claimed);
            }
        }
        self.unwanted.clear();
        self.shed();
    }

    /// Whether a claim is here already, or on its way back.
    fn knows(&self, job: &Job) -> bool {
        let (id, epoch) = (job.id, job.epoch);
        let has = |session: &Session| session.assigned.get(&id).is_some_and(|of| of.job.epoch == epoch);
        let told = |outgoing: &Outgoing| (outgoing.transition.job, outgoing.transition.epoch) == (id, epoch);
        self.buffer.contains(id, epoch)
            || self.sessions.values().any(has)
            || self.outgoing.iter().chain(self.later.values().flatten()).any(told)
    }

    /// The node was given up: whatever it holds is somebody else's now.
    fn lose_owner(&mut self) {
        self.owner_lost = true;
        self.buffer.drain();
        for session in self.sessions.values_mut() {
            let jobs: Vec<JobId> = session.assigned.keys().copied().collect();
            for job in jobs {
                if session.withdraw(job).is_none() {
                    session.stop(job, StopCause::LeaseLost);
                }
            }
        }
    }

    pub(super) fn registered(&mut self, lease: Lease, now: Timestamp) {
        self.store = Store::Idle;
        if self.owner == lease {
            return self.failed(now);
        }
        self.owner = lease;
        self.owner_lost = false;
        self.lanes_stale = true;
    }

    /// Calls the store when there is something to say or to fetch, and no call under way.
    pub(super) fn ask_store(&mut self, now: Timestamp) {
        if self.store != Store::Idle || (self.failures > 0 && now < self.retry_at) {
            return;
        }
        while let Some(again) = self.later.first_entry().filter(|again| *again.key() <= now) {
            self.outgoing.extend(again.remove());
        }
        let due = self.next_due.is_some_and(|due| due <= now);
        let long_ago = now >= self.last_ask.saturating_add(self.config.poll_interval);
        if due || long_ago {
            self.lanes_stale = true;
            self.last_ask = now;
            self.next_due = self.next_due.filter(|due| *due > now);
        }
        let (store, effect) = if self.owner_lost {
            (Store::Register, Effect::Register)
        } else if self.leases_unknown {
            (Store::Leases, Effect::AskLeases)
        } else if self.lanes_stale && self.wants_work() {
            self.lanes_stale = false;
            self.last_ask = now;
            (Store::Lanes, Effect::AskLanes)
        } else {
            match self.exchange() {
                Some(exchange) => (Store::Exchange, Effect::Exchange(Box::new(exchange))),
                None => {
                    // Nothing is left of what had failed.
                    self.failures = 0;
                    return;
                }
            }
        };
        self.store = store;
        self.effects.push_back(effect);
    }

    fn wants_work(&self) -> bool {
        let slots = self.sessions.values().fold(self.ahead(), |n, s| n.saturating_add(s.open_slots()));
        let claimed = self.buffer.len() + self.arrived.len();
        !self.draining && !self.sessions.is_empty() && claimed < slots as usize
    }

    /// How many jobs to claim for slots that are about to become free: as many as ended during the last exchange.
    fn ahead(&self) -> u32 {
        self.ended_lately.saturating_mul(2).min(self.config.prefetch_max)
    }

    fn exchange(&mut self) -> Option<Exchange> {
        let picks = if self.heads.is_empty() || !self.wants_work() { Vec::new() } else { self.picks() };
        if self.outgoing.is_empty() && picks.is_empty() {
            return None;
        }
        self.asked = picks.iter().map(|pick| pick.n as usize).sum();
        self.forget_picked(&picks);
        self.ended_lately /= 2;
        let n = self.outgoing.len().min(self.config.batch_max);
        self.sent = self.outgoing.drain(..n).collect();
        let transitions = self.sent.iter().map(|outgoing| outgoing.transition.clone()).collect();
        Some(Exchange { owner: self.owner.clone(), transitions, picks })
    }

    /// Takes off the lanes what is asked of them: what is left can be picked next, without asking for the lanes anew.
    fn forget_picked(&mut self, picks: &[Pick]) {
        // The picks are in the order of the lanes.
        let mut picks = picks.iter().peekable();
        self.heads.retain_mut(|head| {
            if let Some(pick) = picks.next_if(|pick| pick.lane == head.lane) {
                head.depth = head.depth.saturating_sub(u64::from(pick.n));
            }
            head.depth > 0
        });
        self.turn = self.turn.wrapping_add(1);
        picks::order(&mut self.heads, self.turn);
    }

    fn picks(&self) -> Vec<Pick> {
        let sessions: Vec<&Session> = self.sessions.values().collect();
        let mut room = Room::of(sessions.iter().copied());
        let mut waiting = 0_u32;
        for (request, n) in self.buffer.waiting() {
            waiting += n - room.take(&sessions, request, n);
        }
        for same in self.arrived.chunk_by(|a, b| a.job.spec.class() == b.job.spec.class()) {
            let n = u32::try_from(same.len()).unwrap_or(u32::MAX);
            waiting = waiting.saturating_add(n - room.take(&sessions, &same[0].job.spec.request(), n));
        }
        picks::decide(&self.heads, &sessions, &mut room, self.ahead().saturating_sub(waiting))
    }
}
