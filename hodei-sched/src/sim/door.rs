//! How nodes and clients reach the store: every call waits where the world lets it wait.
//!
//! The code that calls is the engine's own. Its futures are polled by hand, one at a time; what one waits for is noted
//! here, and the world decides when it goes on, and how.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::job::{Job, Lease, NewJob, Output};
use hodei_core::store::*;
use hodei_core::testkit::history::RecordingStore;
use hodei_core::text::Texts;
use hodei_core::{Clock, Error, ErrorKind, JobId, ManualClock, Name, OwnerId, Result, Tenant, Timestamp};

use super::bug::Bug;
use super::ledger::Ledger;
use super::options::Options;
use super::planted::Planted;

/// What a future waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// That its call reaches the store.
    Call(&'static str),
    /// That the answer comes back.
    Answer(&'static str),
    /// That a time has passed.
    Pause(Duration),
}

/// How it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Go,
    Fail(ErrorKind),
    /// Whoever calls gives up; the call happens later.
    Late,
}

/// A call that happens after whoever made it has given up.
#[derive(Debug)]
pub(super) enum Late {
    Submit(Vec<NewJob>, SubmitOptions),
    Exchange(Exchange),
}

impl Late {
    pub(super) const fn verb(&self) -> &'static str {
        match self {
            Self::Submit(..) => "submit",
            Self::Exchange(_) => "exchange",
        }
    }
}

/// The store, behind the way to it.
#[derive(Debug)]
pub(super) struct Door {
    store: RecordingStore<Planted>,
    clock: Arc<ManualClock>,
    gate: Mutex<Gate>,
    /// Whether calls may come late: then each is copied.
    lateness: bool,
    /// What the store knows at a heartbeat, where it looks.
    ledger: Option<Mutex<Ledger>>,
    /// Whether it takes everybody who asks for the one who leads: the planted bug.
    all_lead: bool,
    /// Until when each owner was told that it lives.
    promises: Mutex<BTreeMap<Lease, Timestamp>>,
}

#[derive(Debug, Default)]
struct Gate {
    want: Option<Want>,
    pass: Option<Pass>,
    late: Option<Late>,
}

