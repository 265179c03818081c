//! Unique keys that go with the ends of their jobs, whoever ends them, and who waits for whom.

use hodei_core::JobId;
use hodei_core::job::{Finish, Output, Unique};
use hodei_core::store::{Applied, JobStore, Move, Redriven, Scope, SubmitOptions, Submitted, Transition};
use hodei_store_pg::PgStore;
use hodei_test_servers::Database;

use crate::env::{claim, database, done, exchange, job, open, owner, sql, submit, try_sql};
use crate::locks::{run, somebody_waits, stranger};

/// Submits a job with a key that is free once it has ended.
async fn keyed(store: &PgStore, key: &str) -> Submitted {
    let job = job().unique(Unique::key(key).while_open());
    store.submit(vec![job], SubmitOptions::each()).await.expect("the store is sound").replies[0]
}

async fn new(store: &PgStore, key: &str) -> JobId {
    match keyed(store, key).await {
        Submitted::New(id) => id,
        other => panic!("{other:?}"),
    }
}

/// Ends a fresh job as a node of before does where it cancels, with the statements it has.
fn cancelled_by_a_node_of_before(database: &Database, id: JobId) {
    let text = format!(
        "BEGIN;
         SELECT hodei.move('{{}}', '{{}}', '{{}}', ARRAY[j.id], '{{}}', '{{}}', ARRAY[j.id], '{{6}}', '{{f}}', ARRAY[j.tenant],
             ARRAY[j.lane], ARRAY[j.rank], '{{NULL}}', '{{2}}', '{{0}}', '{{0}}', '{{0}}', '{{NULL}}', '{{NULL}}',
             ARRAY[hodei.cause_of(6::int2)], '{{f}}', ARRAY[j.eligible_at], '{{NULL}}', ARRAY[hodei.now()], '{{NULL}}',
             '{{NULL}}', '{{NULL}}') FROM hodei.job j WHERE j.id = '{id}';
         SELECT * FROM hodei.note(7, hodei.now(), '{{}}', '{{}}', '{{}}', '{{1}}', '{{0}}', '{{-1}}', '{{0}}', '{{0}}',
             '{{0}}', '{{0}}', '{{1}}', '{{}}', '{{}}');
         COMMIT"
    );
    sql(database, &text);
}

async fn holds(store: &PgStore) {
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

#[tokio::test]
async fn a_key_is_free_also_where_a_node_of_before_ends_its_job() {
    let database = database();
    let store = open(&database).await;
    let first = new(&store, "nightly").await;
    assert_eq!(keyed(&store, "nightly").await, Submitted::Existing(first));
    cancelled_by_a_node_of_before(&database, first);
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.unique_key"), "0");
    new(&store, "nightly").await;
    holds(&store).await;
}

/// What was left behind before keys went with their jobs is in nobody's way.
#[tokio::test]
async fn a_key_of_a_job_that_has_ended_is_free_for_whoever_asks() {
    let database = database();
    let store = open(&database).await;
    let leave = |id: JobId, key: &str| {
        sql(&database, &format!("INSERT INTO hodei.unique_key VALUES (1, 'open:{key}', '{id}')"));
    };
    let ended = async |key: &str| {
        let id = new(&store, key).await;
        store.request_cancel(&Scope::All, vec![id]).await.expect("request_cancel");
        leave(id, key);
        id
    };
    ended("one").await;
    new(&store, "one").await;
    let back = ended("two").await;
    let again = store.redrive(&Scope::All, vec![back]).await.expect("redrive").replies;
    assert!(matches!(again[0], Redriven::Done), "{again:?}");
    assert_eq!(keyed(&store, "two").await, Submitted::Existing(back));
    holds(&store).await;
}

/// Ends a job that holds one key, and has it spawn one with another: both are passed in the order of their names.
#[tokio::test]
async fn keys_are_passed_in_the_order_of_their_names() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    new(&store, "late").await;
    let held = claim(&store, &worker, 1).await.remove(0).job;
    let mut host = stranger(
        &database,
        "INSERT INTO hodei.unique_key VALUES (1, 'early', '00000000-0000-0000-0000-000000000001')",
    )
    .await;
    let spawning = Finish { spawn: vec![job().unique("early")], ..Finish::succeeded(Output::none()) };
    let end = Transition { job: held.id, epoch: held.epoch, step: Move::Finished(Box::new(spawning)) };
    let ending = {
        let (store, worker) = (store.clone(), worker.clone());
        tokio::spawn(async move { exchange(&store, &worker, vec![end], Vec::new()).await })
    };
    somebody_waits(&database).await;
    let free =
        "SELECT count(*) FROM (SELECT 1 FROM hodei.unique_key WHERE key = 'open:late' FOR UPDATE NOWAIT) k";
    assert_eq!(try_sql(&database, free).expect("nobody has locked it"), "1");
    run(&mut host, "ROLLBACK").await;
    assert_eq!(ending.await.expect("no panic").applied, [Applied::Done]);
    assert_eq!(sql(&database, "SELECT string_agg(key, ' ') FROM hodei.unique_key"), "early");
    holds(&store).await;
}

/// Until the index of such keys is built, and beside any number of others.
#[tokio::test]
async fn an_end_looks_up_its_own_key_and_no_other() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    submit(&store, vec![job()]).await;
    sql(
        &database,
        "INSERT INTO hodei.unique_key SELECT 1, 'kept ' || g, gen_random_uuid() FROM generate_series(1, 20000) g;
         DROP INDEX hodei.unique_key_open; ANALYZE hodei.unique_key",
    );
    let held = claim(&store, &worker, 1).await.remove(0).job;
    let read = "SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_user_tables
        WHERE relid = 'hodei.unique_key'::regclass";
    let told = || async {
        // What a session counted is told when it is idle for a second.
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        sql(&database, read).parse::<u64>().expect("a number")
    };
    let before = told().await;
    let done = exchange(&store, &worker, vec![done(held.id, held.epoch)], Vec::new()).await;
    assert_eq!(done.applied, [Applied::Done]);
    let spent = told().await - before;
    assert!(spent < 10, "{spent} keys were read for one end");
}
