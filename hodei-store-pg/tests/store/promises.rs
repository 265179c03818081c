//! A server that may lose what it acknowledged is refused, and one that only follows another is waited for.

use std::time::Duration;

use hodei_core::ErrorKind;
use hodei_core::store::{JobStore, Served, SubmitOptions};
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres, Server};

use crate::env::{database, job, open, sql};

/// What opening a database comes to.
async fn opened(database: &Database) -> Result<bool, ErrorKind> {
    let store = PgStore::builder(database.url()).connect().await.map_err(|error| error.kind())?;
    let durable = store.capabilities().durable;
    store.close().await;
    Ok(durable)
}

fn set(database: &Database, setting: &str) {
    sql(database, &format!("ALTER DATABASE {} SET {setting}", database.name()));
}

#[tokio::test]
async fn a_database_that_may_lose_commits_is_refused_unless_it_may() {
    let database = database();
    assert_eq!(opened(&database).await, Ok(true));
    set(&database, "synchronous_commit = off");
    assert_eq!(opened(&database).await, Err(ErrorKind::Config));
    let told = PgStore::builder(database.url()).connect().await.expect_err("it may lose commits");
    assert_eq!(told.context("synchronous_commit"), Some("off"), "{told}");
    let store = PgStore::builder(database.url()).may_lose_commits(true).connect().await.expect("it may");
    store.submit(vec![job()], SubmitOptions::each()).await.expect("submit");
    assert!(!store.capabilities().durable);
    assert_eq!(store.stats().syncs, 0);
    store.close().await;
    for fine in ["local", "remote_write", "remote_apply", "on"] {
        // No standby is named: none of these is less than the disk of this server.
        set(&database, &format!("synchronous_commit = {fine}"));
        assert_eq!(opened(&database).await, Ok(true), "{fine}");
    }
}

#[tokio::test]
async fn a_server_without_syncs_is_refused_and_so_is_one_whose_standbys_are_passed_over() {
    let server = Postgres::builder().setting("fsync", "off").start().expect("PostgreSQL");
    assert_eq!(opened(&server.database().expect("a database")).await, Err(ErrorKind::Config));
    // Nobody may write who waits for that standby; opening writes nothing where the schema is there.
    let server = Postgres::start().expect("PostgreSQL");
    let database = server.database().expect("a database");
    assert_eq!(opened(&database).await, Ok(true));
    let local = format!("ALTER DATABASE {} SET synchronous_commit = local", database.name());
    server.sql("postgres", &local).expect("a setting");
    server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'away'").expect("a setting");
    server.sql("postgres", "SELECT pg_reload_conf()").expect("a setting");
    while server.sql("postgres", "SHOW synchronous_standby_names").expect("a setting") != "away" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(opened(&database).await, Err(ErrorKind::Config));
}

#[tokio::test]
async fn a_database_that_begins_to_lose_commits_is_not_written_to_over_new_connections() {
    let database = database();
    let store = open(&database).await;
    set(&database, "synchronous_commit = off");
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    sql(&database, end);
    // A connection that was ended fails once, which nobody knew.
    for _ in 0..8 {
        let refused =
            store.submit(vec![job()], SubmitOptions::each()).await.expect_err("it may lose commits");
        if refused.kind() == ErrorKind::Config {
            store.close().await;
            return;
        }
    }
    panic!("it is written to");
}

#[tokio::test]
async fn a_standby_is_unavailable_until_it_takes_over() {
    let server = Postgres::builder().file("standby.signal", b"").start().expect("PostgreSQL");
    let url = format!("postgres://postgres:{}@{}/postgres", server.password(), server.address());
    let error = PgStore::builder(&url).connect().await.expect_err("it cannot be written to");
    assert_eq!(
        (error.kind(), error.context("server")),
        (ErrorKind::Unavailable, Some("a standby")),
        "{error}"
    );
    server.sql("postgres", "SELECT pg_promote(true)").expect("it takes over");
    let store = PgStore::builder(&url).connect().await.expect("it can be written to");
    store.submit(vec![job()], SubmitOptions::each()).await.expect("submit");
    assert_eq!(store.lanes(&Served::default()).await.expect("lanes").heads.len(), 1);
    store.close().await;
}
