//! Two and three nodes on one database.

use hodei_store_pg::PgStore;
use hodei_test_servers::Postgres;

use super::fleet::Fleet;
use super::variable::variable;

/// How many jobs are settled; `HODEI_PG_RACE` sets another number.
const JOBS: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_race_claim_nothing_twice() {
    let jobs = variable("HODEI_PG_RACE", JOBS);
    let postgres = Postgres::shared().unwrap();
    for nodes in [2, 3] {
        let database = postgres.database().unwrap();
        let fleet = Fleet::start((0..nodes).map(|_| PgStore::builder(database.url()).connections(3))).await;
        fleet.progress(jobs).await;
        let outcome = fleet.finish().await;
        println!("{nodes} nodes: {outcome}");
        assert_eq!(outcome.acknowledged, outcome.settled);
    }
}
