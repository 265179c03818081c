//! Nodes that share a database: each submits, claims, runs, settles, beats and reaps until it is told to stop, through
//! whatever happens to the server.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hodei_core::job::{Epoch, Finish, Lease, NewJob, Output, Priority};
use hodei_core::store::{
    Applied, Claimed, Coordination, Exchange, JobStore, Limit, LimitOf, Move, Pick, Policies, Rate, Scope,
    Served, SubmitOptions, Submitted, Term, Transition,
};
use hodei_core::testkit::history::{Bounds, Recorder, RecordingStore, Report, Run, check_within};
use hodei_core::testkit::typical_spec;
use hodei_core::{Error, ErrorKind, JobId, Name, OwnerId, Result, Tenant};
use hodei_store_pg::{PgStore, PgStoreBuilder};

/// How long an owner lives without a beat.
pub(super) const TTL: Duration = Duration::from_secs(2);
/// How long anything may take that must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How many jobs a node claims at once from a lane.
const BATCH: u32 = 4;
/// How often a job may be lost: a test loses more than a day of work does.
const LOST_MAX: u16 = 1_000;
/// How many jobs with the limited key may be leased at once.
const LIMIT: u32 = 3;

pub(super) type Store = RecordingStore<PgStore>;

/// What the nodes share.
#[derive(Debug, Default)]
struct Shared {
    /// Nobody submits any more.
    closing: AtomicBool,
    /// Everybody stops.
    over: AtomicBool,
    acknowledged: AtomicU64,
    settled: AtomicU64,
    /// How often calls failed, by kind.
    failures: Mutex<BTreeMap<String, u64>>,
}

/// Nodes at work.
pub(super) struct Fleet {
    pub(super) recorder: Recorder,
    shared: Arc<Shared>,
    stores: Vec<Arc<Store>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) acknowledged: u64,
    pub(super) settled: u64,
    pub(super) failures: BTreeMap<String, u64>,
}

impl Fleet {
    /// Starts a node for each builder. Every node submits until it is told otherwise.
    pub(super) async fn start(builders: impl IntoIterator<Item = PgStoreBuilder>) -> Self {
        let (recorder, shared) = (Recorder::new(), Arc::<Shared>::default());
        let mut fleet = Self { recorder, shared, stores: Vec::new(), tasks: Vec::new() };
        for builder in builders {
            let store = builder.connect().await.expect("the store opens");
            fleet.stores.push(Arc::new(RecordingStore::new(store, fleet.recorder.clone())));
        }
        fleet.pace(Rate::new(1_000, Duration::from_secs(1)).burst(5)).await;
        for (n, store) in fleet.stores.iter().enumerate() {
            let node = Node {
                name: format!("node-{n}"),
                store: Arc::clone(store),
                shared: Arc::clone(&fleet.shared),
            };
            fleet.tasks.push(tokio::spawn(node.clone().submits()));
            fleet.tasks.push(tokio::spawn(node.works()));
        }
        fleet
    }

    /// Gives the limited key another rate.
    pub(super) async fn pace(&self, rate: Rate) {
        let limit = Limit::key(Tenant::default(), Name::literal("scarce"), LIMIT).rate(rate);
        self.stores[0].set_limit(limit).await.expect("the server is well");
    }

    pub(super) fn settled(&self) -> u64 {
        self.shared.settled.load(Ordering::SeqCst)
    }

