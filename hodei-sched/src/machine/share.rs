//! What dispatchers of a process hand each other.
//!
//! A claimed job that waits here can run at another dispatcher, under the same lease and epoch: its first report moves
//! the lease. Until then the store says that we hold it, so we remember that we do not.

use hodei_core::job::Epoch;
use hodei_core::store::{Claimed, Move, Transition};
use hodei_core::{JobId, Timestamp};

use super::scheduler::{Outgoing, Scheduler, Store};

/// So many lent jobs are remembered before the store is asked which of them are still ours by its book.
const LENT_MAX: usize = 4_096;

impl Scheduler {
    /// How many claimed jobs wait although everything that found room has been assigned. What waits for a look at the store may
    /// find room here, and may come behind something else: it is not lent meanwhile.
    pub(crate) fn surplus(&self) -> usize {
        let keeps = self.draining || self.owner_lost || self.look.until().is_some();
        if keeps { 0 } else { self.buffer.len() }
    }

    /// Whether there is room here for which there is nothing to claim and nothing on its way.
    pub(crate) fn is_hungry(&self, now: Timestamp) -> bool {
        let idle = self.store == Store::Idle && !self.lanes_stale;
        let lives = !self.owner_lost || self.rests;
        let may_ask = !self.draining && lives && !self.awaits_loan && now >= self.ask_again_at;
        idle && may_ask && self.buffer.is_empty() && self.fleet.open_slots() > 0
    }

    /// Notes that another dispatcher was asked for jobs.
    pub(crate) fn has_asked(&mut self) {
        self.awaits_loan = true;
    }

    /// For how many jobs there is room here.
    pub(crate) fn room(&self) -> usize {
        usize::try_from(self.fleet.open_slots()).unwrap_or(usize::MAX)
    }

    /// Lends half of what waits, the most urgent first; no more than there is room for where it goes.
    pub(crate) fn lend(&mut self, room: usize) -> Vec<Claimed> {
        let n = (self.surplus() / 2).min(self.config.batch_max).min(room);
        self.buffer.let_go(|_, _| true);
        let mut lent = Vec::with_capacity(n);
        while lent.len() < n
            && let Some(waiting) = self.buffer.pop()
        {
            self.fleet.discount(waiting.class);
            self.pace.begins();
            let (job, epoch) = (waiting.claimed.job.id, waiting.claimed.job.epoch);
            // What was borrowed goes on to the next one; it is the first one's still.
            if self.borrowed.remove(&job).is_none() {
                self.lent.insert(job, epoch);
            }
            lent.push(waiting.claimed);
        }
        if self.lent.len() > LENT_MAX {
            self.leases_unknown = true;
        }
        lent
    }

    /// Takes back what could not be lent.
    pub(crate) fn unlend(&mut self, jobs: Vec<Claimed>, now: Timestamp) {
        for claimed in jobs {
            if self.lent.remove(&claimed.job.id).is_none() {
                // It was borrowed itself.
                self.borrowed.insert(claimed.job.id, claimed.job.epoch);
            }
            self.claimed(claimed, now);
        }
    }

    /// Notes that another dispatcher has died, who may have had what was lent. When nobody waits for its agents any more, that
    /// goes back to the store, unless it has started elsewhere.
    pub(crate) fn bereave(&mut self, now: Timestamp) {
        let at = now.saturating_add(self.config.session_ttl);
        self.bereaved_at = self.bereaved_at.max(Some(at));
        self.bereaved.extend(self.lent.iter().map(|(job, epoch)| (*job, *epoch)));
        // It answers nothing any more.
        self.awaits_loan = false;
    }

    /// Gives back what was lent, where the time has come.
    pub(super) fn reclaim(&mut self, now: Timestamp) {
        if self.bereaved_at.is_none_or(|at| at > now) {
            return;
        }
        self.bereaved_at = None;
        let mut lent: Vec<(JobId, Epoch)> = std::mem::take(&mut self.bereaved).into_iter().collect();
        lent.retain(|(job, epoch)| self.lent.get(job) == Some(epoch));
        lent.sort_unstable();
        for (job, epoch) in lent {
            self.lent.remove(&job);
            let transition = Transition { job, epoch, step: Move::Returned };
            self.outgoing.push_back(Outgoing { transition, report: None, refused: 0, unless_begun: true });
        }
    }

    /// Takes in what was asked for. Where that is nothing, or nobody here could run some of it, it is a while before the
    /// next time.
    pub(crate) fn take_lent(&mut self, jobs: Vec<Claimed>, now: Timestamp) {
        self.awaits_loan = false;
        let mut in_vain = jobs.is_empty();
        for claimed in jobs {
            self.borrowed.insert(claimed.job.id, claimed.job.epoch);
            self.claimed(claimed, now);
        }
        let before = self.buffer.len();
        self.shed();
        in_vain |= self.buffer.len() < before;
        if in_vain {
            self.ask_again_at = now.saturating_add(self.config.retry_wait);
        }
        if self.store == Store::Idle {
            self.unwanted.clear();
        }
    }
}