impl Door {
    pub(super) fn new(
        store: RecordingStore<Planted>,
        clock: Arc<ManualClock>,
        options: &Options,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            gate: Mutex::default(),
            lateness: options.faults.late > 0,
            ledger: options.looks.then(Mutex::default),
            all_lead: options.bug == Some(Bug::LeadsWithoutTerm),
            promises: Mutex::default(),
        })
    }

    /// Takes the call that is to happen late.
    pub(super) fn take_late(&self) -> Option<Late> {
        self.gate().late.take()
    }

    /// Lets a late call happen; nobody hears the answer.
    pub(super) fn happens(&self, late: Late) {
        match late {
            Late::Submit(jobs, options) => drop(at_once(self.store.submit(jobs, options))),
            Late::Exchange(exchange) => drop(at_once(self.store.exchange(exchange))),
        }
    }

    /// Until when an owner was told that it lives.
    pub(super) fn promised(&self, owner: &Lease) -> Option<Timestamp> {
        self.promises().get(owner).copied()
    }

    fn promises(&self) -> MutexGuard<'_, BTreeMap<Lease, Timestamp>> {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something in the ledger, where there is one.
    fn note(&self, note: impl FnOnce(&mut Ledger)) {
        if let Some(ledger) = &self.ledger {
            note(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Prolongs lives, keeps a term or takes the duty, and looks what there is to do: all in one call.
    async fn rounded(&self, round: Round, ledger: &Mutex<Ledger>) -> Result<Rounded> {
        let Round { owners, ttl, duty, term } = round;
        let first = owners.first().cloned();
        let beats = if owners.is_empty() { Vec::new() } else { self.beaten(owners, ttl).await? };
        let kept = match &term {
            Some(term) => self.store.keep_term(term, ttl).await?,
            None => false,
        };
        let mut term = match first {
            _ if kept => term,
            Some(first) => self.taken(&duty, &first, ttl).await?,
            None => None,
        };
        let store = self.store.inner().inner();
        let scheduled = !at_once(store.schedules(&Scope::All))?.is_empty();
        let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let (led, mut reapable) = (ledger.is_led(&duty, store)?, ledger.is_reapable(store, &self.clock)?);
        if self.all_lead && term.is_none() {
            term = ledger.term(&duty);
            reapable |= term.is_some();
        }
        Ok(Rounded { beats, term, led, reapable, scheduled })
    }

    /// Takes a duty, and notes the term.
    async fn taken(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>> {
        let term = self.store.take_term(duty, holder, ttl).await?;
        self.note(|ledger| ledger.taken(term.as_ref()));
        Ok(term)
    }

    /// Takes back what dead owners hold, and notes when nothing of it is left.
    async fn reaped(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        let reaped = self.store.reap(term, lost_max, limit).await?;
        if let Some(ledger) = self.ledger.as_ref().filter(|_| !reaped.more && !reaped.term_lost) {
            let store = self.store.inner().inner();
            ledger.lock().unwrap_or_else(PoisonError::into_inner).reaped(store)?;
        }
        Ok(reaped)
    }

    /// Registers, and notes what was promised.
    async fn registered(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
        let lease = self.store.register(owner, ttl).await?;
        self.promises().retain(|other, _| other.owner != lease.owner);
        self.promises().insert(lease.clone(), self.clock.now().saturating_add(ttl));
        self.note(|ledger| ledger.registered(&lease));
        Ok(lease)
    }

    /// Beats, and notes what was promised.
    async fn beaten(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>> {
        let beats = self.store.beat(owners.clone(), ttl).await?;
        let until = self.clock.now().saturating_add(ttl);
        let alive = owners.into_iter().zip(&beats).filter(|(_, beat)| beat.alive);
        self.promises().extend(alive.map(|(owner, _)| (owner, until)));
        Ok(beats)
    }

    /// Retires, which takes the promise back.
    async fn retired(&self, owner: &Lease) -> Result<()> {
        self.promises().remove(owner);
        self.store.retire(owner).await
    }

    pub(super) fn store(&self) -> &RecordingStore<Planted> {
        &self.store
    }

    /// Lets a future begin, or go on as `pass` says, until it waits for something or is done.
    pub(super) fn poll<T>(&self, future: &mut BoxFuture<T>, pass: Option<Pass>) -> Result<T, Want> {
        self.gate().pass = pass;
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Ok(done),
            // One that waits for nothing the world knows of would never go on: it is let go on at once.
            Poll::Pending => Err(self.gate().want.take().unwrap_or(Want::Pause(Duration::ZERO))),
        }
    }

    /// Waits for a time to pass.
    pub(super) async fn pause(&self, time: Duration) {
        self.wait(Want::Pause(time)).await;
    }

    async fn wait(&self, want: Want) -> Pass {
        let mut asked = false;
        poll_fn(|_| {
            let mut gate = self.gate();
            if !std::mem::replace(&mut asked, true) {
                gate.want = Some(want);
                return Poll::Pending;
            }
            gate.pass.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Carries a call to the store and its answer back.
    async fn meet<R>(&self, verb: &'static str, call: impl Future<Output = Result<R>> + Send) -> Result<R> {
        self.meet_or_late(verb, call, None).await
    }

    async fn meet_or_late<R>(
        &self,
        verb: &'static str,
        call: impl Future<Output = Result<R>> + Send,
        late: Option<Late>,
    ) -> Result<R> {
        match self.wait(Want::Call(verb)).await {
            Pass::Go => {}
            Pass::Fail(kind) => return Err(Error::new(kind, verb)),
            Pass::Late => {
                self.gate().late = late;
                return Err(Error::new(ErrorKind::Indeterminate, verb));
            }
        }
        let answer = call.await;
        match self.wait(Want::Answer(verb)).await {
            Pass::Go => answer,
            Pass::Fail(kind) => Err(Error::new(kind, verb)),
            Pass::Late => Err(Error::new(ErrorKind::Indeterminate, verb)),
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A future that the world polls.
pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs a call of a store that never waits.
pub(super) fn at_once<R>(call: impl Future<Output = Result<R>>) -> Result<R> {
    let mut call = std::pin::pin!(call);
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => Err(Error::new(ErrorKind::Bug, "sim.at_once")),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl JobStore for Door {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>> {
        self.note(|ledger| ledger.submitted(&jobs));
        let late = self.lateness.then(|| Late::Submit(jobs.clone(), options));
        self.meet_or_late("submit", self.store.submit(jobs, options), late).await
    }

    async fn lanes(&self, served: &Served) -> Result<Lanes> {
        self.meet("lanes", self.store.lanes(served)).await
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged> {
        self.note(|ledger| {
            let steps = exchange.transitions.iter().map(|transition| &transition.step);
            ledger.submitted(steps.flat_map(|step| match step {
                Move::Finished(finish) => finish.spawn.as_slice(),
                _ => &[],
            }));
        });
        let late = self.lateness.then(|| Late::Exchange(exchange.clone()));
        self.meet_or_late("exchange", self.store.exchange(exchange), late).await
    }

    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        self.meet("request_cancel", self.store.request_cancel(scope, jobs)).await
    }

    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>> {
        self.meet("leases_of", self.store.leases_of(owner)).await
    }

    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>> {
        self.meet("redrive", self.store.redrive(scope, jobs)).await
    }

    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        self.meet("reap", self.reaped(term, lost_max, limit)).await
    }

    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired> {
        self.meet("fire", self.store.fire(term, tenant, schedule, at)).await
    }

    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        self.meet("prune", self.store.prune(term, retention, limit)).await
    }

    async fn get_many(
        &self,
        scope: &Scope,
        jobs: Vec<JobId>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Job>>> {
        self.meet("get_many", self.store.get_many(scope, jobs, consistency)).await
    }

    async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        self.meet("query", self.store.query(scope, query)).await
    }

    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream {
        self.store.stream(scope, query)
    }

    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        self.meet("outputs", self.store.outputs(scope, jobs)).await
    }

    async fn counts(&self, scope: &Scope) -> Result<Counts> {
        self.meet("counts", self.store.counts(scope)).await
    }

    async fn queue_counts(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>> {
        self.meet("queue_counts", self.store.queue_counts(scope, query)).await
    }

    async fn changes(&self, scope: &Scope, after: Option<Cursor>, limit: usize) -> Result<ChangePage> {
        self.meet("changes", self.store.changes(scope, after, limit)).await
    }

    async fn before(&self, job: &Job, most: u64) -> Result<Before> {
        self.meet("before", self.store.before(job, most)).await
    }

    async fn changes_end(&self) -> Result<Cursor> {
        self.meet("changes_end", self.store.changes_end()).await
    }

    fn wakeups(&self) -> Wakeups {
        self.store.wakeups()
    }

    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        self.store.feed(sink)
    }

    async fn verify_indexes(&self) -> Result<Vec<String>> {
        self.meet("verify_indexes", self.store.verify_indexes()).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Coordination for Door {
    async fn register(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
        self.meet("register", self.registered(owner, ttl)).await
    }

    async fn beat(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>> {
        self.meet("beat", self.beaten(owners, ttl)).await
    }

    async fn retire(&self, owner: &Lease) -> Result<()> {
        self.meet("retire", self.retired(owner)).await
    }

    async fn take_term(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>> {
        self.meet("take_term", self.taken(duty, holder, ttl)).await
    }

    async fn keep_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        self.meet("keep_term", self.store.keep_term(term, ttl)).await
    }

    async fn round(&self, round: Round) -> Result<Rounded> {
        match &self.ledger {
            Some(ledger) => self.meet("round", self.rounded(round, ledger)).await,
            None => round_by_verbs(self, round).await,
        }
    }

    async fn owners(&self) -> Result<Vec<Living>> {
        self.meet("owners", self.store.owners()).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.meet("now", self.store.now()).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Policies for Door {
    async fn set_queue(&self, policy: QueuePolicy) -> Result<()> {
        self.meet("set_queue", self.store.set_queue(policy)).await
    }

    async fn queues(&self, scope: &Scope) -> Result<Vec<QueuePolicy>> {
        self.meet("queues", self.store.queues(scope)).await
    }

    async fn queue(&self, tenant: &Tenant, queue: &Name) -> Result<Option<QueuePolicy>> {
        self.meet("queue", self.store.queue(tenant, queue)).await
    }

    async fn set_limit(&self, limit: Limit) -> Result<()> {
        self.meet("set_limit", self.store.set_limit(limit)).await
    }

    async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        self.meet("remove_limit", self.store.remove_limit(of)).await
    }

    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        self.meet("limits", self.store.limits(scope)).await
    }

    async fn limits_on(&self, tenant: &Tenant, queue: &Name, keys: &Texts) -> Result<Vec<LimitUse>> {
        self.meet("limits_on", self.store.limits_on(tenant, queue, keys)).await
    }

    async fn set_schedule(&self, schedule: Schedule) -> Result<()> {
        self.meet("set_schedule", self.store.set_schedule(schedule)).await
    }

    async fn remove_schedule(&self, tenant: &Tenant, name: &Name) -> Result<bool> {
        self.meet("remove_schedule", self.store.remove_schedule(tenant, name)).await
    }

    async fn schedules(&self, scope: &Scope) -> Result<Vec<Schedule>> {
        self.meet("schedules", self.store.schedules(scope)).await
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(verb) => write!(f, "{verb}"),
            Self::Answer(verb) => write!(f, "{verb}'s answer"),
            Self::Pause(time) => write!(f, "{time:?}"),
        }
    }
}
