//! What a job costs, by counting: bytes of WAL and round trips, never by time.

use std::time::Duration;

use hodei_core::Name;
use hodei_core::job::{Epoch, Failure, FailureClass, State};
use hodei_core::store::{
    Applied, ChangeLog, Claimed, Coordination, JobStore, Move, Round, Scope, Served, SubmitOptions,
    Transition,
};
use hodei_store_pg::PgStore;
use hodei_test_servers::Postgres;

use crate::env::{burn, claim, close_counted, done, exchange, job, jobs, open, owner, submit};

/// How many jobs are measured.
const JOBS: usize = 20_000;
/// How long an owner lives without a beat.
const LIFE: Duration = Duration::from_secs(60);

/// A server that writes nothing but what it is asked to: no vacuum and no checkpoint in between.
fn server() -> Postgres {
    let quiet = Postgres::builder().setting("autovacuum", "off").setting("checkpoint_timeout", "1h");
    quiet.setting("max_wal_size", "8GB").start().expect("PostgreSQL")
}

fn wal(server: &Postgres) -> u64 {
    let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
    server.sql("postgres", sql).expect("the server answers").parse().expect("a number")
}

/// The WAL of a job through its whole life, and the round trips of a hundred of them while they are run.
async fn life(log: ChangeLog, history: bool) -> (u64, f64) {
    let server = server();
    let database = server.database().expect("a database");
    let store = PgStore::builder(database.url()).changes(log).history(history);
    let store = store.connect().await.expect("the store opens");
    // The first of everything: prepared statements, the lane, the first pages.
    store.submit(jobs(1_000), SubmitOptions::each()).await.expect("submit");
    let owner = owner(&store, "node").await;
    assert_eq!(burn(&store, &owner, 500).await, 1_000);
    let before = wal(&server);
    for _ in 0..JOBS / 1_000 {
        store.submit(jobs(1_000), SubmitOptions::each()).await.expect("submit");
    }
    let trips = store.round_trips();
    assert_eq!(burn(&store, &owner, 500).await, JOBS);
    let spent = (store.round_trips() - trips) as f64 * 100.0 / JOBS as f64;
    let bytes = (wal(&server) - before) / JOBS as u64;
    store.close().await;
    (bytes, spent)
}

#[tokio::test]
async fn a_whole_life_fits_its_budget_of_wal_and_round_trips() {
    let (all, trips) = life(ChangeLog::All, true).await;
    let (ends, _) = life(ChangeLog::TerminalOnly, true).await;
    let (neither, _) = life(ChangeLog::Off, false).await;
    let told = format!(
        "WAL of a job: {all} B with history and every change, {ends} B with its end only, {neither} B with neither"
    );
    assert!(all <= 1_030 && ends <= 1_000 && neither <= 850, "{told}");
    assert!(all > ends && ends > neither, "{told}");
    println!("{told}");
    assert!(trips <= 1.0, "{trips} round trips per 100 jobs");
}

#[tokio::test]
async fn a_submission_and_an_exchange_are_one_round_trip_each() {
    // A server of its own: readers of the log look again while anybody on it has a transaction open.
    let server = server();
    let store = open(&server.database().expect("a database")).await;
    let owner = owner(&store, "node").await;
    submit(&store, vec![job()]).await;
    assert_eq!(burn(&store, &owner, 1).await, 1);
    // Behind what a node that has just begun to listen makes sure of; it does so again after half a minute.
    still(&store).await;
    // The announcement of a commit goes beside it, and at most every few milliseconds.
    let quiet = || tokio::time::sleep(Duration::from_millis(50));
    let before = store.round_trips();
    submit(&store, jobs(700)).await;
    quiet().await;
    let spent = store.round_trips() - before;
    assert!(spent <= 2, "{spent}: a submission, an announcement");
    let before = store.round_trips();
    assert_eq!(burn(&store, &owner, 1_000).await, 700);
    quiet().await;
    let spent = store.round_trips() - before;
    assert!(spent <= 6, "{spent}: the lanes, a claim, an end beside a claim, announcements");
    store.close().await;
}

