//! The counts of queues: nothing of them waits for anybody, and what has no queue gets one.

use hodei_core::job::State;
use hodei_core::store::{Counts, JobStore, QueueCounts, QueueQuery, Scope};
use hodei_core::{JobId, Name, Tenant};
use hodei_store_pg::PgStore;
use hodei_test_servers::Database;

use crate::env::{claim, database, done, exchange, open, owner, spec, sql, submit};

/// Counts everything without a queue, as it was before there were counts of queues.
const WITHOUT_QUEUES: &str = "SELECT hodei.fold();
    WITH t AS (DELETE FROM hodei.total RETURNING *)
    INSERT INTO hodei.total (tenant, blocked, pending, scheduled, running, succeeded, failed, cancelled, changes)
    SELECT tenant, sum(blocked), sum(pending), sum(scheduled), sum(running), sum(succeeded), sum(failed), sum(cancelled),
        sum(changes) FROM t GROUP BY tenant";

async fn counted(store: &PgStore) -> Vec<QueueCounts> {
    store.queue_counts(&Scope::All, QueueQuery::new()).await.expect("queue_counts")
}

async fn add(store: &PgStore, queue: &'static str, n: usize) -> Vec<JobId> {
    let job = || hodei_core::job::NewJob::new(spec().queue(queue).build().expect("a valid spec"));
    submit(store, (0..n).map(|_| job()).collect()).await
}

/// Jobs in three queues, some of them under way and some ended.
async fn populated(database: &Database) -> PgStore {
    let store = open(database).await;
    let worker = owner(&store, "worker").await;
    add(&store, "a", 30).await;
    let held = claim(&store, &worker, 20).await;
    let ends = held.iter().take(15).map(|of| done(of.job.id, of.job.epoch)).collect();
    exchange(&store, &worker, ends, Vec::new()).await;
    let cancelled = add(&store, "b", 5).await;
    store.request_cancel(&Scope::All, cancelled[..3].to_vec()).await.expect("request_cancel");
    add(&store, "c", 1).await;
    store
}

async fn holds(store: &PgStore) {
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_counted_without_a_queue_is_found_while_others_count() {
    let database = database();
    let store = populated(&database).await;
    let before = counted(&store).await;
    let of = |queue: &str| before.iter().find(|of| of.queue.as_str() == queue).expect("it has jobs").counts;
    assert_eq!(of("a"), Counts::from_numbers([0, 10, 5, 0, 15, 0, 0]));
    assert_eq!(of("b"), Counts::from_numbers([0, 2, 0, 0, 0, 0, 3]));
    sql(&database, WITHOUT_QUEUES);
    let total = store.counts(&Scope::All).await.expect("counts");
    assert_eq!(counted(&store).await, before);
    assert_eq!(store.counts(&Scope::All).await.expect("counts"), total);
    holds(&store).await;
    for _ in 0..5 {
        sql(&database, WITHOUT_QUEUES);
        let (one, two, three) = tokio::join!(counted(&store), counted(&store), add(&store, "c", 7));
        assert!(one.len() == 3 && two.len() == 3 && three.len() == 7);
        holds(&store).await;
    }
    let last = counted(&store).await;
    assert_eq!((last[2].queue.clone(), last[2].counts.of(State::Pending)), (Name::literal("c"), 36));
}

#[tokio::test]
async fn a_queue_whose_jobs_are_gone_has_no_row() {
    let database = database();
    let store = PgStore::builder(database.url()).history(false).connect().await.expect("the store opens");
    let kept = add(&store, "kept", 2).await;
    let gone = add(&store, "gone", 3).await;
    sql(&database, "SELECT hodei.fold()");
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.total WHERE queue <> ''"), "2");
    store.request_cancel(&Scope::All, gone).await.expect("request_cancel");
    assert_eq!(counted(&store).await.len(), 1, "also before it is added up");
    sql(&database, "SELECT hodei.fold()");
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.total WHERE queue <> ''"), "1");
    store.request_cancel(&Scope::All, kept).await.expect("request_cancel");
    sql(&database, "SELECT hodei.fold()");
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.total WHERE queue <> ''"), "0");
    holds(&store).await;
}

/// A node of before tells what it counts by tenant; it is counted where it moves jobs.
#[tokio::test]
async fn what_a_node_of_before_counts_is_counted_once() {
    let database = database();
    let store = populated(&database).await;
    let before = counted(&store).await;
    sql(
        &database,
        "SELECT * FROM hodei.note(7, 1, '{}', '{}', '{}', '{1}', '{0}', '{5}', '{0}', '{0}', '{0}', '{0}', '{0}', '{}', '{}')",
    );
    assert_eq!(counted(&store).await, before);
    holds(&store).await;
}

/// Whoever pages takes a short page for the last.
#[tokio::test]
async fn what_has_no_queue_takes_no_place_in_a_page() {
    let database = database();
    populated(&database).await;
    sql(&database, "INSERT INTO hodei.delta (tenant, succeeded) VALUES (1, -1)");
    let page = "SELECT string_agg(queue, ',') FROM hodei.queue_counts(NULL, NULL, NULL, NULL, 2)";
    assert_eq!(sql(&database, page), "a,b,", "two, and a word of the rest");
    let next = "SELECT string_agg(queue, ',') FROM hodei.queue_counts(NULL, NULL, 'default', 'b', 2)";
    assert_eq!(sql(&database, next), "c,");
}

#[tokio::test]
async fn counts_that_take_too_long_to_find_are_not_made_up() {
    let database = database();
    drop(populated(&database).await);
    let hasty = PgStore::builder(database.url()).statement_timeout(std::time::Duration::from_millis(700));
    let store = hasty.connect().await.expect("the store opens");
    sql(&database, WITHOUT_QUEUES);
    let counting = "SELECT pg_advisory_xact_lock(hashtextextended('hodei.attribute', 0))";
    let mut other = crate::locks::stranger(&database, counting).await;
    let error = store.queue_counts(&Scope::All, QueueQuery::new()).await.expect_err("it takes too long");
    assert_eq!(error.kind(), hodei_core::ErrorKind::Timeout);
    assert!(error.context("counted").is_some(), "{error}");
    crate::locks::run(&mut other, "COMMIT").await;
    assert_eq!(counted(&store).await.len(), 3);
}

#[tokio::test]
async fn one_queue_is_read_by_its_key() {
    let database = database();
    let store = populated(&database).await;
    sql(&database, "SELECT hodei.fold()");
    sql(
        &database,
        "INSERT INTO hodei.total (tenant, queue, pending) SELECT 1, 'q' || g, 1 FROM generate_series(1, 20000) g;
         ANALYZE hodei.total",
    );
    let read = "SELECT coalesce(sum(idx_tup_fetch), 0) + coalesce(sum(seq_tup_read), 0) FROM pg_stat_xact_user_tables
        WHERE relname = 'total'";
    let asked = format!(
        "BEGIN; SELECT count(*) FROM hodei.queue_counts('default', 'a', NULL, NULL, 1); {read}; COMMIT"
    );
    let rows: u64 =
        sql(&database, &asked).lines().rev().find_map(|line| line.trim().parse().ok()).expect("a number");
    assert!(rows <= 4, "{rows} rows were read for one queue of 20,000");
    let scope = Scope::Tenant(Tenant::default());
    let one = store.queue_counts(&scope, QueueQuery::new().queue(Name::literal("a")).limit(1)).await;
    assert_eq!(one.expect("queue_counts").len(), 1);
}
