//! A server that goes and comes back, and one that ends connections.

use std::time::{Duration, Instant};

use hodei_store_pg::PgStore;
use hodei_test_servers::{Postgres, Server};

use super::fleet::Fleet;
use super::variable::{Numbers, variable};

/// How often the server is restarted; `HODEI_PG_RESTARTS` sets another number.
const RESTARTS: u64 = 6;
/// How often every connection is ended; `HODEI_PG_TERMINATIONS` sets another number.
const TERMINATIONS: u64 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_under_load_loses_nothing() {
    let restarts = variable("HODEI_PG_RESTARTS", RESTARTS);
    let mut numbers = Numbers::new("HODEI_PG_RESTARTS_SEED");
    println!("HODEI_PG_RESTARTS_SEED: {numbers:?}");
    let postgres = Postgres::start().unwrap();
    let database = postgres.database().unwrap();
    let fleet = Fleet::start((0..2).map(|_| PgStore::builder(database.url()).connections(4))).await;
    let mut slowest = Duration::ZERO;
    for n in 0..restarts {
        fleet.progress(5).await;
        tokio::time::sleep(numbers.millis(0, 120)).await;
        tokio::task::block_in_place(|| {
            // Two of three lose what was not on the disk in any case.
            match n % 6 {
                2 => postgres.stop_fast(),
                5 => postgres.kill9(),
                _ => postgres.stop_immediate(),
            }
            postgres.restart().expect("the server starts again");
        });
        let up = Instant::now();
        fleet.progress(1).await;
        slowest = slowest.max(up.elapsed());
    }
    let outcome = fleet.finish().await;
    let fast = (restarts + 3) / 6;
    let killed = restarts / 6;
    let immediate = restarts - fast - killed;
    println!(
        "{restarts} restarts, {immediate} immediate, {fast} fast, {killed} by kill -9: {outcome}; work went on {slowest:?} after a start at the latest"
    );
    assert!(!outcome.failures.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_ended_under_load_lose_nothing() {
    let terminations = variable("HODEI_PG_TERMINATIONS", TERMINATIONS);
    let mut numbers = Numbers::new("HODEI_PG_TERMINATIONS_SEED");
    println!("HODEI_PG_TERMINATIONS_SEED: {numbers:?}");
    let postgres = Postgres::shared().unwrap();
    let database = postgres.database().unwrap();
    let fleet = Fleet::start((0..2).map(|_| PgStore::builder(database.url()).connections(4))).await;
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{}'",
        database.name()
    );
    let (mut ended, mut strokes) = (0, 0);
    // More than one connection each, on average: a slow machine needs more strokes for that.
    while strokes < terminations || ended <= terminations {
        if strokes % 10 == 9 {
            fleet.progress(1).await;
        }
        tokio::time::sleep(numbers.millis(1, 60)).await;
        let count = tokio::task::block_in_place(|| postgres.sql("postgres", &sql)).unwrap();
        (strokes, ended) = (strokes + 1, ended + count.parse::<u64>().unwrap());
        assert!(strokes < 20 * terminations, "{ended} connections ended in {strokes} strokes");
    }
    fleet.progress(1).await;
    let outcome = fleet.finish().await;
    println!("{ended} connections ended in {strokes} strokes: {outcome}");
}
