//! Who claims, settles, cancels and reaps under several limits at once never waits in a circle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hodei_core::job::{Epoch, Finish, Lease, NewJob, Output, Priority};
use hodei_core::store::{
    Claimed, Coordination, Exchange, JobStore, Lane, Limit, Move, Pick, Policies, Scope, Served,
    SubmitOptions, Term, Transition,
};
use hodei_core::{ErrorKind, JobId, Name, Tenant};
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::env::{TTL, done, open, owner, spec};
use crate::wide::WRONG;

/// How long they are at it, and how many jobs they are to settle at least; on a slow machine that takes longer.
const AT_IT: Duration = Duration::from_secs(4);
const ENOUGH: usize = 200;
const TOO_LONG: Duration = Duration::from_secs(120);
/// The queues, each with a limit of its own and keys that it shares with its neighbours.
const QUEUES: usize = 6;
/// How many are claimed from a lane at once.
const EACH: u32 = 3;
/// The limits of keys whose rows do not say how much is leased, as of one moment.
const WRONG_KEYS: &str = "SELECT string_agg(format('%s says %s', u.key, u.in_use), ', ') FROM hodei.usage u
     WHERE u.in_use <> (SELECT count(*) FROM hodei.leased d JOIN hodei.lane l ON l.no = d.lane
         WHERE u.no = ANY (l.limits))";

fn new_job(n: usize) -> NewJob {
    let (queue, next) = (n % QUEUES, (n + 1) % QUEUES);
    let spec =
        spec().queue(format!("q{queue}")).limited_by(format!("k{queue}")).limited_by(format!("k{next}"));
    NewJob::new(spec.build().expect("a valid spec"))
}

/// Numbers that jump about, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % most
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for n in (1..list.len()).rev() {
            list.swap(n, self.roll(n + 1));
        }
    }
}

/// What nodes that work together share: whether it is over, and how many jobs were settled.
#[derive(Default)]
struct Together {
    over: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
}

/// A node of a few connections.
struct Node {
    store: PgStore,
    owner: Lease,
    dice: Dice,
    over: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
}

/// What is refused for a moment is asked for again; a deadlock shows in the counter of the server.
fn may_be_locked<R>(reply: hodei_core::Result<R>) -> Option<R> {
    match reply {
        Ok(reply) => Some(reply),
        Err(error) if error.kind() == ErrorKind::Locked => None,
        Err(error) => panic!("{error:?}"),
    }
}

impl Node {
    async fn open(database: &Database, name: &str, seed: u64, of: &Together) -> Self {
        let store = open(database).await;
        let owner = owner(&store, name).await;
        let (over, ended) = (Arc::clone(&of.over), Arc::clone(&of.ended));
        Self { store, owner, dice: Dice(seed), over, ended }
    }

