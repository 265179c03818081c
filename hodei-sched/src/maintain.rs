//! What a node does beside dispatching: beat for its lease, and, where it leads, reap and prune.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::{join, join_all};
use hodei_core::job::{Epoch, Lease};
use hodei_core::store::{Beat, Pruned, Retention, Round, Rounded, Scope, Store, Term};
use hodei_core::{JobId, Name, Tenant, Timestamp};
use tokio::sync::{mpsc, watch};

use crate::driver::{Message, Shared};
use crate::sweep::Sweep;

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

/// What a heartbeat came to for one dispatcher.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// Which of them.
    pub(crate) dispatcher: usize,
    /// The lease that was beaten for.
    pub(crate) lease: Lease,
    /// Until when, in the machine's time, nobody else takes its jobs; nothing when it was given up.
    pub(crate) until: Option<Timestamp>,
    /// Whether it need not live while it holds nothing.
    pub(crate) may_rest: bool,
    /// The jobs that somebody asked to stop, and under which epoch.
    pub(crate) cancel: Vec<(JobId, Epoch)>,
}

/// The duty, as the last heartbeat found it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lead {
    /// The term under which this node leads.
    pub(crate) term: Option<Term>,
    /// Whether there may be something to reap.
    pub(crate) reapable: bool,
    /// Whether there may be schedules.
    #[cfg(feature = "cron")]
    pub(crate) scheduled: bool,
    /// Whether somebody is known to lead.
    led: bool,
}

impl Lead {
    fn of(rounded: Rounded) -> Self {
        Self {
            term: rounded.term,
            reapable: rounded.reapable,
            #[cfg(feature = "cron")]
            scheduled: rounded.scheduled,
            led: rounded.led,
        }
    }

    /// What is known before the first heartbeat.
    pub(crate) fn under(term: Option<Term>) -> Self {
        Self { term, ..Self::default() }
    }

    /// Whether the first dispatcher has to live for the sake of the duty.
    fn needs(&self) -> bool {
        self.term.is_some() || !self.led
    }
}

/// Says that dispatchers of a node live, and keeps the duty or takes it for the first of them: all in one call. What cannot
/// be said now is said at the next beat: then nothing is returned, and a dispatcher that hears nothing for too long gives
/// itself up. Those that rest are not spoken of.
///
/// Waits for nothing but the store, so that any loop can drive it.
pub(crate) async fn beat(dispatchers: &[Arc<Shared>], lead: &mut Lead) -> Vec<Heard> {
    let Some(first) = dispatchers.first() else { return Vec::new() };
    if let Some(term) = lead.term.take() {
        lead.term = in_a_living_name(&*first.store, dispatchers, term).await;
    }
    let (until, needed) = (first.lives_until(), lead.needs() || first.leads.load(Ordering::Acquire));
    let speaks =
        |(n, shared): &(usize, &Arc<Shared>)| (*n == 0 && needed) || !shared.rests.load(Ordering::Acquire);
    let speak = dispatchers.iter().enumerate().filter(speaks);
    let (numbers, owners): (Vec<usize>, Vec<Lease>) =
        speak.map(|(n, shared)| (n, shared.lease.borrow().clone())).unzip();
    let (duty, ttl) = (Name::literal(DUTY), first.ttl);
    let round = Round { owners: owners.clone(), ttl, duty, term: lead.term.clone() };
    let Ok(mut rounded) = first.store.round(round).await else {
        // What was led before a failure may still be led: every write under it says so.
        *lead = Lead { led: lead.led, ..Lead::under(lead.term.take()) };
        return Vec::new();
    };
    let beats = std::mem::take(&mut rounded.beats);
    *lead = Lead::of(rounded);
    let heard = |((dispatcher, lease), beat): ((usize, Lease), Beat)| Heard {
        dispatcher,
        lease,
        until: beat.alive.then_some(until),
        may_rest: dispatcher > 0 || !needed,
        cancel: beat.cancel,
    };
    numbers.into_iter().zip(owners).zip(beats).map(heard).collect()
}

/// Returns a term of a node unless it was taken in the name of a life that is over: of a dispatcher that has died, or in an earlier
/// life of one. Such a term is given up, to be taken anew, for nobody would be seen to lead.
///
/// A life that is not over is not ended by this: who holds its jobs may be at work on them.
pub(crate) async fn in_a_living_name(
    store: &dyn Store,
    dispatchers: &[Arc<Shared>],
    term: Term,
) -> Option<Term> {
    if dispatchers.iter().any(|shared| *shared.lease.borrow() == term.holder) {
        return Some(term);
    }
    let is_over = store.owners().await.is_ok_and(|living| living.iter().all(|of| of.lease != term.holder));
    if is_over && store.retire(&term.holder).await.is_ok() { None } else { Some(term) }
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
    pauses: Pauses,
}

