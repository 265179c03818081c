//! Nodes that are processes at work, killed at any moment: in the middle of a submission, an exchange, a commit, a reaping or
//! a pruning. Another one goes on, and what any of them was told stands.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hodei_core::job::{Finish, NewJob, Output, Priority, State};
use hodei_core::store::{
    Applied, Consistency, Coordination, Exchange, JobStore, Limit, Move, Pick, Policies, Retention, Scope,
    Served, SubmitOptions, Submitted, Term, Transition,
};
use hodei_core::testkit::history::{Bounds, Recorder, RecordingStore, check_within};
use hodei_core::testkit::{lines, typical_spec};
use hodei_core::{JobId, Name, OwnerId, Result, Tenant};
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres};
use tokio::task::JoinHandle;

use super::fleet::PATIENCE;
use super::node::{URL, say};
use super::variable::{Numbers, variable};

/// How often a process is killed; `HODEI_PG_WORK_KILLS` sets another number.
const KILLS: u64 = 16;
/// How many are killed in one database.
const KILLS_PER_DATABASE: u64 = 8;
/// How long a node lives without a beat.
const TTL: Duration = Duration::from_secs(1);
/// How often a job may be lost: every death may lose some.
const LOST_MAX: u16 = 1_000;
/// How many jobs with the limited key may be leased at once.
const LIMIT: u32 = 3;
/// How many jobs a node claims at once from a lane.
const BATCH: u32 = 4;
/// How many submit at once in a process that will be killed.
const SUBMITTERS: u32 = 2;
/// How long to wait before looking again whether something is over.
const PAUSE: Duration = Duration::from_millis(20);

/// Set for a process that works until it is killed: the name of its node.
const NAME: &str = "HODEI_PG_TEST_WORKER";

/// The name of the node that this process is, if it is one that works.
pub(super) fn name() -> Option<String> {
    std::env::var(NAME).ok()
}

/// Submits, and works, until somebody kills the process.
pub(super) async fn work(url: String, name: String) {
    let store = PgStore::builder(url).connections(3).connect().await.expect("the store opens");
    say("open");
    for n in 0..SUBMITTERS {
        tokio::spawn(submits(store.clone(), u64::from(n)));
    }
    let worker = Worker { store, name, settled: |id| say(format_args!("done {id}")) };
    worker.works(&AtomicBool::new(false)).await;
}