    async fn picks(&mut self) -> Vec<Pick> {
        let lanes = self.store.lanes(&Served::default()).await.expect("lanes");
        let pick = |lane: Lane| Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n: EACH };
        let mut picks: Vec<Pick> = lanes.heads.into_iter().map(|head| pick(head.lane)).collect();
        self.dice.shuffle(&mut picks);
        picks.truncate(3);
        picks
    }

    /// Ends what it holds, some of it the long way, and claims more, again and again.
    async fn works(mut self) {
        let mut held: Vec<Claimed> = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            let picks = self.picks().await;
            let mut transitions: Vec<Transition> =
                held.drain(..).map(|claimed| self.end(claimed.job.id, claimed.job.epoch)).collect();
            self.dice.shuffle(&mut transitions);
            let settled = transitions.len();
            let exchange = Exchange { owner: self.owner.clone(), transitions, picks };
            let Some(done) = may_be_locked(self.store.exchange(exchange).await) else { continue };
            self.ended.fetch_add(settled, Ordering::Relaxed);
            held = done.claimed;
        }
    }

    fn end(&mut self, job: JobId, epoch: Epoch) -> Transition {
        match self.dice.roll(8) {
            0 => Transition { job, epoch, step: Move::Returned },
            1 => {
                let mut finish = Finish::succeeded(Output::none());
                finish.spawn = vec![new_job(self.dice.roll(QUEUES))];
                Transition { job, epoch, step: Move::Finished(Box::new(finish)) }
            }
            2 => Transition { job, epoch, step: Move::Started { lease: None } },
            _ => done(job, epoch),
        }
    }

    /// As [`Node::works`], in transactions of its own.
    async fn works_within(mut self, database: String) {
        let mut host = PgConnection::connect(&database).await.expect("a connection");
        while !self.over.load(Ordering::Relaxed) {
            let picks = self.picks().await;
            let claim = Exchange { owner: self.owner.clone(), transitions: Vec::new(), picks };
            let Some(claimed) = may_be_locked(self.store.exchange(claim).await) else { continue };
            let mut ends: Vec<Transition> =
                claimed.claimed.iter().map(|claimed| done(claimed.job.id, claimed.job.epoch)).collect();
            self.dice.shuffle(&mut ends);
            let mut tx = host.begin().await.expect("begin");
            may_be_locked(self.store.settle_in(&mut tx, ends).await);
            tx.commit().await.expect("commit");
        }
    }

    /// Cancels what others hold, and submits anew.
    async fn cancels(mut self, database: String) {
        let mut conn = PgConnection::connect(&database).await.expect("a connection");
        while !self.over.load(Ordering::Relaxed) {
            let some = "SELECT id::text FROM hodei.leased ORDER BY random() LIMIT 6";
            let some: Vec<String> = sqlx::query_scalar(some).fetch_all(&mut conn).await.expect("the leased");
            let mut ids: Vec<JobId> = some.iter().map(|id| id.parse().expect("an id")).collect();
            self.dice.shuffle(&mut ids);
            may_be_locked(self.store.request_cancel(&Scope::All, ids).await);
            let jobs = (0..QUEUES * 2).map(new_job).collect();
            self.store.submit(jobs, SubmitOptions::each()).await.expect("submit");
        }
    }

    /// Claims in short lives, and takes back what the lives before held.
    async fn reaps(mut self) {
        let duty = Name::literal("upkeep");
        let leader = self.owner.clone();
        let term: Term =
            self.store.take_term(&duty, &leader, TTL).await.expect("take_term").expect("nobody leads");
        while !self.over.load(Ordering::Relaxed) {
            let life = owner(&self.store, "mayfly").await;
            let picks = self.picks().await;
            let claim = Exchange { owner: life.clone(), transitions: Vec::new(), picks };
            may_be_locked(self.store.exchange(claim).await);
            self.store.retire(&life).await.expect("retire");
            may_be_locked(self.store.reap(&term, u16::MAX, 100).await);
        }
    }
}

/// Has nodes at work under limits, and returns how many deadlocks the server met.
async fn met(server: &Postgres, wide: &[Limit]) -> String {
    let database = server.database().expect("a database");
    let ask = |sql: &str| server.sql(database.name(), sql).expect("the server answers");
    let store = open(&database).await;
    for limit in wide {
        store.set_limit(limit.clone()).await.expect("set_limit");
    }
    for n in 0..QUEUES {
        let name = |prefix| Name::new(format!("{prefix}{n}")).expect("a name");
        store.set_limit(Limit::queue(Tenant::default(), name("q"), 9)).await.expect("set_limit");
        store.set_limit(Limit::key(Tenant::default(), name("k"), 14)).await.expect("set_limit");
    }
    let jobs = (0..600).map(new_job).collect();
    store.submit(jobs, SubmitOptions::each()).await.expect("submit");
    let together = Together::default();
    let mut working = Vec::new();
    for (seed, name) in (0..).zip(["a", "b", "c"]) {
        working.push(tokio::spawn(Node::open(&database, name, seed, &together).await.works()));
    }
    let within = Node::open(&database, "within", 11, &together).await.works_within(database.url());
    let cancels = Node::open(&database, "cancels", 12, &together).await.cancels(database.url());
    let reaps = Node::open(&database, "reaps", 13, &together).await.reaps();
    working.extend([tokio::spawn(within), tokio::spawn(cancels), tokio::spawn(reaps)]);
    let began = Instant::now();
    while began.elapsed() < AT_IT || together.ended.load(Ordering::Relaxed) < ENOUGH {
        assert!(began.elapsed() < TOO_LONG, "{} were settled", together.ended.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    together.over.store(true, Ordering::Relaxed);
    for node in working {
        node.await.expect("no panic");
    }
    assert_eq!((ask(WRONG), ask(WRONG_KEYS)), (String::new(), String::new()));
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    // What a session counted is told when it is idle for a second.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    ask("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_under_several_limits_never_wait_in_a_circle() {
    // Circles are looked for at once, so that many can be met.
    let server = Postgres::builder().setting("deadlock_timeout", "10ms").start().expect("PostgreSQL");
    assert_eq!(met(&server, &[]).await, "0", "deadlocks under limits of queues and keys");
    let wide = [Limit::all(40), Limit::tenant(Tenant::default(), 39)];
    assert_eq!(met(&server, &wide).await, "0", "deadlocks under limits of all kinds");
}
