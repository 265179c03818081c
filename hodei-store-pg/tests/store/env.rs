//! A database of its own for every test, and the few steps that all of them take.

use std::time::Duration;

use hodei_core::job::{Epoch, Finish, JobSpec, JobSpecBuilder, Lease, NewJob, Output, Priority};
use hodei_core::store::{
    Claimed, Coordination, Exchange, Exchanged, JobStore, Lane, Move, Pick, Served, SubmitOptions, Submitted,
    Term, Transition,
};
use hodei_core::{JobId, Name, OwnerId, Tenant};
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres, PostgresBuilder};

/// Longer than any test takes.
pub(crate) const TTL: Duration = Duration::from_secs(3_600);

/// A database of the server that the tests share.
pub(crate) fn database() -> Database {
    Postgres::shared().expect("PostgreSQL").database().expect("a database")
}

/// Runs SQL in a database.
pub(crate) fn sql(database: &Database, sql: &str) -> String {
    Postgres::shared().expect("PostgreSQL").sql(database.name(), sql).expect("the server answers")
}

/// Runs SQL that may be refused.
pub(crate) fn try_sql(database: &Database, sql: &str) -> Result<String, hodei_test_servers::StartError> {
    Postgres::shared().expect("PostgreSQL").sql(database.name(), sql)
}

/// A server of its own, and a database there.
pub(crate) struct World {
    pub(crate) server: Postgres,
    pub(crate) database: Database,
}

impl World {
    pub(crate) fn start(server: &PostgresBuilder) -> Self {
        let server = server.clone().start().expect("PostgreSQL");
        let database = server.database().expect("a database");
        Self { server, database }
    }

    pub(crate) fn sql(&self, text: &str) -> String {
        self.server.sql(self.database.name(), text).expect("the server answers")
    }

    /// What the server has written down.
    pub(crate) fn log(&self) -> String {
        let data = self.server.data();
        let log = data.parent().expect("it lies in a directory").join("log");
        String::from_utf8_lossy(&std::fs::read(log).expect("there is a log")).into_owned()
    }
}

/// Closes a store and waits until its sessions have ended: only then has the server counted all that they read.
pub(crate) async fn close_counted(store: PgStore, sql: impl Fn(&str) -> String) {
    store.close().await;
    let open = "SELECT count(*) FROM pg_stat_activity
         WHERE application_name LIKE 'hodei%' AND datname = current_database()";
    while sql(open) != "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn open(database: &Database) -> PgStore {
    PgStore::builder(database.url()).connections(4).connect().await.expect("the store opens")
}

/// Has a life begin that leads.
pub(crate) async fn lead(store: &PgStore) -> Term {
    let leader = owner(store, "leader").await;
    let taken = store.take_term(&Name::literal("upkeep"), &leader, TTL).await;
    taken.expect("take_term").expect("nobody leads")
}

/// An id of a time in milliseconds. Minting one would carry the ids of the whole process along.
pub(crate) fn minted_at(millis: u64, n: u64) -> JobId {
    JobId::from_parts(millis << 12, Tenant::default().slot(), n)
}

/// A command of twenty bytes.
pub(crate) fn spec() -> JobSpecBuilder {
    JobSpec::command(["/bin/true", "0123456789"])
}

pub(crate) fn job() -> NewJob {
    NewJob::new(spec().build().expect("a valid spec"))
}

pub(crate) fn jobs(n: usize) -> Vec<NewJob> {
    let spec = std::sync::Arc::new(spec().build().expect("a valid spec"));
    (0..n).map(|_| NewJob::new(std::sync::Arc::clone(&spec))).collect()
}

/// Submits jobs that are all new.
pub(crate) async fn submit(store: &PgStore, jobs: Vec<NewJob>) -> Vec<JobId> {
    let done = store.submit(jobs, SubmitOptions::each()).await.expect("the store is sound");
    let id = |reply: &Submitted| match reply {
        Submitted::New(id) => *id,
        other => panic!("{other:?}"),
    };
    done.replies.iter().map(id).collect()
}

pub(crate) async fn owner(store: &PgStore, name: &str) -> Lease {
    let owner = OwnerId::new(name).expect("a name");
    store.register(&owner, TTL).await.expect("the store is sound")
}

pub(crate) async fn exchange(
    store: &PgStore,
    owner: &Lease,
    transitions: Vec<Transition>,
    picks: Vec<Pick>,
) -> Exchanged {
    let exchange = Exchange { owner: owner.clone(), transitions, picks };
    store.exchange(exchange).await.expect("the store is sound")
}

/// Claims from every lane, at most so many from each.
pub(crate) async fn claim(store: &PgStore, owner: &Lease, n: u32) -> Vec<Claimed> {
    let lanes = store.lanes(&Served::default()).await.expect("the store is sound");
    let pick = |lane: Lane| Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n };
    let picks = lanes.heads.into_iter().map(|head| pick(head.lane)).collect();
    exchange(store, owner, Vec::new(), picks).await.claimed
}

pub(crate) fn done(job: JobId, epoch: Epoch) -> Transition {
    let finish = Finish::succeeded(Output::none());
    Transition { job, epoch, step: Move::Finished(Box::new(finish)) }
}

/// Runs everything that is ready to its end, so many at a time in one round trip, and returns how many that were.
pub(crate) async fn burn(store: &PgStore, owner: &Lease, n: u32) -> usize {
    let lanes = store.lanes(&Served::default()).await.expect("the store is sound");
    let picks: Vec<Pick> = lanes
        .heads
        .into_iter()
        .map(|head| Pick { lane: head.lane, floor: Priority::MIN, ceiling: Priority::MAX, n })
        .collect();
    let (mut held, mut ended): (Vec<Claimed>, usize) = (Vec::new(), 0);
    loop {
        let transitions: Vec<Transition> =
            held.drain(..).map(|claimed| done(claimed.job.id, claimed.job.epoch)).collect();
        ended += transitions.len();
        held = exchange(store, owner, transitions, picks.clone()).await.claimed;
        if held.is_empty() {
            return ended;
        }
    }
}