/// What fails and is to be tried again is rare, and what is beside it ends as without it.
#[tokio::test]
async fn a_few_retries_leave_the_ends_beside_them_on_the_short_way() {
    let server = server();
    let database = server.database().expect("a database");
    let store = open(&database).await;
    let owner = owner(&store, "node").await;
    submit(&store, jobs(1_000)).await;
    let held = claim(&store, &owner, 1_000).await;
    let read = async |store| {
        let sql = |text: &str| server.sql(database.name(), text).expect("the server answers");
        close_counted(store, sql).await;
        let read = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE relname = 'job_0'";
        sql(read).parse::<u64>().expect("a number")
    };
    let before = read(store).await;
    let store = open(&database).await;
    store.lanes(&Served::default()).await.expect("lanes");
    let trips = store.round_trips();
    let failure = Failure::new(FailureClass::Error, "busy");
    let transition = |(n, claimed): (usize, &Claimed)| {
        let (job, epoch) = (claimed.job.id, claimed.job.epoch);
        let again = || Move::Retried { failure: failure.clone(), wait: LIFE, manifest: None };
        match n % 100 {
            7 => Transition { job, epoch, step: again() },
            _ => done(job, epoch),
        }
    };
    let transitions: Vec<Transition> = held.iter().enumerate().map(transition).collect();
    // One that comes twice is made in its order, and one that came too late is told so.
    let twice = Transition { step: Move::Started { lease: None }, ..transitions[8].clone() };
    let late = done(held[9].job.id, Epoch::from_number(99));
    let all = [vec![twice], transitions[..9].to_vec(), transitions[10..].to_vec(), vec![late]].concat();
    let told = exchange(&store, &owner, all, Vec::new()).await;
    let trips = store.round_trips() - trips;
    let (applied, late) = (&told.applied[..1_000], told.applied.last());
    assert_eq!((told.applied.len(), told.changes.len()), (1_001, 1_000));
    assert!(applied.iter().all(|applied| *applied == Applied::Done), "{applied:?}");
    assert_ne!(late, Some(&Applied::Done));
    let counts = store.counts(&Scope::All).await.expect("counts");
    let states = [State::Succeeded, State::Pending, State::Scheduled, State::Running];
    assert_eq!(states.map(|state| counts.of(state)), [989, 10, 1, 0]);
    assert!(trips < 25, "{trips} round trips");
    let spent = read(store).await - before;
    // The short way looks a job up twice, and the long way four times.
    assert!(spent < 2_500, "{spent} look-ups of 1,000 jobs");
    let store = open(&database).await;
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
    store.close().await;
}

/// How often a server has written its log through to the disk.
fn syncs(server: &Postgres) -> u64 {
    let sql = "SELECT wal_sync FROM pg_stat_wal";
    server.sql("postgres", sql).expect("the server answers").parse().expect("a number")
}

#[tokio::test]
async fn a_lone_submission_is_one_sync_and_what_announces_it_waits_for_none() {
    const SUBMISSIONS: u64 = 40;
    let server = server();
    let store = open(&server.database().expect("a database")).await;
    submit(&store, vec![job()]).await;
    // What a session counted is told when it is idle for a second.
    let told = || tokio::time::sleep(Duration::from_millis(1_500));
    told().await;
    let (before, trips) = (syncs(&server), store.round_trips());
    for _ in 0..SUBMISSIONS {
        submit(&store, vec![job()]).await;
        // Behind the announcement.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let trips = store.round_trips() - trips;
    told().await;
    let spent = syncs(&server) - before;
    assert!(trips > SUBMISSIONS * 3 / 2, "{trips} round trips: they were announced");
    assert!(spent < SUBMISSIONS * 3 / 2, "{spent} syncs of {SUBMISSIONS} submissions");
    store.close().await;
}

#[tokio::test]
async fn a_heartbeat_is_one_round_trip_and_a_node_without_work_sends_nothing_between_two() {
    let server = server();
    let store = open(&server.database().expect("a database")).await;
    let owner = owner(&store, "node").await;
    still(&store).await;
    let mut term = None;
    for _ in 0..5 {
        let before = store.round_trips();
        let round = Round { owners: vec![owner.clone()], ttl: LIFE, duty: Name::literal("maintain"), term };
        let rounded = store.round(round).await.expect("the server is well");
        assert_eq!((store.round_trips() - before, rounded.reapable), (1, false));
        term = rounded.term;
        assert!(term.is_some() && rounded.beats[0].alive);
    }
    let before = store.round_trips();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(store.round_trips(), before);
    store.close().await;
}

/// Waits until a store has sent nothing for three seconds.
async fn still(store: &PgStore) {
    let mut before = None;
    while before != Some(store.round_trips()) {
        before = Some(store.round_trips());
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

#[tokio::test]
async fn what_claims_leave_behind_is_swept_up_soon() {
    let server = server();
    let database = server.database().expect("a database");
    let store = open(&database).await;
    let owner = owner(&store, "node").await;
    for _ in 0..40 {
        submit(&store, jobs(1_000)).await;
        burn(&store, &owner, 1_000).await;
    }
    let swept =
        "SELECT vacuum_count FROM pg_stat_user_tables WHERE schemaname = 'hodei' AND relname = 'ready'";
    for _ in 0..600 {
        if server.sql(database.name(), swept).expect("the server answers") != "0" {
            return store.close().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("40,000 jobs were claimed, and the table of the ready ones was not swept");
}
