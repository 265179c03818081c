//! A store under test, and the short ways to use it.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::fixture::{Fixture, Setup};
use super::jobs;
use crate::id::{JobId, OwnerId};
use crate::job::{Job, Lease, NewJob, Priority, State};
pub(super) use crate::store::together;
use crate::store::{
    Applied, CancelReply, Change, ChangeLog, ChangeSink, Claimed, Consistency, Exchange, Exchanged, Feed,
    Fired, Lane, Lanes, Move, Pick, Pruned, Reaped, Redriven, Retention, Scope, Served, Store, SubmitOptions,
    Submitted, Term, Transition,
};
use crate::time::Timestamp;

/// How long the suite's owners and terms live.
pub(super) const LIFE: Duration = Duration::from_secs(60);

/// A store under test. Every property gets one that is empty.
pub struct Env {
    fixture: Box<dyn Fixture>,
    store: Arc<dyn Store>,
    worker: Option<Lease>,
    pub(super) seen: Seen,
    pub(super) ear: Arc<Ear>,
    feed: Feed,
}

/// A sink that keeps what it is told.
#[derive(Debug, Default)]
pub(super) struct Ear(Mutex<Vec<Change>>);

impl Ear {
    /// Returns what it was told so far.
    pub(super) fn heard(&self) -> Vec<Change> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ChangeSink for Ear {
    fn committed(&self, changes: &[Change]) {
        assert!(!changes.is_empty(), "a commit without changes is not told");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(changes);
    }
}

/// What the replies of a store have told, for the audit.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The changes of all replies, in their order.
    pub(super) changes: Vec<Change>,
    /// What schedules have fired; the reply of `fire` carries no change.
    pub(super) fired: HashSet<JobId>,
    /// Whether the order of the replies is that of the commits; not when calls ran side by side.
    pub(super) unordered: bool,
    /// Whether something was pruned.
    pub(super) pruned: bool,
    /// Which changes the store records.
    pub(super) change_log: ChangeLog,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Env {
    /// Opens a store in the default setup.
    ///
    /// # Panics
    ///
    /// When the fixture cannot.
    ///
    /// # Cancel safety
    ///
    /// A dropped call takes the fixture with it.
    pub async fn open(mut fixture: Box<dyn Fixture>) -> Self {
        let store = fixture.open(Setup::default()).await.expect("a store opens in the default setup");
        let ear = Arc::<Ear>::default();
        let feed = store.feed(Arc::<Ear>::clone(&ear));
        Self { fixture, store, worker: None, seen: Seen::default(), ear, feed }
    }

    /// Goes on with an empty store in another setup; `false` when there is none.
    pub(super) async fn set_up(&mut self, setup: Setup) -> bool {
        let Some(store) = self.fixture.open(setup).await else { return false };
        self.store = store;
        self.worker = None;
        self.seen = Seen { change_log: setup.change_log, ..Seen::default() };
        self.ear = Arc::default();
        self.listen();
        true
    }

    /// Has the ear told what the store commits from now on.
    fn listen(&mut self) {
        self.feed = self.store.feed(Arc::<Ear>::clone(&self.ear));
    }

    /// Closes the store and opens it again; `false` when it keeps nothing, and then it is empty.
    pub(super) async fn reopen(&mut self) -> bool {
        let durable = self.store.capabilities().durable;
        let placeholder: Arc<dyn Store> = Arc::new(crate::store::MemoryStore::new());
        let store = std::mem::replace(&mut self.store, placeholder);
        match self.fixture.reopen(store).await {
            Some(store) => {
                self.store = store;
                self.worker = None;
                self.listen();
                true
            }
            None => {
                assert!(!durable, "a durable store can be opened again");
                assert!(self.set_up(Setup::default()).await, "a store opens in the default setup");
                false
            }
        }
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(super) fn shared(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.fixture.now()
    }

    /// Returns the time that is so far ahead.
    pub(super) fn ahead(&self, by: Duration) -> Timestamp {
        self.now().saturating_add(by)
    }

    pub(super) async fn advance(&mut self, by: Duration) {
        self.fixture.advance(by).await;
    }

    pub(super) async fn submit(&mut self, jobs: Vec<NewJob>) -> Vec<Submitted> {
        self.submit_as(jobs, SubmitOptions::each()).await
    }

    pub(super) async fn submit_as(&mut self, jobs: Vec<NewJob>, options: SubmitOptions) -> Vec<Submitted> {
        let asked = jobs.len();
        let done = self.store.submit(jobs, options).await.expect("submit");
        assert_eq!(done.replies.len(), asked, "one reply per job");
        self.seen.changes.extend(done.changes);
        done.replies
    }

    /// Submits a job that is new.
    pub(super) async fn add(&mut self, job: NewJob) -> JobId {
        let id = job.id;
        assert_eq!(self.submit(vec![job]).await, [Submitted::New(id)]);
        id
    }

    /// Submits jobs that are all new.
    pub(super) async fn add_all(&mut self, jobs: Vec<NewJob>) -> Vec<JobId> {
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let expected: Vec<Submitted> = ids.iter().copied().map(Submitted::New).collect();
        assert_eq!(self.submit(jobs).await, expected);
        ids
    }

    /// Registers an owner for [`LIFE`].
    pub(super) async fn owner(&self, owner: &'static str) -> Lease {
        let owner = OwnerId::from(jobs::name(owner));
        self.store.register(&owner, LIFE).await.expect("register")
    }

    /// Returns an owner that outlives every test.
    pub(super) async fn worker(&mut self) -> Lease {
        if let Some(worker) = &self.worker {
            return worker.clone();
        }
        let owner = OwnerId::from(jobs::name("worker"));
        let lease = self.store.register(&owner, 10_000 * jobs::HOUR).await.expect("register");
        self.worker = Some(lease.clone());
        lease
    }

    pub(super) async fn exchange(
        &mut self,
        owner: &Lease,
        transitions: Vec<Transition>,
        picks: Vec<Pick>,
    ) -> Exchanged {
        let asked = transitions.len();
        let exchange = Exchange { owner: owner.clone(), transitions, picks };
        let done = self.store.exchange(exchange).await.expect("exchange");
        assert_eq!(done.applied.len(), asked, "one reply per transition");
        self.seen.changes.extend_from_slice(&done.changes);
        done
    }

    /// Reports transitions and claims nothing.
    pub(super) async fn report(&mut self, transitions: Vec<Transition>) -> Vec<Applied> {
        let worker = self.worker().await;
        self.exchange(&worker, transitions, Vec::new()).await.applied
    }

    /// Reports what happened to a claimed job.
    pub(super) async fn tell(&mut self, claimed: &Claimed, step: Move) -> Applied {
        self.report(vec![jobs::of(claimed, step)]).await[0]
    }

    /// Claims from a lane, at any level.
    pub(super) async fn claim(&mut self, owner: &Lease, lane: &Lane, n: u32) -> Vec<Claimed> {
        let pick = Pick { lane: lane.clone(), floor: Priority::MIN, ceiling: Priority::MAX, n };
        self.exchange(owner, Vec::new(), vec![pick]).await.claimed
    }

    /// Claims from the lane of a job, at any level.
    pub(super) async fn claim_beside(&mut self, owner: &Lease, id: JobId, n: u32) -> Vec<Claimed> {
        let lane = Lane::of(&self.get(id).await);
        self.claim(owner, &lane, n).await
    }

    /// Claims a job that is the first of its lane.
    pub(super) async fn take(&mut self, owner: &Lease, id: JobId) -> Claimed {
        let mut claimed = self.claim_beside(owner, id, 1).await;
        assert_eq!(jobs::ids(&claimed), [id], "it is the first of its lane");
        claimed.remove(0)
    }

    /// Claims a job that is the first of its lane for the worker that never dies.
    pub(super) async fn hold(&mut self, id: JobId) -> Claimed {
        let worker = self.worker().await;
        self.take(&worker, id).await
    }

    /// Claims a job, starts it and reports how it ended.
    pub(super) async fn run(&mut self, id: JobId, step: Move) -> Claimed {
        let held = self.hold(id).await;
        let steps = vec![jobs::of(&held, jobs::started()), jobs::of(&held, step)];
        assert_eq!(self.report(steps).await, [Applied::Done, Applied::Done]);
        held
    }

    /// Makes a job that runs under the worker that never dies.
    pub(super) async fn running(&mut self, job: NewJob) -> Claimed {
        let id = self.add(job).await;
        let held = self.hold(id).await;
        assert_eq!(self.tell(&held, jobs::started()).await, Applied::Done);
        held
    }

    pub(super) async fn find(&self, id: JobId) -> Option<Job> {
        let found = self.store.get_many(&Scope::All, vec![id], Consistency::Latest).await.expect("get");
        assert_eq!(found.len(), 1, "one reply per id");
        found.into_iter().next().flatten()
    }

    pub(super) async fn get(&self, id: JobId) -> Job {
        self.find(id).await.expect("the job is stored")
    }

    pub(super) async fn state(&self, id: JobId) -> State {
        self.get(id).await.state
    }

    /// Returns what is ready, the heads by lane.
    pub(super) async fn lanes(&self) -> Lanes {
        let mut lanes = self.store.lanes(&Served::default()).await.expect("lanes");
        lanes.heads.sort_by(|a, b| a.lane.cmp(&b.lane));
        lanes
    }

    /// Returns what is ready at every level, the heads by lane, the highest level of each first.
    pub(super) async fn levels(&self) -> Lanes {
        let served = Served { every_level: true, ..Served::default() };
        let mut lanes = self.store.lanes(&served).await.expect("lanes");
        lanes.heads.sort_by(|a, b| a.lane.cmp(&b.lane).then(b.level.cmp(&a.level)));
        lanes
    }

    pub(super) async fn held_by(&self, owner: &Lease) -> Vec<JobId> {
        jobs::ids(&self.store.leases_of(owner).await.expect("leases_of"))
    }

    pub(super) async fn cancel(&mut self, ids: &[JobId]) -> Vec<CancelReply> {
        let done = self.store.request_cancel(&Scope::All, ids.to_vec()).await.expect("cancel");
        self.seen.changes.extend(done.changes);
        done.replies
    }

    pub(super) async fn redrive(&mut self, ids: &[JobId]) -> Vec<Redriven> {
        let done = self.store.redrive(&Scope::All, ids.to_vec()).await.expect("redrive");
        self.seen.changes.extend(done.changes);
        done.replies
    }

    /// Takes the duty of maintenance for an owner of its own.
    pub(super) async fn term(&self) -> Term {
        let leader = self.owner("leader").await;
        let term = self.store.take_term(&jobs::name("maintain"), &leader, 10_000 * jobs::HOUR).await;
        term.expect("take_term").expect("nobody leads")
    }

    pub(super) async fn reap(&mut self, term: &Term, limit: usize) -> Reaped {
        let reaped = self.store.reap(term, jobs::LOST_MAX, limit).await.expect("reap");
        self.seen.changes.extend_from_slice(&reaped.changes);
        reaped
    }

    pub(super) async fn prune(&mut self, term: &Term, retention: Retention, limit: usize) -> Pruned {
        self.seen.pruned = true;
        let pruned = self.store.prune(term, retention, limit).await.expect("prune");
        assert_eq!(pruned.gone.len() as u64, pruned.jobs, "those that went are named");
        pruned
    }

    /// Fires the schedule of the default tenant.
    pub(super) async fn fire(&mut self, term: &Term, schedule: &'static str, at: Timestamp) -> Fired {
        let tenant = crate::id::Tenant::default();
        let fired = self.store.fire(term, &tenant, &jobs::name(schedule), at).await.expect("fire");
        if let Fired::New(id) = fired {
            self.seen.fired.insert(id);
        }
        fired
    }
}

/// A future that a property waits for.
pub type Run<'e> = Pin<Box<dyn Future<Output = ()> + Send + 'e>>;
