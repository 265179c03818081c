//! What a node does beside dispatching: beat for its lease, and, where it leads, reap and prune.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::{join, join_all};
use hodei_core::store::{Pruned, Retention, Scope, Term};
use hodei_core::{JobId, Name, Tenant};
use tokio::sync::mpsc;

use crate::driver::{Message, Shared};

/// The duty of taking jobs back from dead owners and of removing what is no longer kept.
const DUTY: &str = "maintain";
/// How many jobs one transaction reaps at most.
const BATCH: usize = 1_000;
/// How many jobs one transaction prunes at most.
const PRUNE_BATCH: usize = 500;
/// How many times as long as it took the pause behind it is, so that submitters hardly notice; less where more jobs end
/// than are pruned.
const PRUNE_PAUSE: u32 = 16;
/// How many beats pass between two prunings; one that is not done goes on with the next beat.
const PRUNE_EVERY: u32 = 30;

/// The figures of the maintenance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maintenance {
    pub(crate) beat: Duration,
    pub(crate) lost_max: u16,
    pub(crate) retention: Retention,
}

/// What a node owes the store at each beat. Waits for nothing but the store, so that any loop can drive it.
#[derive(Debug)]
pub(crate) struct Duties {
    pub(crate) config: Maintenance,
    pub(crate) term: Option<Term>,
    rounds: u32,
    /// Whether the last pruning left something.
    pub(crate) unfinished: bool,
    pace: Pace,
}

/// How long prunings pause: half as long from beat to beat while what they leave grows.
#[derive(Debug)]
struct Pace {
    pause: u32,
    /// How many jobs had ended when the last pruning left something.
    ended: Option<u64>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause: PRUNE_PAUSE, ended: None }
    }
}

impl Pace {
    /// Takes in how many jobs had ended and were still there after a pruning that left something.
    fn left(&mut self, ended: u64) {
        if self.ended.is_some_and(|before| ended >= before) {
            self.pause = (self.pause / 2).max(1);
        }
        self.ended = Some(ended);
    }
}

impl Duties {
    /// Takes the duty and reaps once, before any work is claimed: what a dead node of this file held comes back first.
    pub(crate) async fn recover(shared: &Shared, config: Maintenance) -> hodei_core::Result<Self> {
        let lease = shared.lease.borrow().clone();
        let term = shared.store.take_term(&Name::literal(DUTY), &lease, shared.ttl).await?;
        let duties = Self { config, term, rounds: 0, unfinished: false, pace: Pace::default() };
        duties.reap(shared).await?;
        Ok(duties)
    }

    /// Says that the dispatchers of the node live; returns the jobs that somebody asked to stop.
    pub(crate) async fn beat(&self, dispatchers: &[Arc<Shared>]) -> Vec<JobId> {
        let Some(shared) = dispatchers.first() else { return Vec::new() };
        let leases = dispatchers.iter().map(|shared| shared.lease.borrow().clone()).collect();
        let Ok(beats) = shared.store.beat(leases, shared.ttl).await else { return Vec::new() };
        beats.into_iter().flat_map(|beat| beat.cancel).map(|(job, _)| job).collect()
    }

    /// Keeps the duty or takes it, and reaps where that succeeds; says whether it is time to prune as well.
    ///
    /// What fails now is tried again at the next beat; the store has told its own counters.
    pub(crate) async fn lead(&mut self, shared: &Shared) -> bool {
        self.term = self.keep(shared).await;
        self.rounds = self.rounds.wrapping_add(1);
        let _ = self.reap(shared).await;
        self.term.is_some() && (self.unfinished || self.rounds.is_multiple_of(PRUNE_EVERY))
    }

    async fn keep(&mut self, shared: &Shared) -> Option<Term> {
        if let Some(term) = self.term.take()
            && shared.store.keep_term(&term, shared.ttl).await.unwrap_or(false)
        {
            return Some(term);
        }
        let lease = shared.lease.borrow().clone();
        shared.store.take_term(&Name::literal(DUTY), &lease, shared.ttl).await.ok().flatten()
    }

