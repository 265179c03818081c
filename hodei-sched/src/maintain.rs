//! What a node does beside dispatching: beat for its lease, and, where it leads, reap and prune.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::{join, join_all};
use hodei_core::job::{Epoch, Lease};
use hodei_core::store::{Beat, Pruned, Retention, Round, Term};
use hodei_core::{JobId, Name, Tenant, Timestamp};
use tokio::sync::mpsc;

use crate::driver::{Message, Shared};
use crate::sweep::Sweep;

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

/// The figures of the maintenance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maintenance {
    pub(crate) beat: Duration,
    pub(crate) lost_max: u16,
    pub(crate) retention: Retention,
}

/// What a heartbeat came to for one dispatcher.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// The lease that was beaten for.
    pub(crate) lease: Lease,
    /// Until when, in the machine's time, nobody else takes its jobs; nothing when it was given up.
    pub(crate) until: Option<Timestamp>,
    /// The jobs that somebody asked to stop, and under which epoch.
    pub(crate) cancel: Vec<(JobId, Epoch)>,
}

/// Says that dispatchers of a node live. What cannot be said now is said at the next beat: then nothing is returned, and a
/// dispatcher that hears nothing for too long gives itself up.
///
/// Waits for nothing but the store, so that any loop can drive it.
pub(crate) async fn beat(dispatchers: &[Arc<Shared>]) -> Vec<Heard> {
    let Some(shared) = dispatchers.first() else { return Vec::new() };
    let until = shared.lives_until();
    let leases: Vec<Lease> = dispatchers.iter().map(|shared| shared.lease.borrow().clone()).collect();
    let Ok(beats) = shared.store.beat(leases.clone(), shared.ttl).await else { return Vec::new() };
    let heard = |(lease, beat): (Lease, Beat)| Heard {
        lease,
        until: beat.alive.then_some(until),
        cancel: beat.cancel,
    };
    leases.into_iter().zip(beats).map(heard).collect()
}

/// What the node that leads owes the store. Waits for nothing but the store, so that any loop can drive it.
#[derive(Debug)]
pub(crate) struct Duties {
    pub(crate) config: Maintenance,
    pub(crate) term: Option<Term>,
    rounds: u32,
    /// Whether the last pruning left something.
    pub(crate) unfinished: bool,
    /// Whether the last reaping left something: then the next round begins at once.
    pub(crate) behind: bool,
}

impl Duties {
    /// Takes the duty and reaps once, before any work is claimed: what a dead node of this file held comes back first.
    pub(crate) async fn recover(shared: &Shared, config: Maintenance) -> hodei_core::Result<Self> {
        let lease = shared.lease.borrow().clone();
        let term = shared.store.take_term(&Name::literal(DUTY), &lease, shared.ttl).await?;
        let mut duties = Self { config, term, rounds: 0, unfinished: false, behind: false };
        duties.reap(shared).await?;
        Ok(duties)
    }

    /// Keeps the duty or takes it, and reaps where the store says that it may find something; says whether it is time to
    /// prune as well.
    ///
    /// What fails now is tried again at the next beat; the store has told its own counters.
    pub(crate) async fn lead(&mut self, shared: &Shared) -> bool {
        self.rounds = self.rounds.wrapping_add(1);
        self.behind = false;
        // What was led before a failure may still be led: every write under it says so.
        if self.keep(shared).await.unwrap_or(false) {
            let _ = self.reap(shared).await;
        }
        self.term.is_some() && !self.behind && (self.unfinished || self.rounds.is_multiple_of(PRUNE_EVERY))
    }

    /// Keeps the duty, or takes it where nobody is known to lead; says whether there may be something to reap.
    async fn keep(&mut self, shared: &Shared) -> hodei_core::Result<bool> {
        // Nobody is beaten for here: that is said elsewhere, and heard by whom it concerns.
        let duty = Name::literal(DUTY);
        let round =
            Round { owners: Vec::new(), ttl: shared.ttl, duty: duty.clone(), term: self.term.clone() };
        let rounded = shared.store.round(round).await?;
        self.term = rounded.term;
        if self.term.is_some() || rounded.led {
            return Ok(rounded.reapable);
        }
        let lease = shared.lease.borrow().clone();
        self.term = shared.store.take_term(&duty, &lease, shared.ttl).await?;
        Ok(self.term.is_some())
    }

