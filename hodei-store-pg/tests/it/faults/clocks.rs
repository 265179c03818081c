//! A server whose clock is set forward and back: what was ready, dead or spent is so afterwards, nothing is lost or done twice,
//! and work goes on.

use std::time::{Duration, Instant};

use hodei_core::job::{Lease, NewJob, Priority};
use hodei_core::store::{
    Claimed, Coordination, Exchange, JobStore, Lane, Limit, LimitOf, Pick, Policies, Rate, Scope, Served,
    SubmitOptions,
};
use hodei_core::testkit::typical_spec;
use hodei_core::{Name, OwnerId, Tenant};
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres};
use sqlx::{Connection, PgConnection};

use super::fleet::{Fleet, PATIENCE, TTL};
use super::variable::{Numbers, variable};

const HOUR: i64 = 3_600;
/// Ten years.
const SPAN: i64 = 10 * 365 * 24 * HOUR;
/// How often the clock is set while nodes work; `HODEI_PG_CLOCKS` sets another number.
const STEPS: u64 = 12;

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
    let a_second = Rate::new(1, Duration::from_secs(1)).burst(1);
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

/// Sets the clock forward, lets something be done then, and sets it back; what was done is locked, as if it were under way, until
/// somebody who lives has looked at both clocks.
async fn under_way(world: &World, locks: &[&'static str], done: impl AsyncFnOnce(&Lease)) {
    let World { postgres, database, store } = world;
    set(postgres, database, HOUR);
    let lives = register(store, "node").await;
    done(&lives).await;
    let mut other = PgConnection::connect(&database.url()).await.expect("the server is well");
    let mut other = other.begin().await.expect("the server is well");
    for lock in locks {
        sqlx::query(*lock).execute(&mut *other).await.expect("nobody is in the way");
    }
    assert!(store.beat(vec![lives.clone()], TTL).await.expect("beat")[0].alive);
    set(postgres, database, 0);
    store.beat(vec![lives.clone()], TTL).await.expect("beat");
    other.rollback().await.expect("the server is well");
}

/// The time of a database, in seconds.
fn now(postgres: &Postgres, database: &Database) -> i64 {
    let now = tokio::task::block_in_place(|| postgres.sql(database.name(), "SELECT hodei.now() / 1000000"));
    now.expect("the server is well").parse().expect("a number")
}

struct World {
    postgres: &'static Postgres,
    database: Database,
    store: PgStore,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_saw_the_clock_of_before_leaves_its_rate_as_open_as_it_is_on_the_clock_of_now() {
    let (tenant, queue) = (Tenant::default, Name::literal("paced"));
    for of in [LimitOf::Key(tenant(), queue.clone()), LimitOf::Queue(tenant(), queue)] {
        for looks in [true, false] {
            let postgres = Postgres::shared().expect("PostgreSQL");
            let database = postgres.database().expect("a database");
            let store =
                PgStore::builder(database.url()).connections(4).connect().await.expect("the store opens");
            let a_second = Rate::new(1, Duration::from_secs(1)).burst(1);
            store.set_limit(Limit::paced(of.clone(), a_second)).await.expect("a limit");
            let spec = typical_spec().queue("paced").limited_by("paced").build().expect("a valid spec");
            let jobs: Vec<NewJob> = (0..2).map(|_| NewJob::new(spec.clone())).collect();
            store.submit(jobs.clone(), SubmitOptions::each()).await.expect("submit");
            let world = World { postgres, database, store };
            let locks = ["SELECT 1 FROM hodei.wide FOR UPDATE", "SELECT 1 FROM hodei.usage FOR UPDATE"];
            under_way(&world, &locks, async |owner| {
                assert_eq!(claim(&world.store, owner, &jobs[0]).await.len(), 1);
            })
            .await;
            let spent = world.store.limits(&Scope::All).await.expect("limits")[0].spent.as_nanos();
            let later = now(postgres, &world.database) + HOUR / 2;
            assert!(spent / 1_000_000_000 > later, "nobody has brought it back");
            let (owner, end) = (register(&world.store, "node").await, Instant::now() + PATIENCE);
            let opens = async || {
                let lanes = world.store.lanes(&Served::default()).await.expect("lanes");
                !lanes.heads.is_empty()
            };
            while looks && !opens().await || claim(&world.store, &owner, &jobs[0]).await.is_empty() {
                assert!(Instant::now() < end, "{of} is closed");
                assert!(world.store.beat(vec![owner.clone()], TTL).await.expect("beat")[0].alive);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            world.store.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_died_with_a_beat_under_way_that_saw_the_clock_of_before_is_dead() {
    let postgres = Postgres::shared().expect("PostgreSQL");
    let database = postgres.database().expect("a database");
    let store = PgStore::builder(database.url()).connections(4).connect().await.expect("the store opens");
    let world = World { postgres, database, store };
    let duty = Name::literal("upkeep");
    let locks =
        ["SELECT 1 FROM hodei.owner WHERE name = 'dying' FOR UPDATE", "SELECT 1 FROM hodei.term FOR UPDATE"];
    under_way(&world, &locks, async |_| {
        let dying = register(&world.store, "dying").await;
        assert!(world.store.take_term(&duty, &dying, TTL).await.expect("a term").is_some());
    })
    .await;
    let (node, end) = (register(&world.store, "node").await, Instant::now() + PATIENCE);
    while world.store.take_term(&duty, &node, TTL).await.expect("a term").is_none() {
        assert!(Instant::now() < end, "the dead lead");
        assert!(world.store.beat(vec![node.clone()], TTL).await.expect("beat")[0].alive);
        tokio::time::sleep(TTL / 8).await;
    }
    assert!(world.store.beat(vec![node.clone()], TTL).await.expect("beat")[0].alive);
    let owners = world.store.owners().await.expect("owners");
    assert!(owners.iter().all(|owner| owner.lease.owner.name().as_str() == "node"), "{owners:?}");
    world.store.close().await;
}

/// The clock is set to any time of twenty years, whenever it is: nodes that claim under rates, beat and reap work on, lose nothing
/// and do nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_work_on_whatever_the_clock_of_the_server_does() {
    let postgres = Postgres::shared().expect("PostgreSQL");
    let database = postgres.database().expect("a database");
    let mut numbers = Numbers::new("HODEI_PG_CLOCKS_SEED");
    println!("HODEI_PG_CLOCKS_SEED: {numbers:?}");
    let fleet = Fleet::start((0..2).map(|_| PgStore::builder(database.url()).connections(4))).await;
    // Jobs that were ready before the clock was set back are claimed at the time when they were, however many in a moment: a burst
    // is more than all of them. A bucket that is ahead by a minute lets nobody through.
    fleet.pace(Rate::new(1_000, Duration::from_secs(1)).burst(50_000)).await;
    let steps = variable("HODEI_PG_CLOCKS", STEPS);
    for _ in 0..steps {
        fleet.progress(numbers.below(30)).await;
        let years = i64::try_from(numbers.below(2 * SPAN.unsigned_abs())).expect("few") - SPAN;
        let times = [HOUR, -HOUR, 0, years];
        set(postgres, &database, times[usize::try_from(numbers.below(4)).expect("few")]);
    }
    fleet.progress(20).await;
    let outcome = fleet.finish().await;
    println!("the clock was set {steps} times: {outcome}");
}