/// Repeats a call while it may help: others are in the way of it.
async fn again<R, F: Future<Output = Result<R>>>(mut call: impl FnMut() -> F) -> R {
    let end = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(reply) => return reply,
            Err(error) => assert!(error.is_retryable() && Instant::now() < end, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn submits(store: PgStore, of: u64) {
    for n in of.. {
        let job = |m| {
            let spec = if m == 0 { typical_spec().limited_by("scarce") } else { typical_spec() };
            NewJob::new(spec.build().expect("a valid spec"))
        };
        let jobs: Vec<NewJob> = (0..=n % 3).map(job).collect();
        let done = again(|| store.submit(jobs.clone(), SubmitOptions::each())).await;
        for reply in done.replies {
            match reply {
                Submitted::New(id) | Submitted::Existing(id) => say(format_args!("stored {id}")),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A node that works off what there is.
struct Worker<S> {
    store: PgStore,
    name: String,
    settled: S,
}

impl<S: Fn(JobId) + Sync> Worker<S> {
    /// Works until it is over, in life after life.
    async fn works(&self, over: &AtomicBool) {
        while !over.load(Ordering::SeqCst) {
            self.lives(over).await;
        }
    }

    async fn lives(&self, over: &AtomicBool) {
        let owner = OwnerId::new(&self.name).expect("a name");
        let lease = again(|| self.store.register(&owner, TTL)).await;
        let (served, mut beaten) = (Served::default(), Instant::now());
        let (mut term, mut told) = (None, Vec::new());
        while !over.load(Ordering::SeqCst) {
            if beaten.elapsed() > TTL / 50 {
                beaten = Instant::now();
                if !again(|| self.store.beat(vec![lease.clone()], TTL)).await[0].alive {
                    return;
                }
                let duty = Name::literal("upkeep");
                if term.is_none() {
                    term = again(|| self.store.take_term(&duty, &lease, TTL)).await;
                }
                term = self.leads(term).await;
            }
            let lanes = again(|| self.store.lanes(&served)).await;
            let pick = |lane| Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n: BATCH };
            let picks: Vec<Pick> = lanes.heads.into_iter().map(|head| pick(head.lane)).collect();
            let transitions = std::mem::take(&mut told);
            let exchange = Exchange { owner: lease.clone(), transitions, picks };
            let done = again(|| self.store.exchange(exchange.clone())).await;
            for (transition, applied) in exchange.transitions.iter().zip(&done.applied) {
                told.extend(self.heard(transition, *applied));
            }
            told.extend(done.claimed.iter().map(|of| Transition {
                job: of.job.id,
                epoch: of.job.epoch,
                step: Move::Started { lease: None },
            }));
            if done.owner_lost {
                return;
            }
        }
    }

    /// Takes in what became of a transition, and says what is to be told next of the job.
    fn heard(&self, transition: &Transition, applied: Applied) -> Option<Transition> {
        let Transition { job, epoch, step } = transition;
        match (applied, step) {
            (Applied::Done | Applied::AlreadyApplied, Move::Finished(_)) => {
                (self.settled)(*job);
                None
            }
            (Applied::Done | Applied::AlreadyApplied, _) => {
                let step = Move::Finished(Box::new(Finish::succeeded(Output::none())));
                Some(Transition { job: *job, epoch: *epoch, step })
            }
            (Applied::Unavailable, _) => Some(transition.clone()),
            // It was held for dead, and somebody else has the job.
            (Applied::LeaseLost { .. }, _) => None,
            (other, _) => panic!("{}: {other:?} to {transition:?}", self.name),
        }
    }

    /// Does what whoever leads has to, if it still does.
    async fn leads(&self, term: Option<Term>) -> Option<Term> {
        let term = term?;
        if !again(|| self.store.keep_term(&term, TTL)).await {
            return None;
        }
        let reaped = again(|| self.store.reap(&term, LOST_MAX, 100)).await;
        let pruned = again(|| self.store.prune(&term, Retention::default(), 100)).await;
        (!reaped.term_lost && !pruned.term_lost).then_some(term)
    }
}

/// What processes said before they were killed.
#[derive(Debug, Default)]
struct Said {
    opened: usize,
    stored: Vec<JobId>,
    done: Vec<JobId>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let Some((_, said)) = line.rsplit_once("said: ") else { return };
        let id = |text: &str| text.parse().expect("an id");
        match said.split_once(' ') {
            Some(("stored", text)) => self.stored.push(id(text)),
            Some(("done", text)) => self.done.push(id(text)),
            _ => self.opened += 1,
        }
    }
}

/// Something that grows with what was said.
type Count = fn(&Said) -> usize;

/// From when on a life is counted: from its beginning, or from the first time that it says something.
const SINCE: [Option<Count>; 4] =
    [None, Some(|said| said.opened), Some(|said| said.stored.len()), Some(|said| said.done.len())];

/// Lets a process live and kills it after a while.
fn kill_after(database: &Database, name: &str, since: Option<Count>, wait: Duration, said: &mut Said) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "it_does_what_its_environment_says", "--nocapture", "--test-threads=1"]);
    command.env(URL, database.url()).env(NAME, name).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("a process more");
    let lines = lines(child.stdout.take().expect("a pipe"));
    if let Some(counted) = since {
        let before = counted(said);
        while counted(said) == before {
            said.hear(&lines.recv().expect("it begins to work"));
        }
    }
    let until = Instant::now() + wait;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        match lines.recv_timeout(left) {
            Ok(line) => said.hear(&line),
            Err(mpsc::RecvTimeoutError::Timeout) => break,
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("it ended by itself: {said:?}"),
        }
    }
    child.kill().expect("it lives");
    child.wait().expect("it was killed");
    lines.iter().for_each(|line| said.hear(&line));
}