    /// Reaps until nothing is left, or for the time of a beat: a term that is not kept meanwhile would run out.
    async fn reap(&mut self, shared: &Shared) -> hodei_core::Result<()> {
        let Some(term) = &self.term else { return Ok(()) };
        let until = shared.pace.now().saturating_add(self.config.beat);
        loop {
            let reaped = shared.store.reap(term, self.config.lost_max, BATCH).await?;
            if reaped.term_lost || !reaped.more {
                return Ok(());
            }
            if shared.pace.now() >= until {
                self.behind = true;
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

/// A dispatcher, and the way to its driver.
pub(crate) type Dispatcher = (Arc<Shared>, mpsc::WeakSender<Message>);

/// Beats, and beside that reaps and prunes where this node leads, until it is aborted or no driver is left. Nothing that the
/// leader has to do holds up a beat.
pub(crate) async fn run(dispatchers: Vec<Dispatcher>, duties: Duties) {
    let every = duties.config.beat;
    tokio::select! {
        () = keep_beating(dispatchers.clone(), every) => {}
        () = keep_leading(&dispatchers, duties) => {}
    }
}

/// Beats for the dispatchers that live, and tells them what came of it; a failed beat is repeated at the next one.
///
/// A driver that has died is beaten for no more: what it held would be stuck for as long as the process lives. Its life is
/// ended instead.
async fn keep_beating(mut dispatchers: Vec<Dispatcher>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let drivers: Vec<_> = dispatchers.iter().map(|(_, driver)| driver.upgrade()).collect();
        if drivers.iter().all(Option::is_none) {
            // Nobody holds the node any more.
            return;
        }
        let (mut living, mut ways) = (Vec::new(), Vec::new());
        for ((shared, way), driver) in std::mem::take(&mut dispatchers).into_iter().zip(drivers) {
            if let Some(driver) = driver.filter(|driver| !driver.is_closed()) {
                ways.push(driver);
                living.push((shared, way));
            } else if shared.died.load(Ordering::Acquire) {
                let lease = shared.lease.borrow().clone();
                // One that cannot be retired expires.
                let _ = shared.store.retire(&lease).await;
            }
        }
        dispatchers = living;
        let shared: Vec<_> = dispatchers.iter().map(|(shared, _)| Arc::clone(shared)).collect();
        let mut cancel = Vec::new();
        for (heard, driver) in beat(&shared).await.into_iter().zip(&ways) {
            cancel.extend(heard.cancel);
            // One that is behind with its messages hears of the next beat, which says it again.
            let _ = driver.try_send(Message::Beaten(heard.lease, heard.until));
        }
        if !cancel.is_empty() {
            // Whichever has it: what was lent is with another one than the store says.
            for driver in ways {
                let _ = driver.try_send(Message::Cancelled(cancel.clone()));
            }
        }
    }
}

/// Reaps and prunes at each beat, where this node leads. A failed round is repeated at the next beat.
async fn keep_leading(dispatchers: &[Dispatcher], mut duties: Duties) {
    // What the node has only once is with the first dispatcher.
    let Some((shared, _)) = dispatchers.first() else { return };
    let mut sweep = Sweep::default();
    loop {
        if !duties.behind {
            tokio::time::sleep(duties.config.beat).await;
        }
        // It leads under the lease of one that lives.
        let lives = |(_, driver): &&Dispatcher| driver.upgrade().is_some_and(|driver| !driver.is_closed());
        let (leads, _) = dispatchers.iter().find(lives).unwrap_or(&dispatchers[0]);
        if duties.lead(leads).await {
            duties.unfinished = prune(shared, &duties).await.unwrap_or(false);
        }
        if duties.term.is_some() && !duties.behind && !duties.unfinished {
            sweep_for(shared, &mut sweep, duties.config.beat).await;
        }
    }
}

/// Sweeps until nothing is left to do, or for the time of a beat, with the pauses of a pruning.
async fn sweep_for(shared: &Shared, sweep: &mut Sweep, time: Duration) {
    let until = tokio::time::Instant::now() + time;
    loop {
        let began = tokio::time::Instant::now();
        let more = sweep.step(shared).await;
        let now = tokio::time::Instant::now();
        if !more || now >= until {
            return;
        }
        tokio::time::sleep_until((now + (now - began) * PRUNE_PAUSE).min(until)).await;
    }
}

/// Prunes until nothing is left that retention does not keep, or until the term is to be kept again, and says whether
/// something is left; between two batches the store serves others.
async fn prune(shared: &Shared, duties: &Duties) -> hodei_core::Result<bool> {
    let until = tokio::time::Instant::now() + duties.config.beat;
    loop {
        let began = tokio::time::Instant::now();
        let pruned = duties.prune(shared).await?;
        let took = began.elapsed();
        // Slow disks do not hold up the term: what has begun goes on by itself.
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
