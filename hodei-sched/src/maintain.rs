//! What a node does beside dispatching: beat for its lease, and, where it leads, reap and prune.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::{join, join_all};
use hodei_core::store::{Retention, Term};
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

/// The figures of the maintenance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maintenance {
    pub(crate) beat: Duration,
    pub(crate) lost_max: u16,
    pub(crate) retention: Retention,
}

/// Takes the duty and reaps once, before any work is claimed: what a dead node of this file held comes back first.
pub(crate) async fn recover(shared: &Shared, config: Maintenance) -> hodei_core::Result<Option<Term>> {
    let lease = shared.lease.borrow().clone();
    let term = shared.store.take_term(&Name::literal(DUTY), &lease, shared.ttl).await?;
    if let Some(term) = &term {
        reap(shared, term, config).await?;
    }
    Ok(term)
}

/// Beats, reaps and prunes until it is aborted. A failed round is repeated at the next beat.
pub(crate) async fn run(
    shared: Arc<Shared>,
    config: Maintenance,
    mut term: Option<Term>,
    driver: mpsc::WeakSender<Message>,
) {
    let (mut rounds, mut unfinished) = (0_u32, false);
    loop {
        tokio::time::sleep(config.beat).await;
        let Some(driver) = driver.upgrade() else { return };
        beat(&shared, &driver).await;
        term = keep(&shared, term).await;
        rounds = rounds.wrapping_add(1);
        if let Some(term) = &term {
            // What fails now is tried again at the next beat; the store has told its own counters.
            let _ = reap(&shared, term, config).await;
            if unfinished || rounds.is_multiple_of(PRUNE_EVERY) {
                unfinished = prune(&shared, term, config).await.unwrap_or(false);
            }
        }
    }
}

/// Prunes until nothing is left that retention does not keep, or until the next beat is due, and says whether something
/// is left; between two batches the store serves others.
async fn prune(shared: &Shared, term: &Term, config: Maintenance) -> hodei_core::Result<bool> {
    let until = tokio::time::Instant::now() + config.beat;
    loop {
        let began = tokio::time::Instant::now();
        let pruned = shared.store.prune(term, config.retention, PRUNE_BATCH).await?;
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

async fn beat(shared: &Shared, driver: &mpsc::Sender<Message>) {
    let lease = shared.lease.borrow().clone();
    let Ok(beats) = shared.store.beat(vec![lease], shared.ttl).await else { return };
    let cancel: Vec<_> = beats.into_iter().flat_map(|beat| beat.cancel).map(|(job, _)| job).collect();
    if !cancel.is_empty() {
        // A driver that is gone has nothing left to cancel.
        let _ = driver.send(Message::Cancelled(cancel)).await;
    }
}

async fn keep(shared: &Shared, term: Option<Term>) -> Option<Term> {
    if let Some(term) = term
        && shared.store.keep_term(&term, shared.ttl).await.unwrap_or(false)
    {
        return Some(term);
    }
    let lease = shared.lease.borrow().clone();
    shared.store.take_term(&Name::literal(DUTY), &lease, shared.ttl).await.ok().flatten()
}

async fn reap(shared: &Shared, term: &Term, config: Maintenance) -> hodei_core::Result<()> {
    loop {
        let reaped = shared.store.reap(term, config.lost_max, BATCH).await?;
        if reaped.term_lost || !reaped.more {
            return Ok(());
        }
    }
}
