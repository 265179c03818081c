//! Checkpoints in the database of the jobs.

use std::time::Duration;

use bytes::Bytes;
use hodei_core::checkpoint::CheckpointStore;
use hodei_core::job::Epoch;
use hodei_core::store::{Coordination, JobStore, Retention};
use hodei_core::testkit::conformance::hold_checkpoints;
use hodei_core::{Name, Tenant};
use hodei_store_pg::PgStore;

use crate::env::{TTL, burn, database, job, open, owner, sql, submit};

#[tokio::test]
async fn checkpoints_are_fenced() {
    let store = open(&database()).await;
    hold_checkpoints(&store.checkpoints()).await;
}

#[tokio::test]
async fn checkpoints_are_those_of_every_node() {
    let database = database();
    let (here, there) = (open(&database).await.checkpoints(), open(&database).await.checkpoints());
    let (tenant, id) = (Tenant::default(), job().id);
    let epoch = Epoch::from_number;
    here.open(&tenant, id, epoch(1)).await.expect("open");
    here.save(&tenant, id, epoch(1), Bytes::from_static(b"half")).await.expect("save");
    let found = there.open(&tenant, id, epoch(2)).await.expect("open");
    assert_eq!(found.as_deref(), Some(&b"half"[..]));
    let stale =
        here.save(&tenant, id, epoch(1), Bytes::from_static(b"stale")).await.expect_err("it lost its lease");
    assert_eq!(stale.kind(), hodei_core::ErrorKind::LeaseLost);
}

#[tokio::test]
async fn a_checkpoint_costs_a_round_trip_and_goes_with_its_job() {
    let database = database();
    let store = PgStore::builder(database.url()).connect().await.expect("the store opens");
    let worker = owner(&store, "worker").await;
    let ids = submit(&store, vec![job(), job()]).await;
    let checkpoints = store.checkpoints();
    let (tenant, epoch) = (Tenant::default(), Epoch::from_number(1));
    let before = store.round_trips();
    for id in &ids {
        assert_eq!(checkpoints.open(&tenant, *id, epoch).await.expect("open"), None);
        checkpoints.save(&tenant, *id, epoch, Bytes::from_static(b"half")).await.expect("save");
    }
    // An announcement of what was submitted may come in between.
    let spent = store.round_trips() - before;
    assert!((4..=6).contains(&spent), "{spent} round trips");
    assert_eq!(burn(&store, &worker, 10).await, 2);
    sql(&database, &format!("UPDATE hodei.done SET moved_at = 1 WHERE id = '{}'", ids[0]));
    let duty = Name::literal("upkeep");
    let term = store.take_term(&duty, &worker, TTL).await.expect("take_term").expect("nobody leads");
    let week = Retention { jobs: Duration::from_secs(7 * 24 * 3_600), ..Retention::default() };
    assert_eq!(store.prune(&term, week, 10).await.expect("prune").jobs, 1);
    assert_eq!(sql(&database, "SELECT string_agg(id::text, ' ') FROM hodei.checkpoint"), ids[1].to_string());
}

#[tokio::test]
async fn a_save_writes_little_more_than_what_is_saved() {
    let quiet = hodei_test_servers::Postgres::builder().setting("autovacuum", "off");
    let server = quiet.setting("checkpoint_timeout", "1h").start().expect("PostgreSQL");
    let store = open(&server.database().expect("a database")).await;
    let (checkpoints, tenant, id) = (store.checkpoints(), Tenant::default(), job().id);
    let epoch = Epoch::from_number(1);
    let save = || checkpoints.save(&tenant, id, epoch, Bytes::from(vec![7; 500]));
    save().await.expect("save");
    let wal = || {
        let text = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
        server.sql("postgres", text).expect("the server answers").parse::<u64>().expect("a number")
    };
    let before = wal();
    for _ in 0..100 {
        save().await.expect("save");
    }
    let spent = (wal() - before) / 100;
    assert!(spent <= 900, "{spent} B of WAL to save 500 B");
    store.close().await;
}
