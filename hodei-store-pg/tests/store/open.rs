//! Opening: the schema, its ledger, and what cannot be opened.

use std::time::{Duration, Instant};

use hodei_core::store::{Coordination, JobStore, Retention, Scope};
use hodei_core::{ErrorKind, Name};
use hodei_store_pg::{Migrated, PgStore};

use crate::env::{TTL, burn, database, job, open, owner, sql, submit};

#[tokio::test]
async fn many_that_open_an_empty_database_at_once_make_one_schema() {
    let database = database();
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let database = database.clone();
        opening.spawn(async move { open(&database).await });
    }
    let stores = opening.join_all().await;
    submit(&stores[3], vec![job()]).await;
    assert_eq!(sql(&database, "SELECT string_agg(version::text, ',') FROM hodei.schema_step"), "1,2");
}

#[tokio::test]
async fn a_migration_says_what_it_did_and_does_it_once() {
    let database = database();
    let config = PgStore::builder(database.url());
    assert_eq!(PgStore::migrate(&config).await.expect("migrate"), Migrated { from: 0, to: 2 });
    assert_eq!(PgStore::migrate(&config).await.expect("migrate"), Migrated { from: 2, to: 2 });
}

/// As where the rest is so large that looking through it takes long.
#[tokio::test]
async fn making_the_first_parts_gives_up_soon_and_whoever_leads_makes_them() {
    let database = database();
    sql(
        &database,
        "CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF current_query() LIKE 'SELECT hodei.add_era%' THEN PERFORM pg_sleep(60); END IF;
         END
         $$;
         CREATE EVENT TRIGGER slow ON ddl_command_start EXECUTE FUNCTION slowly()",
    );
    let began = Instant::now();
    let store = open(&database).await;
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    // The history of a new schema begins with an era of everything before.
    let eras = "SELECT count(*) FROM hodei.era WHERE lo IS NOT NULL";
    assert_eq!(sql(&database, eras), "0");
    let worker = owner(&store, "worker").await;
    submit(&store, vec![job()]).await;
    assert_eq!(burn(&store, &worker, 1).await, 1);
    let duty = Name::literal("upkeep");
    let term = store.take_term(&duty, &worker, TTL).await.expect("take_term").expect("nobody leads");
    sql(&database, "DROP EVENT TRIGGER slow");
    store.prune(&term, Retention::default(), 10).await.expect("prune");
    assert_ne!(sql(&database, eras), "0");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let database = database();
    open(&database).await.close().await;
    sql(&database, "INSERT INTO hodei.schema_step (version, name) VALUES (99, 'from the future')");
    for migrate in [true, false] {
        let error =
            PgStore::builder(database.url()).migrate(migrate).connect().await.expect_err("it is newer");
        assert_eq!(error.kind(), ErrorKind::SchemaTooNew, "{error}");
    }
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.schema_step"), "3");
}

#[tokio::test]
async fn a_database_without_a_schema_is_not_opened_where_nobody_may_make_it() {
    let error = PgStore::builder(database().url()).migrate(false).connect().await.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn what_cannot_be_reached_says_why() {
    let database = database();
    let away = database.url_at("127.0.0.1:1".parse().expect("an address"));
    let stranger = database.url_as("postgres", "not the password");
    for (url, kind) in [
        ("no url at all".to_owned(), ErrorKind::Config),
        (away, ErrorKind::Unavailable),
        (stranger, ErrorKind::Unauthenticated),
    ] {
        let error = PgStore::builder(url.clone()).connect().await.expect_err("it cannot be reached");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!format!("{error} {error:?}").contains("not the password"), "no error tells a password");
    }
}

#[tokio::test]
async fn a_closed_store_is_unavailable() {
    let store = open(&database()).await;
    store.close().await;
    let error = JobStore::lanes(&store, &hodei_core::store::Served::default()).await;
    assert_eq!(error.expect_err("it is closed").kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn changes_go_on_behind_those_of_another_cluster() {
    let database = database();
    let before = open(&database).await;
    let first = submit(&before, vec![job()]).await[0];
    before.close().await;
    // As after a dump from a cluster that had seen many more transactions.
    sql(&database, "UPDATE hodei.change SET pos = pos + 1000000000");
    let after = open(&database).await;
    let second = submit(&after, vec![job()]).await[0];
    let changes = after.changes(&Scope::All, None, 10).await.expect("changes").changes;
    assert_eq!(changes.iter().map(|change| change.job).collect::<Vec<_>>(), [first, second]);
    assert_eq!(sql(&database, "SELECT base >= 1000000000 FROM hodei.log_base"), "t");
    drop(open(&database).await);
    assert_eq!(after.changes(&Scope::All, None, 10).await.expect("changes").changes.len(), 2);
}

#[tokio::test]
async fn what_was_given_out_behind_a_dump_is_not_given_out_again() {
    let database = database();
    let before = open(&database).await;
    let life = owner(&before, "one").await.incarnation;
    before.close().await;
    // As after a dump from another cluster, which went on: the number of its timeline is the same.
    sql(&database, "UPDATE hodei.log_base SET cluster = 1");
    let after = open(&database).await;
    assert_eq!(sql(&database, "SELECT base >= 4294967296 FROM hodei.log_base"), "t");
    assert!(owner(&after, "one").await.incarnation > life + 1_000);
    drop(open(&database).await);
    assert_eq!(sql(&database, "SELECT base < 2 * 4294967296 FROM hodei.log_base"), "t", "once");
}