    async fn reap(&self, shared: &Shared) -> hodei_core::Result<()> {
        let Some(term) = &self.term else { return Ok(()) };
        loop {
            let reaped = shared.store.reap(term, self.config.lost_max, BATCH).await?;
            if reaped.term_lost || !reaped.more {
                return Ok(());
            }
        }
    }

    /// Pauses less in the next pruning if more is left than after the one before, and as ever once nothing is left.
    async fn keep_pace(&mut self, shared: &Shared) {
        if !self.unfinished {
            self.pace = Pace::default();
        } else if let Ok(counts) = shared.store.counts(&Scope::All).await {
            self.pace.left(counts.total() - counts.open());
        }
    }

    /// Removes one batch of what retention no longer keeps; nothing where somebody else leads.
    pub(crate) async fn prune(&self, shared: &Shared) -> hodei_core::Result<Pruned> {
        match &self.term {
            Some(term) => shared.store.prune(term, self.config.retention, PRUNE_BATCH).await,
            None => Ok(Pruned { term_lost: true, ..Pruned::default() }),
        }
    }
}

/// Beats, reaps and prunes until it is aborted, or until the first driver is gone. A failed round is repeated at the
/// next beat.
pub(crate) async fn run(
    dispatchers: Vec<Arc<Shared>>,
    mut duties: Duties,
    drivers: Vec<mpsc::WeakSender<Message>>,
) {
    loop {
        tokio::time::sleep(duties.config.beat).await;
        let (Some(shared), Some(_)) =
            (dispatchers.first(), drivers.first().and_then(mpsc::WeakSender::upgrade))
        else {
            return;
        };
        let cancel = duties.beat(&dispatchers).await;
        if !cancel.is_empty() {
            // Whichever has it: what was lent is with another one than the store says.
            for driver in drivers.iter().filter_map(mpsc::WeakSender::upgrade) {
                // A driver that is gone has nothing left to cancel.
                let _ = driver.send(Message::Cancelled(cancel.clone())).await;
            }
        }
        if duties.lead(shared).await {
            duties.unfinished = prune(shared, &duties).await.unwrap_or(false);
            duties.keep_pace(shared).await;
        }
    }
}

/// Prunes until nothing is left that retention does not keep, or until the next beat is due, and says whether something
/// is left; between two batches the store serves others.
async fn prune(shared: &Shared, duties: &Duties) -> hodei_core::Result<bool> {
    let until = tokio::time::Instant::now() + duties.config.beat;
    loop {
        let began = tokio::time::Instant::now();
        let pruned = duties.prune(shared).await?;
        let took = began.elapsed();
        // Slow disks do not hold up the beats: what has begun goes on by itself.
        let _ = tokio::time::timeout_at(until, forget(shared, pruned.gone)).await;
        let (left, now) = (pruned.more && !pruned.term_lost, tokio::time::Instant::now());
        if !left || now >= until {
            return Ok(left);
        }
        tokio::time::sleep_until((now + took * duties.pace.pause).min(until)).await;
    }
}

/// Removes the logs and checkpoints of jobs that went; what fails here stays, and nobody comes back for it.
async fn forget(shared: &Shared, gone: Vec<(Tenant, JobId)>) {
    if gone.is_empty() {
        return;
    }
    let logs = shared.logs.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let logs = logs.iter().filter_map(Weak::upgrade);
    let each = logs.map(|logs| {
        let gone = gone.clone();
        async move { logs.forget(gone).await }
    });
    let kept = shared.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let checkpoints = kept.iter().filter_map(Weak::upgrade).map(|checkpoints| {
        let gone = gone.clone();
        async move { checkpoints.forget(gone).await }
    });
    let _ = join(join_all(each), join_all(checkpoints)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pruning_that_is_outrun_pauses_less_and_less() {
        let mut pace = Pace::default();
        pace.left(1_000);
        assert_eq!(pace.pause, PRUNE_PAUSE, "nothing tells yet whether it grows");
        pace.left(900);
        assert_eq!(pace.pause, PRUNE_PAUSE, "it becomes less");
        for (ended, pause) in [(900, 8), (950, 4), (940, 4), (960, 2), (970, 1), (980, 1)] {
            pace.left(ended);
            assert_eq!(pace.pause, pause, "{ended} are left");
        }
    }
}
