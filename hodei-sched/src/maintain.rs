//! What a node does beside dispatching: beat for its lease, and, where it leads, reap and prune.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::{join, join_all};
use hodei_core::store::{Pruned, Retention, Round, Term};
use hodei_core::{JobId, Name, Tenant};
use tokio::sync::mpsc;

use crate::driver::{Message, Shared};

/// The duty of taking jobs back from dead owners and of removing what is no longer kept.
const DUTY: &str = "maintain";
/// How many jobs one transaction reaps at most.
const BATCH: usize = 1_000;
/// How many jobs one transaction prunes at most, and how many times as long as it took the pause behind it is: submitters
/// hardly notice.
const PRUNE_BATCH: usize = 500;
const PRUNE_PAUSE: u32 = 16;
/// How many beats pass between two prunings; one that is not done goes on with the next beat.
const PRUNE_EVERY: u32 = 30;

/// After how many beats at which it held nothing a node that does not lead beats no more.
const REST_AFTER: u32 = 3;

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
    /// Whether there may be something to reap.
    reapable: bool,
    /// Whether the store said that somebody else leads.
    led: bool,
    /// Beats in a row at which nothing was held.
    idle: u32,
    /// Whether the last pruning left something.
    pub(crate) unfinished: bool,
}

impl Duties {
    /// Takes the duty and reaps once, before any work is claimed: what a dead node of this file held comes back first.
    pub(crate) async fn recover(shared: &Shared, config: Maintenance) -> hodei_core::Result<Self> {
        let lease = shared.lease.borrow().clone();
        let term = shared.store.take_term(&Name::literal(DUTY), &lease, shared.ttl).await?;
        let duties =
            Self { config, term, rounds: 0, reapable: false, led: false, idle: 0, unfinished: false };
        duties.reap(shared).await?;
        Ok(duties)
    }

    /// Says that the dispatchers of the node live, and keeps the duty or takes it, all in one call; returns the jobs that
    /// somebody asked to stop.
    ///
    /// What fails now is tried again at the next beat; the store has told its own counters. What was led before a failure
    /// may still be led, and every write under it is fenced.
    pub(crate) async fn beat(&mut self, dispatchers: &[Arc<Shared>]) -> Vec<JobId> {
        self.reapable = false;
        let Some(shared) = dispatchers.first() else { return Vec::new() };
        if self.rests(dispatchers) {
            let round = Round { owners: Vec::new(), ttl: shared.ttl, duty: Name::literal(DUTY), term: None };
            if shared.store.round(round).await.is_ok_and(|rounded| rounded.led) {
                return Vec::new();
            }
        }
        let owners = dispatchers.iter().map(|shared| shared.lease.borrow().clone()).collect();
        let round = Round { owners, ttl: shared.ttl, duty: Name::literal(DUTY), term: self.term.clone() };
        let Ok(rounded) = shared.store.round(round).await else { return Vec::new() };
        (self.term, self.reapable, self.led) = (rounded.term, rounded.reapable, rounded.led);
        rounded.beats.into_iter().flat_map(|beat| beat.cancel).map(|(job, _)| job).collect()
    }

    /// Says whether the node may let its lease run out: it holds nothing for some time, and somebody else leads. What it
    /// claims next it claims under a new lease. Dispatchers that lend to each other do not rest.
    fn rests(&mut self, dispatchers: &[Arc<Shared>]) -> bool {
        let [shared] = dispatchers else { return false };
        self.idle = if shared.rest.is_idle() { self.idle.saturating_add(1) } else { 0 };
        self.led && self.term.is_none() && self.idle >= REST_AFTER && shared.rest.lie_down()
    }

    /// Reaps where the node leads and there may be something to reap; says whether it is time to prune as well.
    pub(crate) async fn lead(&mut self, shared: &Shared) -> bool {
        self.rounds = self.rounds.wrapping_add(1);
        if std::mem::take(&mut self.reapable) {
            // What fails now is tried again at the next beat.
            let _ = self.reap(shared).await;
        }
        self.term.is_some() && (self.unfinished || self.rounds.is_multiple_of(PRUNE_EVERY))
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
        tokio::time::sleep_until((now + took * PRUNE_PAUSE).min(until)).await;
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
