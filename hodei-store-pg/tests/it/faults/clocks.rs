//! A server whose clock is set back: what was ready, dead or spent is so afterwards.

use hodei_core::job::{Lease, NewJob, Priority};
use hodei_core::store::{
    Claimed, Coordination, Exchange, JobStore, Lane, Limit, LimitOf, Pick, Policies, Rate, SubmitOptions,
};
use hodei_core::testkit::typical_spec;
use hodei_core::{Name, OwnerId, Tenant};
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres};

use super::fleet::TTL;

const HOUR: i64 = 3_600;

/// Sets the clock of a database so many seconds forward of the time that it is, or back.
fn set(postgres: &Postgres, database: &Database, seconds: i64) {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION hodei.now() RETURNS int8 LANGUAGE sql VOLATILE PARALLEL UNSAFE AS
             $$ SELECT ((extract(epoch FROM clock_timestamp()) + {seconds}) * 1000000)::int8 $$"
    );
    tokio::task::block_in_place(|| postgres.sql(database.name(), &sql)).expect("the clock is set");
}

async fn register(store: &PgStore, name: &str) -> Lease {
    store.register(&OwnerId::new(name).expect("a name"), TTL).await.expect("the server is well")
}

/// Claims one job from the lane of another.
async fn claim(store: &PgStore, owner: &Lease, beside: &NewJob) -> Vec<Claimed> {
    let (tenant, queue) = (beside.tenant.clone(), beside.spec.queue().clone());
    let lane = Lane { tenant, queue, class: beside.spec.class() };
    let picks = vec![Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n: 1 }];
    let exchange = Exchange { owner: owner.clone(), transitions: Vec::new(), picks };
    store.exchange(exchange).await.expect("the server is well").claimed
}

/// What an hour ahead was ready, dead or spent is so after the clock was set back by that hour, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_waits_for_a_clock_that_was_set_back() {
    let postgres = Postgres::shared().expect("PostgreSQL");
    let database = postgres.database().expect("a database");
    let store = PgStore::builder(database.url()).connections(4).connect().await.expect("the store opens");
    let paced = LimitOf::Key(Tenant::default(), Name::literal("paced"));
    let a_second = Rate::new(1, std::time::Duration::from_secs(1)).burst(1);
    store.set_limit(Limit::paced(paced, a_second)).await.expect("a limit");
    set(postgres, &database, HOUR);
    let job = |queue: &str| {
        let spec = typical_spec().queue(queue);
        let spec = if queue == "paced" { spec.limited_by("paced") } else { spec };
        NewJob::new(spec.build().expect("a valid spec"))
    };
    let jobs: Vec<NewJob> = ["free", "free", "paced", "paced"].map(job).into_iter().collect();
    store.submit(jobs.clone(), SubmitOptions::each()).await.expect("submit");
    let (node, dying) = (register(&store, "node").await, register(&store, "dying").await);
    assert_eq!(claim(&store, &dying, &jobs[0]).await.len(), 1);
    assert_eq!(claim(&store, &dying, &jobs[2]).await.len(), 1);
    assert!(store.beat(vec![node.clone()], TTL).await.expect("beat")[0].alive);
    set(postgres, &database, 0);
    let claimed = claim(&store, &node, &jobs[0]).await;
    assert_eq!(claimed.len(), 1, "it was ready before");
    assert!(claimed[0].job.moved_at >= claimed[0].job.created_at);
    // Long enough for the dead to be dead, and for the rate to let one more through.
    let node = loop {
        let beats = store.beat(vec![node.clone()], TTL).await.expect("beat");
        let node = if beats[0].alive { node.clone() } else { register(&store, "node").await };
        tokio::time::sleep(TTL / 4).await;
        if !claim(&store, &node, &jobs[2]).await.is_empty() {
            break node;
        }
    };
    tokio::time::sleep(TTL).await;
    let leader = register(&store, "leader").await;
    let duty = Name::literal("upkeep");
    let term = store.take_term(&duty, &leader, TTL).await.expect("a term").expect("nobody leads");
    let reaped = store.reap(&term, 9, 100).await.expect("reap");
    assert!(reaped.changes.len() >= 2, "{reaped:?}");
    assert_eq!(store.leases_of(&dying).await.expect("leases").len(), 0);
    drop(node);
    store.close().await;
}
