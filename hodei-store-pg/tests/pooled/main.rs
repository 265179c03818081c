//! Behind a proxy that gives every transaction another connection. A process of its own: what is set for one store there
//! holds for all.

use std::time::Duration;

use futures_util::StreamExt;
use hodei_core::job::{Finish, JobSpec, NewJob, Output, Priority};
use hodei_core::store::{
    Coordination, Exchange, JobStore, Move, Pick, Scope, Served, SubmitOptions, Transition,
};
use hodei_core::{ErrorKind, OwnerId, Tenant};
use hodei_store_pg::PgStore;
use hodei_test_servers::{PgBouncer, Pooling, Postgres};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

fn jobs(n: usize) -> Vec<NewJob> {
    let spec = JobSpec::command(["/bin/true"]).limited_by("key").build().expect("a valid spec");
    let spec = std::sync::Arc::new(spec);
    (0..n).map(|_| NewJob::new(std::sync::Arc::clone(&spec))).collect()
}

async fn burn(store: &PgStore, owner: &str) -> usize {
    let owner = OwnerId::new(owner).expect("a name");
    let owner = store.register(&owner, Duration::from_secs(60)).await.expect("register");
    let lanes = store.lanes(&Served::default()).await.expect("lanes");
    let pick = |lane| Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n: 50 };
    let picks: Vec<Pick> = lanes.heads.into_iter().map(|head| pick(head.lane)).collect();
    let (mut transitions, mut ended) = (Vec::new(), 0);
    loop {
        ended += transitions.len();
        let exchange = Exchange { owner: owner.clone(), transitions, picks: picks.clone() };
        let claimed = store.exchange(exchange).await.expect("exchange").claimed;
        if claimed.is_empty() {
            return ended;
        }
        let done = || Move::Finished(Box::new(Finish::succeeded(Output::none())));
        let ended = claimed.iter().map(|held| (held.job.id, held.job.epoch));
        transitions = ended.map(|(job, epoch)| Transition { job, epoch, step: done() }).collect();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_transaction_may_have_another_connection() {
    let server = Postgres::start().expect("PostgreSQL");
    let database = server.database().expect("a database");
    // Fewer connections than the stores have.
    let settings = [("default_pool_size", "3")];
    let proxy = PgBouncer::start_with(&server, Pooling::Transaction, &settings).expect("PgBouncer");
    let builder = || PgStore::builder(proxy.url(&database)).connections(4);
    let here = builder().pooled(true).connect().await.expect("it opens");
    let there = builder().connect().await.expect("it opens, and sees by itself");
    let mut wakeups = there.wakeups();
    for batch in 0..8 {
        here.submit(jobs(50 + batch), SubmitOptions::each()).await.expect("submit");
        there.submit(jobs(1), SubmitOptions::each()).await.expect("submit");
    }
    let woken = tokio::time::timeout(Duration::from_secs(60), wakeups.next()).await;
    woken.expect("it hears nothing, and looks by itself");
    let (a, b) = tokio::join!(burn(&here, "here"), burn(&there, "there"));
    assert_eq!(a + b, 8 * 50 + 28 + 8);
    for scope in [Scope::All, Scope::Tenant(Tenant::default())] {
        let counts = there.counts(&scope).await.expect("counts");
        assert_eq!((counts.open(), counts.total()), (0, 436));
    }
    assert_eq!(here.verify_indexes().await.expect("verify"), Vec::<String>::new());
    here.close().await;
    there.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_finds_nothing_looks_less_and_less_often() {
    let server = Postgres::start().expect("PostgreSQL");
    let database = server.database().expect("a database");
    let proxy = PgBouncer::start(&server, Pooling::Transaction).expect("PgBouncer");
    let open = || PgStore::builder(proxy.url(&database)).connect();
    let (idle, busy) = (open().await.expect("it opens"), open().await.expect("it opens"));
    let mut wakeups = idle.wakeups();
    let before = idle.round_trips();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let looks = idle.round_trips() - before;
    // After half a second and more, then twice that, and so on; every half second they would be sixteen.
    assert!((2..=6).contains(&looks), "{looks}");
    busy.submit(jobs(1), SubmitOptions::each()).await.expect("submit");
    let woken = tokio::time::timeout(Duration::from_secs(10), wakeups.next()).await;
    woken.expect("it looks again within five seconds and a half of that");
    idle.close().await;
    busy.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_was_rolled_back_is_not_remembered() {
    let server = Postgres::start().expect("PostgreSQL");
    let database = server.database().expect("a database");
    let patient = PgStore::builder(database.url()).pooled(true);
    let store = patient.statement_timeout(Duration::from_secs(3)).connect().await.expect("it opens");
    let job = |queue: &str| {
        NewJob::new(JobSpec::command(["/bin/true"]).queue(queue).build().expect("a valid spec"))
    };
    // Somebody else is about to make the lane of the second job.
    let class = job("second").spec.class().number().cast_signed();
    let mut other = PgConnection::connect(&database.url()).await.expect("a connection");
    let mut tx = other.begin().await.expect("begin");
    sqlx::query("SELECT hodei.lane_no('default', 'second', $1, '', NULL, NULL)")
        .bind(class)
        .execute(&mut *tx)
        .await
        .expect("a lane");
    let refused = store.submit(vec![job("first"), job("second")], SubmitOptions::each()).await;
    assert_eq!(refused.expect_err("it waits for the other").kind(), ErrorKind::Timeout);
    tx.rollback().await.expect("rollback");
    store.submit(vec![job("first"), job("second")], SubmitOptions::each()).await.expect("submit");
    assert_eq!(burn(&store, "here").await, 2, "both stand in lanes that are there");
    store.close().await;
}
