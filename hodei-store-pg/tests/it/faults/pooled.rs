//! The same behind a proxy that lends connections to the server, each to one client at a time.

use hodei_store_pg::PgStore;
use hodei_test_servers::{PgBouncer, Pooling, Postgres, Server};

use super::fleet::Fleet;
use super::variable::variable;

/// How often the proxy is killed; `HODEI_PG_BOUNCES` sets another number.
const BOUNCES: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_behind_a_pool_lose_nothing_when_it_dies() {
    let bounces = variable("HODEI_PG_BOUNCES", BOUNCES);
    let postgres = Postgres::shared().unwrap();
    let database = postgres.database().unwrap();
    let bouncer = PgBouncer::start(postgres, Pooling::Session).unwrap();
    let url = bouncer.url(&database);
    let fleet = Fleet::start((0..2).map(|_| PgStore::builder(url.clone()).connections(4).pooled(true))).await;
    for _ in 0..bounces {
        fleet.progress(50).await;
        tokio::task::block_in_place(|| {
            bouncer.kill9();
            bouncer.restart().expect("it starts again");
        });
    }
    fleet.progress(50).await;
    println!("{bounces} deaths of the proxy: {}", fleet.finish().await);
}
