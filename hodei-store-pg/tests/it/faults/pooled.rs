//! The same behind a proxy that lends connections to the server: for as long as a client stays, or for a transaction.

use std::process::Command;

use hodei_store_pg::{PgStore, PgStoreBuilder};
use hodei_test_servers::{PgBouncer, Pooling, Postgres, Server};

use super::fleet::Fleet;
use super::variable::variable;

/// How often the proxy is killed; `HODEI_PG_BOUNCES` sets another number.
const BOUNCES: u64 = 3;
/// Set in the process of its own in which stores pool transactions: what is seen by one there holds for all.
const APART: &str = "HODEI_PG_TEST_APART";

/// Lets two nodes work behind a proxy that is killed and started again.
async fn bounce(pooling: Pooling, most: &str, set: fn(PgStoreBuilder) -> PgStoreBuilder) {
    let bounces = variable("HODEI_PG_BOUNCES", BOUNCES);
    let postgres = Postgres::shared().expect("PostgreSQL starts");
    let database = postgres.database().expect("a database");
    let bouncer = PgBouncer::start_with(postgres, pooling, &[("default_pool_size", most)]);
    let bouncer = bouncer.expect("PgBouncer starts");
    let url = bouncer.url(&database);
    let fleet = Fleet::start((0..2).map(|_| set(PgStore::builder(url.clone()).connections(4)))).await;
    for _ in 0..bounces {
        fleet.progress(50).await;
        tokio::task::block_in_place(|| {
            bouncer.kill9();
            bouncer.restart().expect("it starts again");
        });
    }
    fleet.progress(50).await;
    let outcome = fleet.finish().await;
    assert!(
        outcome.acknowledged > 0 && !outcome.failures.is_empty(),
        "{pooling:?}, {bounces} deaths: {outcome}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_behind_a_pool_of_sessions_lose_nothing_when_it_dies() {
    bounce(Pooling::Session, "20", |store| store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_behind_a_pool_of_transactions_lose_nothing_when_it_dies() {
    if std::env::var_os(APART).is_some() {
        // Fewer connections than the nodes have, so that each transaction may get another one.
        // Nobody says that they are lent: it is seen.
        return bounce(Pooling::Transaction, "3", |store| store).await;
    }
    let mut apart = Command::new(std::env::current_exe().expect("this program"));
    let name = "faults::pooled::nodes_behind_a_pool_of_transactions_lose_nothing_when_it_dies";
    let ended =
        apart.args(["--exact", name, "--nocapture"]).env(APART, "1").output().expect("a process more");
    let said = [ended.stdout, ended.stderr].concat();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&said));
}