    /// Waits until so many more jobs were settled.
    pub(super) async fn progress(&self, jobs: u64) {
        let goal = self.settled() + jobs;
        let (mut settled, mut end) = (self.settled(), Instant::now() + PATIENCE);
        while settled < goal {
            if self.settled() > settled {
                (settled, end) = (self.settled(), Instant::now() + PATIENCE);
            }
            assert!(Instant::now() < end, "no progress: {:?}", self.shared);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets the nodes finish all work, reads the whole store, and holds the history to the guarantees.
    pub(super) async fn finish(mut self) -> Outcome {
        self.shared.closing.store(true, Ordering::SeqCst);
        let (mut settled, mut end) = (self.settled(), Instant::now() + PATIENCE);
        while open(&self.stores[0]).await > 0 {
            if self.settled() > settled {
                (settled, end) = (self.settled(), Instant::now() + PATIENCE);
            }
            assert!(Instant::now() < end, "work is left: {:?}\n{}", self.shared, left(&self.stores[0]).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.shared.over.store(true, Ordering::SeqCst);
        for task in self.tasks.drain(..) {
            task.await.expect("a node panics never");
        }
        let report = self.held().await;
        assert!(report.is_clean(), "{report}");
        let failures = self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let acknowledged = self.shared.acknowledged.load(Ordering::SeqCst);
        Outcome { acknowledged, settled: self.settled(), failures }
    }

    async fn held(&self) -> Report {
        let store = &self.stores[0];
        let end = Instant::now() + PATIENCE;
        while let Err(error) = store.survey().await {
            assert!(error.is_retryable() && Instant::now() < end, "{error}");
        }
        assert_eq!(store.inner().verify_indexes().await.expect("the server is well"), Vec::<String>::new());
        let nodes = self.stores.len() as u64;
        check_within(&self.recorder.history(), Bounds { overtaken: nodes * nodes * u64::from(BATCH) })
    }
}

async fn open(store: &Store) -> u64 {
    // Not recorded: it is a look from outside.
    store.inner().counts(&Scope::All).await.map_or(1, |counts| counts.open())
}

/// What is left, for people.
async fn left(store: &Store) -> String {
    let store = store.inner();
    let lanes = store.lanes(&Served::default()).await.map(|lanes| lanes.heads);
    let depths = lanes.map(|heads| heads.iter().map(|head| (head.depth, head.level)).collect::<Vec<_>>());
    format!(
        "{:?}\nlimits {:?}\nlanes {depths:?}",
        store.counts(&Scope::All).await,
        store.limits(&Scope::All).await
    )
}

#[derive(Clone)]
struct Node {
    name: String,
    store: Arc<Store>,
    shared: Arc<Shared>,
}

/// What a node holds.
struct Held {
    lease: Lease,
    runs: BTreeMap<JobId, (Epoch, Run)>,
    /// What it still has to tell.
    told: Vec<Transition>,
    term: Option<Term>,
    beaten: Instant,
}

impl Node {
    fn failed(&self, error: &Error) {
        let mut failures = self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures.entry(format!("{:?}", error.kind())).or_default() += 1;
        assert!(error.is_retryable(), "a fault of the server is told as one: {error:?}");
    }

    /// Repeats a call until it is answered.
    async fn again<R, F: Future<Output = Result<R>>>(&self, mut call: impl FnMut() -> F) -> R {
        let end = Instant::now() + PATIENCE;
        loop {
            match call().await {
                Ok(reply) => return reply,
                Err(error) => self.failed(&error),
            }
            assert!(Instant::now() < end, "{}: the server never answers", self.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn submits(self) {
        let mut n = 0_u64;
        while !self.shared.closing.load(Ordering::SeqCst) {
            n += 1;
            if n.is_multiple_of(16) {
                self.limits(n / 16).await;
            }
            let jobs: Vec<NewJob> = (0..=n % 3).map(|m| self.job(n, m)).collect();
            let done = self.again(|| self.store.submit(jobs.clone(), SubmitOptions::each())).await;
            for (job, reply) in jobs.iter().zip(done.replies) {
                assert!(
                    matches!(reply, Submitted::New(id) | Submitted::Existing(id) if id == job.id),
                    "{reply:?}"
                );
            }
            self.shared.acknowledged.fetch_add(jobs.len() as u64, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Sets a limit of a queue, of a tenant or of all, and removes it the next time.
    async fn limits(&self, n: u64) {
        let own = Tenant::default;
        let kinds = [LimitOf::All, LimitOf::Tenant(own()), LimitOf::Queue(own(), Name::literal("default"))];
        let of = &kinds[usize::try_from(n / 2 % 3).expect("few")];
        if n.is_multiple_of(2) {
            self.again(|| self.store.set_limit(Limit::new(of.clone(), 3 * LIMIT))).await;
        } else {
            self.again(|| self.store.remove_limit(of)).await;
        }
    }

    fn job(&self, n: u64, m: u64) -> NewJob {
        let spec = typical_spec();
        let spec = match (m, n % 4) {
            (0, _) => spec.limited_by("scarce"),
            (1, 0) => spec.sequence(format!("line-{}", n / 4 % 8)),
            _ => spec,
        };
        let job = NewJob::new(spec.build().expect("a valid spec"));
        if n.is_multiple_of(5) { job.unique(format!("{}-{n}-{m}", self.name)) } else { job }
    }

    async fn register(&self) -> Held {
        let owner = OwnerId::new(&self.name).expect("a name");
        let lease = self.again(|| self.store.register(&owner, TTL)).await;
        Held { lease, runs: BTreeMap::new(), told: Vec::new(), term: None, beaten: Instant::now() }
    }

    async fn works(self) {
        let mut held = self.register().await;
        while !self.shared.over.load(Ordering::SeqCst) {
            if held.beaten.elapsed() > TTL / 8 && !self.beats(&mut held).await {
                held = self.register().await;
                continue;
            }
            let lost = self.exchanges(&mut held).await;
            if lost {
                held = self.register().await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Beats, and reaps where it leads; whether it lives.
    async fn beats(&self, held: &mut Held) -> bool {
        held.beaten = Instant::now();
        let beats = self.again(|| self.store.beat(vec![held.lease.clone()], TTL)).await;
        let duty = Name::literal("upkeep");
        let term = match held.term.take() {
            Some(term) => self.again(|| self.store.keep_term(&term, TTL)).await.then_some(term),
            None => self.again(|| self.store.take_term(&duty, &held.lease, TTL)).await,
        };
        if let Some(term) = term {
            let reaped = self.again(|| self.store.reap(&term, LOST_MAX, 100)).await;
            held.term = (!reaped.term_lost).then_some(term);
        }
        // A call whose connection was cut may go on in the server after `leases_of` was answered: what it claimed then is
        // found with the next beat.
        let leases = self.again(|| self.store.leases_of(&held.lease)).await;
        leases.iter().for_each(|claim| self.begins(held, claim));
        beats[0].alive
    }

    /// Tells what it has to tell, claims, and begins and ends runs; whether it is held for dead.
    async fn exchanges(&self, held: &mut Held) -> bool {
        let served = Served::default();
        let lanes = self.again(|| self.store.lanes(&served)).await;
        let pick = |lane| Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n: BATCH };
        let picks = lanes.heads.into_iter().map(|head| pick(head.lane)).collect();
        let transitions = std::mem::take(&mut held.told);
        let exchange = Exchange { owner: held.lease.clone(), transitions, picks };
        let mut claimed = Vec::new();
        let end = Instant::now() + PATIENCE;
        let done = loop {
            match self.store.exchange(exchange.clone()).await {
                Ok(done) => break done,
                Err(error) => {
                    self.failed(&error);
                    assert!(Instant::now() < end, "{}: no exchange is answered", self.name);
                    // What was claimed without a reply is found here.
                    claimed = self.again(|| self.store.leases_of(&held.lease)).await;
                }
            }
        };
        // What was held after a lost reply comes first: some of it may have ended with the exchange that was answered.
        claimed.iter().for_each(|claim| self.begins(held, claim));
        for (transition, applied) in exchange.transitions.iter().zip(&done.applied) {
            self.heard(held, transition, *applied);
        }
        done.claimed.iter().for_each(|claim| self.begins(held, claim));
        done.owner_lost
    }

    /// Begins a run, unless it is under way.
    fn begins(&self, held: &mut Held, claim: &Claimed) {
        let (job, epoch) = (claim.job.id, claim.job.epoch);
        if held.runs.get(&job).is_none_or(|(known, _)| *known != epoch) {
            // A run of an earlier epoch has lost its lease: it ends before the next begins.
            drop(held.runs.remove(&job));
            let run = self.store.recorder().executed(job, epoch, &held.lease);
            held.runs.insert(job, (epoch, run));
            held.told.push(Transition { job, epoch, step: Move::Started { lease: None } });
        }
    }

    fn heard(&self, held: &mut Held, transition: &Transition, applied: Applied) {
        let Transition { job, epoch, step } = transition;
        match (applied, step) {
            (Applied::Done | Applied::AlreadyApplied, Move::Started { .. }) => {
                let step = Move::Finished(Box::new(Finish::succeeded(Output::none())));
                held.told.push(Transition { job: *job, epoch: *epoch, step });
            }
            (Applied::Done | Applied::AlreadyApplied, _) => {
                held.runs.remove(job);
                self.shared.settled.fetch_add(1, Ordering::SeqCst);
            }
            (Applied::LeaseLost { .. }, _) => drop(held.runs.remove(job)),
            // Nobody knows whether it happened: it is told again.
            (Applied::Unavailable, _) => held.told.push(transition.clone()),
            (other, _) => panic!("{}: {other:?} to {transition:?}", self.name),
        }
    }
}

/// Says what an outcome was.
impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { acknowledged, settled, failures } = self;
        write!(f, "{acknowledged} jobs acknowledged, 0 lost; {settled} settled; failed calls: {failures:?}")
    }
}

/// How often calls failed so that nobody knew what had happened.
impl Outcome {
    pub(super) fn unknown(&self) -> u64 {
        self.failures.get(&format!("{:?}", ErrorKind::Indeterminate)).copied().unwrap_or_default()
    }
}