/// Works off what the killed processes leave.
struct Heir {
    over: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Heir {
    fn starts(store: PgStore, settled: &Arc<AtomicU64>) -> Self {
        let (over, settled) = (Arc::new(AtomicBool::new(false)), Arc::clone(settled));
        let settled = move |_| {
            settled.fetch_add(1, Ordering::SeqCst);
        };
        let worker = Worker { store, name: "heir".to_owned(), settled };
        let task = tokio::spawn({
            let over = Arc::clone(&over);
            async move { worker.works(&over).await }
        });
        Self { over, task }
    }

    /// Waits until nothing is left to do, and ends.
    async fn finishes(self, store: &PgStore) {
        let end = Instant::now() + PATIENCE;
        while open(store).await > 0 {
            assert!(Instant::now() < end, "work is left: {:?}", store.counts(&Scope::All).await);
            tokio::time::sleep(PAUSE).await;
        }
        self.over.store(true, Ordering::SeqCst);
        self.task.await.expect("it panics never");
    }
}

/// How many jobs have not ended.
async fn open(store: &PgStore) -> u64 {
    store.counts(&Scope::All).await.expect("the server is well").open()
}

/// Waits until the server has ended the statements of everybody who was killed: what they sent may yet be done.
async fn left_alone(postgres: &Postgres, database: &Database) {
    let name = database.name();
    let clients = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND backend_type = 'client backend'"
    );
    let end = Instant::now() + PATIENCE;
    while postgres.sql("postgres", &clients).expect("the server is well") != "0" {
        assert!(Instant::now() < end, "somebody uses {name} still");
        tokio::time::sleep(PAUSE).await;
    }
}

/// A store with few connections.
async fn connected(database: &Database) -> PgStore {
    PgStore::builder(database.url()).connections(3).connect().await.expect("the store opens")
}

/// Holds a database to what was acknowledged and to the guarantees; returns how many jobs it has.
async fn hold(store: PgStore, said: &Said) -> u64 {
    let done = store.get_many(&Scope::All, said.done.clone(), Consistency::Latest).await;
    let done = done.expect("the server is well");
    assert!(done.iter().all(|job| job.as_ref().is_some_and(|job| job.state == State::Succeeded)));
    assert_eq!(store.verify_indexes().await.expect("the server is well"), Vec::<String>::new());
    let limits = store.limits(&Scope::All).await.expect("the server is well");
    assert!(limits.iter().all(|limit| limit.in_use == 0), "{limits:?}");
    let total = store.counts(&Scope::All).await.expect("the server is well").total();
    // What the others did is known from the change log alone.
    let store = RecordingStore::new(store, Recorder::new());
    said.stored.iter().for_each(|id| store.recorder().acknowledged(*id));
    store.survey().await.expect("the server is well");
    let bounds = Bounds { overtaken: 4 * u64::from(BATCH) };
    let report = check_within(&store.recorder().history(), bounds);
    assert!(report.is_clean(), "{report}");
    total
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_killed_at_work_lose_nothing_that_they_were_told() {
    let kills = variable("HODEI_PG_WORK_KILLS", KILLS);
    let mut numbers = Numbers::new("HODEI_PG_WORK_KILLS_SEED");
    println!("HODEI_PG_WORK_KILLS_SEED: {numbers:?}");
    let postgres = Postgres::shared().unwrap();
    let (mut killed, mut opened, mut stored, mut done, mut untold) = (0, 0, 0, 0, 0);
    let mut by_the_heir = 0;
    while killed < kills {
        let database = postgres.database().unwrap();
        let mut store = connected(&database).await;
        let limit = Limit::key(Tenant::default(), Name::literal("scarce"), LIMIT);
        store.set_limit(limit).await.expect("the server is well");
        let settled = Arc::new(AtomicU64::new(0));
        let mut heir = Heir::starts(store.clone(), &settled);
        let mut said = Said::default();
        for n in 0..KILLS_PER_DATABASE.min(kills - killed) {
            let wait = numbers.millis(2, 60);
            let since = SINCE[usize::try_from(numbers.below(4)).expect("few")];
            tokio::task::block_in_place(|| {
                kill_after(&database, &format!("worker-{n}"), since, wait, &mut said);
            });
            killed += 1;
        }
        loop {
            heir.finishes(&store).await;
            drop(store);
            left_alone(postgres, &database).await;
            store = connected(&database).await;
            if open(&store).await == 0 {
                break;
            }
            heir = Heir::starts(store.clone(), &settled);
        }
        let total = hold(store, &said).await;
        (opened, by_the_heir) = (opened + said.opened, by_the_heir + settled.load(Ordering::SeqCst));
        (stored, done) = (stored + said.stored.len() as u64, done + said.done.len() as u64);
        untold += total - said.stored.len() as u64;
    }
    println!(
        "{kills} nodes killed, {opened} of them at work: {stored} submissions and {done} ends acknowledged, 0 lost; \
         {untold} stored untold; {by_the_heir} ended elsewhere"
    );
    assert!(opened > 0 && stored > 0 && done > 0, "some were killed at work");
}