/// How long prunings pause: half as long from beat to beat while what they leave grows.
#[derive(Debug)]
struct Pauses {
    /// How many times as long as a transaction took the pause behind it is.
    times: u32,
    /// How many jobs had ended when the last pruning left something.
    ended: Option<u64>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { times: PRUNE_PAUSE, ended: None }
    }
}

impl Pauses {
    /// Takes in how many jobs had ended and were still there after a pruning that left something.
    fn left(&mut self, ended: u64) {
        if self.ended.is_some_and(|before| ended >= before) {
            self.times = (self.times / 2).max(1);
        }
        self.ended = Some(ended);
    }
}

impl Duties {
    /// Takes the duty and reaps once, before any work is claimed: what a dead node of this file held comes back first.
    ///
    /// Where the store, or one of several, does not answer just now, the node begins all the same: what it holds back is
    /// reaped with the next beats.
    pub(crate) async fn recover(shared: &Shared, config: Maintenance) -> hodei_core::Result<Self> {
        let lease = shared.lease.borrow().clone();
        let term = shared.store.take_term(&Name::literal(DUTY), &lease, shared.ttl).await?;
        let mut duties =
            Self { config, term, rounds: 0, unfinished: false, behind: false, pauses: Pauses::default() };
        if let Err(error) = duties.reap(shared).await {
            if !error.is_retryable() {
                return Err(error);
            }
            duties.behind = true;
        }
        Ok(duties)
    }

    /// Reaps where the last heartbeat said that there may be something to find; says whether it is time to prune as well.
    ///
    /// What fails now is tried again at the next beat; the store has told its own counters.
    pub(crate) async fn lead(&mut self, shared: &Shared, lead: &Lead) -> bool {
        self.rounds = self.rounds.wrapping_add(1);
        self.term.clone_from(&lead.term);
        if std::mem::take(&mut self.behind) || lead.reapable {
            let _ = self.reap(shared).await;
        }
        self.term.is_some() && !self.behind && (self.unfinished || self.rounds.is_multiple_of(PRUNE_EVERY))
    }

    /// Reaps until nothing is left, or for the time of a beat: the term may be another one by then.
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

    /// Pauses less in the next pruning if more is left than after the one before, and as ever once nothing is left.
    async fn keep_pace(&mut self, shared: &Shared) {
        if !self.unfinished {
            self.pauses = Pauses::default();
        } else if let Ok(counts) = shared.store.counts(&Scope::All).await {
            self.pauses.left(counts.total() - counts.open());
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

/// Is dropped when a node ends: what takes terms takes no more then, and ends by itself when its last call is over. A call that
/// was only forgotten could take a term after the node has retired, and nobody else would lead for as long as that lasts.
pub(crate) type Ends = watch::Sender<()>;

/// Beats, and beside that reaps and prunes where this node leads, until it ends or no driver is left. Nothing that the leader has
/// to do holds up a beat.
pub(crate) async fn run(
    dispatchers: Vec<Dispatcher>,
    duties: Duties,
    tell: watch::Sender<Lead>,
    ends: watch::Receiver<()>,
) {
    let (every, lead) = (duties.config.beat, tell.subscribe());
    tokio::select! {
        () = keep_beating(dispatchers.clone(), every, tell, ends) => {}
        () = keep_leading(&dispatchers, duties, lead) => {}
    }
}

/// This part of the time between two heartbeats passes before the next one, where a dispatcher that rested has to live again.
const HURRY: u32 = 8;

/// Beats for the dispatchers that live, and tells them what came of it; a failed beat is repeated at the next one.
///
/// A driver that has died is beaten for no more: what it held would be stuck for as long as the process lives. Its life ends
/// by time, as its agents expect, who run on alone until then.
async fn keep_beating(
    mut dispatchers: Vec<Dispatcher>,
    every: Duration,
    tell: watch::Sender<Lead>,
    mut ends: watch::Receiver<()>,
) {
    let mut lead = tell.borrow().clone();
    let (mut wait, mut died) = (every, false);
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = ends.changed() => return,
        }
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
            } else {
                died |= shared.died.load(Ordering::Acquire);
            }
        }
        dispatchers = living;
        if std::mem::take(&mut died) {
            for driver in &ways {
                // One that is behind with its messages hears of it at the next beat.
                died |= driver.try_send(Message::Bereaved).is_err();
            }
        }
        let shared: Vec<_> = dispatchers.iter().map(|(shared, _)| Arc::clone(shared)).collect();
        let all = beat(&shared, &mut lead).await;
        // Nobody leads: one that rested has to begin a life for that.
        let vacant = lead.term.is_none() && lead.needs();
        let hurries = vacant && all.first().is_none_or(|heard| heard.until.is_none());
        wait = if hurries { every / HURRY } else { every };
        tell.send_replace(lead.clone());
        let mut cancel = Vec::new();
        for heard in all {
            cancel.extend(heard.cancel);
            if let Some(driver) = ways.get(heard.dispatcher) {
                // One that is behind with its messages hears of the next beat, which says it again.
                let _ = driver.try_send(Message::Beaten(heard.lease, heard.until, heard.may_rest));
            }
        }
        if !cancel.is_empty() {
            // Whichever has it: what was lent is with another one than the store says.
            for driver in ways {
                let _ = driver.try_send(Message::Cancelled(cancel.clone()));
            }
        }
    }
}

