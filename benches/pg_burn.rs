//! How fast PostgreSQL takes jobs in, and how fast preloaded ones go through: against what raw SQL can do on the same
//! private server, which has the durability of a default installation.
//!
//! `cargo bench -p hodei-benches --bench pg_burn -- [jobs]`, 100,000 jobs unless said; `--test` only shows that it runs.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hodei_agent::{Agent, Context};
use hodei_benches::load::{Marks, per_second};
use hodei_benches::{Node, hodei};
use hodei_core::job::{Epoch, Finish, JobKind, NewJob, Output, Priority, State};
use hodei_core::store::{
    ChangeLog, Coordination, Exchange, JobStore, Lane, Move, Pick, Served, SubmitOptions, Transition,
};
use hodei_core::{JobId, OwnerId};
use hodei_sched::Orchestrator;
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres};
use tokio::task::JoinSet;

/// How many jobs the agent runs at once.
const SLOTS: u32 = 512;
/// How many jobs an exchange claims at most.
const CLAIM: u32 = 500;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Numbered(usize);

impl JobKind for Numbered {
    const KIND: &'static str = "noop";
}

async fn mark(context: Context<Arc<Marks>>, Numbered(n): Numbered) {
    context.state().mark(n);
}

/// A server, and what is asked of it beside the stores.
struct Server(Postgres);

impl Server {
    fn database(&self) -> Database {
        self.0.database().expect("a database")
    }

    /// How many bytes of WAL were written since the server was made.
    fn wal(&self) -> u64 {
        let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
        self.0.sql("postgres", sql).expect("the server answers").parse().expect("a number")
    }
}

fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn rate(what: &str, jobs: usize, took: Duration, wal: u64, trips: u64) {
    say(&format!(
        "{what:<52} {:>9.0}/s {:>7.0} B of WAL a job {:>7.2} round trips per 100",
        per_second(jobs, took),
        wal as f64 / jobs as f64,
        trips as f64 * 100.0 / jobs as f64
    ));
}

async fn open(database: &Database, log: ChangeLog) -> PgStore {
    PgStore::builder(database.url()).connections(8).changes(log).connect().await.expect("the store opens")
}

async fn fill(store: &PgStore, jobs: Vec<NewJob>) -> Duration {
    let start = Instant::now();
    let mut jobs = jobs.into_iter().peekable();
    while jobs.peek().is_some() {
        let batch = jobs.by_ref().take(1_000).collect();
        store.submit(batch, SubmitOptions::each()).await.expect("the store takes them");
    }
    start.elapsed()
}

/// Settles and claims from one lane until nothing is left.
async fn burn(store: PgStore, owner: String) -> usize {
    let owner = OwnerId::new(owner).expect("a name");
    let owner = store.register(&owner, Duration::from_secs(3_600)).await.expect("it is registered");
    let lanes = store.lanes(&Served::default()).await.expect("lanes");
    let Some(lane) = lanes.heads.first().map(|head| head.lane.clone()) else { return 0 };
    let mut held: Vec<(JobId, Epoch)> = Vec::new();
    let mut done = 0;
    loop {
        let ended = |(job, epoch): (JobId, Epoch)| {
            let finish = Finish::succeeded(Output::none());
            Transition { job, epoch, step: Move::Finished(Box::new(finish)) }
        };
        let transitions: Vec<Transition> = held.drain(..).map(ended).collect();
        done += transitions.len();
        let pick = Pick { lane: Lane::clone(&lane), floor: Priority::MIN, ceiling: Priority::MAX, n: CLAIM };
        let exchange = Exchange { owner: owner.clone(), transitions, picks: vec![pick] };
        let exchanged = store.exchange(exchange).await.expect("exchange");
        if exchanged.claimed.is_empty() {
            return done;
        }
        held.extend(exchanged.claimed.iter().map(|claimed| (claimed.job.id, claimed.job.epoch)));
    }
}

async fn store_alone(server: &Server, n: usize, log: ChangeLog, burners: usize) {
    let store = open(&server.database(), log).await;
    let (wal, trips) = (server.wal(), store.round_trips());
    let took = fill(&store, hodei::numbered(0..n)).await;
    rate(&format!("bulk of 1,000, {log:?}"), n, took, server.wal() - wal, store.round_trips() - trips);
    let (wal, trips, start) = (server.wal(), store.round_trips(), Instant::now());
    let mut burning = JoinSet::new();
    for burner in 0..burners {
        burning.spawn(burn(store.clone(), format!("burner-{burner}")));
    }
    let done: usize = burning.join_all().await.into_iter().sum();
    assert_eq!(done, n, "every job ends once");
    let what = format!("claim {CLAIM} + settle {CLAIM}, {burners} callers, {log:?}");
    rate(&what, n, start.elapsed(), server.wal() - wal, store.round_trips() - trips);
    store.close().await;
}

