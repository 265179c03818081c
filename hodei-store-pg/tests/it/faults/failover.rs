//! A primary that dies, and a standby that takes over: where commits wait for the standby, nothing that was acknowledged is lost.

use hodei_store_pg::PgStore;
use hodei_test_servers::{Postgres, Proxy, Server};

use super::fleet::Fleet;
use super::variable::{Numbers, variable};

/// How often the primary dies; `HODEI_PG_FAILOVERS` sets another number.
const FAILOVERS: u64 = 2;

/// Starts a standby that every commit of the primary waits for from now on.
fn standby_of(primary: &Postgres) -> Postgres {
    let standby = primary.standby().expect("a standby");
    primary.set("synchronous_standby_names", "*").expect("a setting");
    standby
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_commits_waited_for_takes_over_without_a_loss() {
    let failovers = variable("HODEI_PG_FAILOVERS", FAILOVERS);
    let mut numbers = Numbers::new("HODEI_PG_FAILOVERS_SEED");
    println!("HODEI_PG_FAILOVERS_SEED: {numbers:?}");
    let mut primary = Postgres::start().expect("PostgreSQL");
    let database = primary.database().expect("a database");
    let proxy = Proxy::start(primary.address()).expect("a proxy");
    let mut standby = standby_of(&primary);
    let store = || PgStore::builder(database.url_at(proxy.address())).connections(4);
    let fleet = Fleet::start((0..2).map(|_| store())).await;
    for n in 1..=failovers {
        fleet.progress(10).await;
        tokio::time::sleep(numbers.millis(0, 300)).await;
        tokio::task::block_in_place(|| {
            // What the primary had acknowledged is on the disk of the standby; that it is gone is sure before that takes over.
            primary.kill9();
            standby.promote().expect("it takes over");
            proxy.redirect(standby.address());
        });
        fleet.progress(10).await;
        primary = standby;
        standby = tokio::task::block_in_place(|| standby_of(&primary));
        println!("failover {n}: {} jobs settled", fleet.settled());
    }
    let outcome = fleet.finish().await;
    println!("{failovers} failovers: {outcome}");
    assert!(!outcome.failures.is_empty());
}
