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
            match n % 3 {
                0 => postgres.stop_immediate(),
                1 => postgres.stop_fast(),
                _ => postgres.kill9(),
            }
            postgres.restart().expect("the server starts again");
        });
        let up = Instant::now();
        fleet.progress(1).await;
        slowest = slowest.max(up.elapsed());
    }
    let outcome = fleet.finish().await;
    println!("{restarts} restarts: {outcome}; work went on {slowest:?} after a start at the latest");
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
    let mut ended = 0;
    for n in 0..terminations {
        if n % 10 == 9 {
            fleet.progress(1).await;
        }
        tokio::time::sleep(numbers.millis(1, 60)).await;
        let count = tokio::task::block_in_place(|| postgres.sql("postgres", &sql)).unwrap();
        ended += count.parse::<u64>().unwrap();
    }
    fleet.progress(1).await;
    let outcome = fleet.finish().await;
    println!("{ended} connections ended in {terminations} strokes: {outcome}");
    assert!(ended > 0);
}
