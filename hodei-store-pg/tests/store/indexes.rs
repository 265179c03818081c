//! Broken and missing indexes are built anew, beside the work.

use hodei_core::store::JobStore;
use hodei_store_pg::PgStore;
use sqlx::Connection;

use crate::env::{burn, database, jobs, open, owner, sql, submit};

const INVALID: &str = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
     WHERE c.relnamespace = 'hodei'::regnamespace AND NOT i.indisvalid";

#[tokio::test]
async fn a_broken_index_is_built_anew_and_a_missing_one_at_all() {
    let database = database();
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    submit(&store, jobs(200)).await;
    assert_eq!(burn(&store, &worker, 100).await, 200);
    let names = "SELECT string_agg(x, '; ' ORDER BY x) FROM (
             SELECT i.indrelid::regclass || substring(pg_get_indexdef(i.indexrelid) FROM ' USING.*') AS x
             FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
             WHERE c.relnamespace = 'hodei'::regnamespace) i";
    let before = sql(&database, names);
    // A building that did not come to its end: somebody used the table all the time.
    sql(&database, "DROP INDEX hodei.ready_moved");
    let mut host = sqlx::PgConnection::connect(&database.url()).await.expect("a connection");
    sqlx::raw_sql("BEGIN; LOCK TABLE hodei.ready IN ROW EXCLUSIVE MODE")
        .execute(&mut host)
        .await
        .expect("it locks");
    let mut builder = sqlx::PgConnection::connect(&database.url()).await.expect("a connection");
    sqlx::raw_sql("SET statement_timeout = '3s'").execute(&mut builder).await.expect("set");
    let text = "CREATE INDEX CONCURRENTLY ready_moved ON hodei.ready (id) WHERE version IS NOT NULL";
    assert!(sqlx::raw_sql(text).execute(&mut builder).await.is_err(), "it is stopped half-way");
    sqlx::raw_sql("COMMIT").execute(&mut host).await.expect("commit");
    assert_eq!(sql(&database, INVALID), "1");
    // And some that are gone: of a table, and of one in parts.
    sql(&database, "DROP INDEX hodei.edge_child; DROP INDEX hodei.job_listed; DROP INDEX hodei.done_bad");
    let config = PgStore::builder(database.url());
    let healed = tokio::join!(PgStore::migrate(&config), PgStore::migrate(&config));
    healed.0.and(healed.1).expect("migrate");
    assert_eq!(sql(&database, INVALID), "0");
    assert_eq!(sql(&database, names), before);
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

#[tokio::test]
async fn an_index_of_some_parts_is_built_for_the_others() {
    let database = database();
    drop(open(&database).await);
    // As after a building that ended behind its first part.
    sql(
        &database,
        "DROP INDEX hodei.job_listed; CREATE INDEX job_listed ON ONLY hodei.job (tenant, created_at, id);
         CREATE INDEX job_0_listed ON hodei.job_0 (tenant, created_at, id);
         ALTER INDEX hodei.job_listed ATTACH PARTITION hodei.job_0_listed",
    );
    assert_eq!(sql(&database, INVALID), "1");
    PgStore::migrate(&PgStore::builder(database.url())).await.expect("migrate");
    assert_eq!(sql(&database, INVALID), "0");
    // Parts that are made from now on have it too.
    sql(&database, "SELECT hodei.add_era(900000000000)");
    let all = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'hodei' AND indexdef LIKE '%(tenant, created_at, id)'";
    let parts = sql(&database, "SELECT count(*) + 2 FROM hodei.era");
    assert_eq!(sql(&database, all), parts, "one for each part, the rest, and the whole");
}
