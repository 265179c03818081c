//! Limits of queues, of tenants and of all, set while nodes claim and settle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hodei_core::store::{JobStore, Limit, LimitOf, Policies, Rate, Scope, SubmitOptions};
use hodei_core::{ErrorKind, Name, Tenant};
use hodei_store_pg::PgStore;

use crate::env::{burn, claim, database, jobs, open, owner, sql, submit};
use crate::locks::{run, somebody_waits, stranger};

/// The limits whose rows do not say how much is leased, as of one moment.
pub(crate) const WRONG: &str =
    "SELECT string_agg(format('%s/%s says %s', w.tenant, w.queue, w.in_use), ', ') FROM hodei.wide w
     WHERE w.in_use <> (SELECT count(*) FROM hodei.leased d JOIN hodei.lane l ON l.no = d.lane
         WHERE w.tenant IN (0, l.tenant) AND w.queue IN ('', l.queue))";

fn kinds() -> [LimitOf; 3] {
    let own = Tenant::default;
    [LimitOf::All, LimitOf::Tenant(own()), LimitOf::Queue(own(), Name::literal("default"))]
}

/// Sets a limit as its documentation says: who finds others in the way tries again.
async fn set(store: &PgStore, limit: Limit) {
    let set = async {
        while let Err(error) = store.set_limit(limit.clone()).await {
            assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), set).await.expect("there is a moment for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_claimed_and_settled_while_a_limit_is_set_is_counted() {
    let database = database();
    let (store, over) = (open(&database).await, Arc::new(AtomicBool::new(false)));
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        let (node, over) = (open(&database).await, Arc::clone(&over));
        nodes.push(tokio::spawn(async move {
            let worker = owner(&node, name).await;
            while !over.load(Ordering::Relaxed) {
                node.submit(jobs(8), SubmitOptions::each()).await.expect("submit");
                burn(&node, &worker, 8).await;
            }
        }));
    }
    for _ in 0..20 {
        for of in kinds() {
            set(&store, Limit::new(of.clone(), 10_000)).await;
            assert_eq!(sql(&database, WRONG), "", "{of}");
        }
        assert_eq!(sql(&database, WRONG), "");
        for of in kinds() {
            assert!(store.remove_limit(&of).await.expect("remove_limit"));
        }
    }
    over.store(true, Ordering::Relaxed);
    for node in nodes {
        node.await.expect("no panic");
    }
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

/// Nodes of before know nothing of such limits, and run on until the last of them is replaced.
#[tokio::test]
async fn what_a_node_of_before_ends_counts_no_more() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    store.set_limit(Limit::all(10)).await.expect("set_limit");
    submit(&store, jobs(3)).await;
    assert_eq!(claim(&store, &worker, 2).await.len(), 2);
    let ended = sql(
        &database,
        "SELECT count(*) FROM (SELECT array_agg(id) AS ids FROM hodei.leased) l, hodei.exchange('worker', 1, 7,
             0::int2, l.ids, '{1,1}', '{4,4}', '{0,0}', '{NULL,NULL}', '{}', '{}', '{}') e WHERE e.what = 4",
    );
    assert_eq!(ended, "1", "of one tenant");
    assert_eq!(sql(&database, "SELECT in_use FROM hodei.wide"), "0");
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.done"), "2");
}

/// Whoever waits to make a limit stops everybody: he lets them pass, and tries again.
#[tokio::test]
async fn a_limit_that_is_not_to_be_made_stops_nobody_for_long() {
    let database = database();
    let store = open(&database).await;
    let host = stranger(&database, "SELECT hodei.hold_limits('{}')").await;
    let began = std::time::Instant::now();
    let refused = store.set_limit(Limit::all(1)).await.expect_err("a host is in the way");
    assert_eq!(refused.kind(), ErrorKind::Locked);
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    drop(host);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_waits_for_whoever_claims() {
    let database = database();
    let store = open(&database).await;
    let mut host = stranger(&database, "SELECT hodei.hold_limits('{}')").await;
    let setting = {
        let store = store.clone();
        tokio::spawn(async move { set(&store, Limit::all(1)).await })
    };
    somebody_waits(&database).await;
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.wide"), "0");
    run(&mut host, "COMMIT").await;
    setting.await.expect("no panic");
    assert_eq!(sql(&database, "SELECT most FROM hodei.wide"), "1");
}

/// A clock that was an hour ahead has been set back, and nobody has looked at a lane of the limit since.
#[tokio::test]
async fn a_rate_that_takes_the_place_of_one_of_a_later_clock_has_as_much_spent() {
    let database = database();
    let store = open(&database).await;
    let tenant = Tenant::default();
    let key = LimitOf::Key(tenant.clone(), Name::literal("key"));
    let hour = Duration::from_secs(3_600);
    for of in [key, LimitOf::Tenant(tenant)] {
        let limit = |tokens| Limit { of: of.clone(), max: 9, rate: Some(Rate::new(tokens, hour).burst(10)) };
        store.set_limit(limit(10)).await.expect("set");
        let spent =
            "full_at = (hodei.now() + 3600000000 + 360000000) * 1000, spent_at = hodei.now() + 3600000000";
        sql(&database, &format!("UPDATE hodei.usage SET {spent}; UPDATE hodei.wide SET {spent}"));
        store.set_limit(limit(20)).await.expect("set");
        let used = store.limits(&Scope::All).await.expect("limits");
        let used = used.iter().find(|row| row.limit.of == of).expect("it is there");
        let now: i64 = sql(&database, "SELECT hodei.now()").parse().expect("a number");
        let owed = used.spent.as_nanos() / 1_000 - now;
        // One of twenty an hour.
        assert!((120_000_000..=180_000_000).contains(&owed), "{of:?}: {owed}");
    }
}