async fn whole_engine(server: &Server, n: usize) -> Result<(), String> {
    let store = Arc::new(open(&server.database(), ChangeLog::All).await);
    fill(&store, hodei::numbered(0..n)).await;
    let marks = Arc::new(Marks::new(n));
    let (wal, trips, start) = (server.wal(), store.round_trips(), Instant::now());
    let shared = Arc::clone(&store);
    let node = Orchestrator::builder().shared_store(shared).start().await.expect("the node starts");
    let agent = Agent::builder(node.gateway()).slots(SLOTS).state(Arc::clone(&marks)).handler(mark);
    let node = Node { agent: agent.start().await.expect("the agent starts"), hodei: node };
    marks.all().await;
    node.succeeded(n).await;
    rate("whole engine", n, start.elapsed(), server.wal() - wal, store.round_trips() - trips);
    node.end().await;
    marks.check()?;
    hodei::holds(&*store, State::Succeeded, n).await?;
    store.close().await;
    Ok(())
}

async fn callers(server: &Server, callers: usize, each: usize) {
    let store = open(&server.database(), ChangeLog::All).await;
    let hands = hodei::dealt(hodei::numbered(0..callers * each), callers);
    let (wal, trips, start) = (server.wal(), store.round_trips(), Instant::now());
    let mut calling = JoinSet::new();
    for jobs in hands {
        let store = store.clone();
        calling.spawn(async move {
            for job in jobs {
                store.submit(vec![job], SubmitOptions::each()).await.expect("the store takes it");
            }
        });
    }
    calling.join_all().await;
    let what = format!("{callers} callers, one by one");
    rate(&what, callers * each, start.elapsed(), server.wal() - wal, store.round_trips() - trips);
    store.close().await;
}

/// What the server can do without us: rows of the same size, claimed and updated in place, by psql and plpgsql inside of it.
fn raw(server: &Server, n: usize) {
    let database = server.database();
    let sql = |sql: &str| server.0.sql(database.name(), sql).expect("the server answers");
    sql("CREATE TABLE raw (id bigserial PRIMARY KEY, state int2 NOT NULL DEFAULT 0, payload bytea NOT NULL);
         CREATE INDEX raw_ready ON raw (id) WHERE state = 0");
    let start = Instant::now();
    sql(&format!(
        "DO $$ BEGIN FOR i IN 1..{} LOOP
             INSERT INTO raw (payload) SELECT '\\x0102030405060708090a0b0c0d0e0f1011121314' FROM generate_series(1, 1000);
             COMMIT; END LOOP; END $$",
        n / 1_000
    ));
    rate("raw: insert of 1,000", n, start.elapsed(), 0, 0);
    let start = Instant::now();
    sql("DO $$ DECLARE ids int8[]; BEGIN LOOP
             WITH c AS (SELECT id FROM raw WHERE state = 0 ORDER BY id LIMIT 500 FOR UPDATE SKIP LOCKED),
                 u AS (UPDATE raw SET state = 1 FROM c WHERE raw.id = c.id RETURNING raw.id)
             SELECT array_agg(id) INTO ids FROM u;
             COMMIT; EXIT WHEN ids IS NULL;
             UPDATE raw SET state = 2 WHERE id = ANY (ids);
             COMMIT; END LOOP; END $$");
    rate("raw: claim 500 + update 500, 1 session, no wire", n, start.elapsed(), 0, 0);
}

#[tokio::main]
async fn main() -> Result<(), String> {
    let jobs = if std::env::args().any(|arg| arg == "--test") { 2_000 } else { 100_000 };
    let n = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(jobs);
    let settings = Postgres::builder().setting("max_wal_size", "8GB").setting("shared_buffers", "512MB");
    let server = Server(settings.start().map_err(|error| error.to_string())?);
    raw(&server, n);
    callers(&server, 1, n / 50).await;
    callers(&server, 64, n / 200).await;
    for log in [ChangeLog::All, ChangeLog::TerminalOnly, ChangeLog::Off] {
        store_alone(&server, n, log, 1).await;
    }
    for burners in [2, 4] {
        store_alone(&server, n, ChangeLog::All, burners).await;
    }
    whole_engine(&server, n).await
}