/// Reaps and prunes after each beat, where this node leads. A failed round is repeated at the next beat.
async fn keep_leading(dispatchers: &[Dispatcher], mut duties: Duties, mut lead: watch::Receiver<Lead>) {
    // What the node has only once is with the first dispatcher.
    let Some((shared, _)) = dispatchers.first() else { return };
    let mut sweep = Sweep::default();
    loop {
        if !duties.behind && lead.changed().await.is_err() {
            return;
        }
        let now = lead.borrow_and_update().clone();
        if duties.lead(shared, &now).await {
            duties.unfinished = prune(shared, &duties).await.unwrap_or(false);
            duties.keep_pace(shared).await;
        }
        let in_time = !duties.unfinished || duties.rounds.is_multiple_of(PRUNE_EVERY);
        if duties.term.is_some() && !duties.behind && in_time {
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
        tokio::time::sleep_until((now + took * duties.pauses.times).min(until)).await;
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
pub(crate) mod tests {
    use hodei_core::codec::Codecs;
    use hodei_core::store::{Coordination, JobStore, MemoryStore, Served};
    use hodei_core::{OwnerId, SystemClock};

    use super::*;
    use crate::driver::{Common, Pace};
    use crate::herald::Herald;
    use crate::settled::Waiters;

    /// The part of a dispatcher of a node over a store.
    pub(crate) async fn dispatcher(store: &MemoryStore, name: &str) -> Arc<Shared> {
        let herald = Arc::new(Herald { waiters: Waiters::default(), bus: None });
        let common = Common {
            store: Arc::new(store.clone()),
            feed: Arc::new(store.feed(Arc::<Herald>::clone(&herald))),
            herald,
            clock: Arc::new(SystemClock),
            pace: Arc::new(Pace::from(&SystemClock)),
            served: Served::default(),
            codecs: Codecs::default(),
            ttl: Duration::from_secs(60),
            failure: Arc::new(watch::Sender::new(None)),
        };
        let owner = OwnerId::new(name).expect("a name");
        let lease = store.register(&owner, common.ttl).await.expect("it registers");
        Arc::new(common.dispatcher(owner, lease))
    }

    /// It would let its life end, and nobody would be seen to lead what is led in its name.
    #[tokio::test]
    async fn a_dispatcher_in_whose_name_something_is_led_may_not_rest() {
        let store = MemoryStore::new();
        let both = [dispatcher(&store, "a").await, dispatcher(&store, "a.1").await];
        // Somebody else leads this duty.
        let led = || Lead { led: true, ..Lead::default() };
        let rest = async || {
            let heard = beat(&both, &mut led()).await;
            heard.iter().map(|heard| (heard.dispatcher, heard.may_rest)).collect::<Vec<_>>()
        };
        assert_eq!(rest().await, [(0, true), (1, true)]);
        both[0].leads.store(true, Ordering::Release);
        assert_eq!(rest().await, [(0, false), (1, true)]);
        // One that rests already is spoken of, too: it has to begin a life.
        both.iter().for_each(|shared| shared.rests.store(true, Ordering::Release));
        assert_eq!(rest().await, [(0, false)]);
        both[0].leads.store(false, Ordering::Release);
        assert_eq!(rest().await, []);
    }

    #[test]
    fn a_pruning_that_is_outrun_pauses_less_and_less() {
        let mut pauses = Pauses::default();
        pauses.left(1_000);
        assert_eq!(pauses.times, PRUNE_PAUSE, "nothing tells yet whether it grows");
        pauses.left(900);
        assert_eq!(pauses.times, PRUNE_PAUSE, "it becomes less");
        for (ended, times) in [(900, 8), (950, 4), (940, 4), (960, 2), (970, 1), (980, 1)] {
            pauses.left(ended);
            assert_eq!(pauses.times, times, "{ended} are left");
        }
    }
}
