//! Submissions that somebody else is in the way of.

use std::time::Duration;

use hodei_core::job::NewJob;
use hodei_core::store::{ChangeLog, Consistency, JobStore, Scope, SubmitOptions, Submitted};
use hodei_core::{Clock, ErrorKind, SystemClock};
use hodei_store_pg::PgStore;

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::env::{database, job, open, spec, sql, submit};

#[tokio::test]
async fn nothing_is_new_that_was_not_stored() {
    let database = database();
    let store = open(&database).await;
    let holder = submit(&store, vec![job().unique("k")]).await[0];
    // Once, between the moment in which the key is taken and the one in which its holder is looked up.
    let prune = format!(
        "CREATE SEQUENCE once;
         CREATE FUNCTION prune() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('once') = 1 THEN
                 DELETE FROM hodei.unique_key WHERE id = '{holder}';
                 DELETE FROM hodei.job WHERE id = '{holder}';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER prune BEFORE INSERT ON hodei.delta FOR EACH ROW EXECUTE FUNCTION prune();"
    );
    sql(&database, &prune);
    let jobs = vec![job().unique("k"), job()];
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    let done = store.submit(jobs, SubmitOptions::each()).await.expect("submit");
    assert!(matches!(done.replies[0], Submitted::Existing(id) | Submitted::Conflict(id) if id == holder));
    assert_eq!(done.replies[1], Submitted::New(ids[1]));
    let read = store.get_many(&Scope::All, ids, Consistency::Latest).await.expect("get");
    assert!(read[0].is_none() && read[1].is_some());
    assert_eq!(sql(&database, "SELECT last_value FROM once"), "2", "it was done again");
}

/// Two nodes are given the same job, which each takes for new: its id has just been minted.
#[tokio::test]
async fn what_seems_new_and_is_not_is_found() {
    let database = database();
    let (one, other) = (open(&database).await, open(&database).await);
    let first = job();
    let done = one.submit(vec![first.clone()], SubmitOptions::each()).await.expect("submit");
    assert_eq!(done.replies, [Submitted::New(first.id)]);
    for store in [&other, &one, &other] {
        let again = store.submit(vec![first.clone()], SubmitOptions::each()).await.expect("submit");
        assert_eq!(
            (again.replies.as_slice(), again.changes.len()),
            (&[Submitted::Existing(first.id)][..], 0)
        );
    }
    let third = open(&database).await;
    let another =
        NewJob { id: first.id, ..NewJob::new(spec().label("other", "yes").build().expect("a spec")) };
    let done = third.submit(vec![another], SubmitOptions::each()).await.expect("submit");
    assert_eq!(done.replies, [Submitted::Conflict(first.id)]);
    submit(&third, vec![job()]).await;
    let rows = "SELECT (SELECT count(*) FROM hodei.job), (SELECT count(*) FROM hodei.ready),
        (SELECT sum(n) FROM hodei.change), (SELECT sum(pending) FROM hodei.delta)";
    assert_eq!(sql(&database, rows), "2|2|2|2");
}

/// A lone job is stored in its own way: it is to be the same job.
#[tokio::test]
async fn a_lone_job_is_stored_as_one_among_many() {
    for changes in [ChangeLog::All, ChangeLog::Off] {
        let database = database();
        let store = PgStore::builder(database.url()).changes(changes).connect().await.expect("a store");
        let in_an_hour = SystemClock.now().saturating_add(Duration::from_secs(3_600));
        let full = || NewJob::new(spec().label("a", "b").build().expect("a spec")).deadline(in_an_hour);
        let alone = submit(&store, vec![full()]).await[0];
        let many = submit(&store, vec![full(), full()]).await[0];
        for table in ["job", "ready"] {
            let row = |id| {
                let without = "- 'id' - 'created_at' - 'eligible_at' - 'fingerprint'";
                sql(
                    &database,
                    &format!("SELECT to_jsonb(t) {without} FROM hodei.{table} t WHERE id = '{id}'"),
                )
            };
            assert_eq!(row(alone), row(many), "{table}");
        }
        let wrong = "SELECT count(*) FROM hodei.job j JOIN hodei.ready r USING (id)
            WHERE j.fingerprint IS NULL OR r.eligible_at <> j.created_at";
        assert_eq!(sql(&database, wrong), "0");
        let expected = if changes == ChangeLog::Off { "3||0" } else { "3|3|2" };
        let counted =
            "SELECT sum(pending), sum(changes), (SELECT count(*) FROM hodei.change) FROM hodei.delta";
        assert_eq!(sql(&database, counted), expected);
    }
}

#[tokio::test]
async fn who_waits_for_a_host_keeps_nobody_else_waiting() {
    let database = database();
    let store = open(&database).await;
    submit(&store, vec![job()]).await;
    let mut host = PgConnection::connect(&database.url()).await.expect("a connection");
    let mut tx = host.begin().await.expect("begin");
    let held: Vec<_> = ["a", "b", "c"].map(|key| job().unique(key)).into_iter().collect();
    store.submit_in(&mut tx, held.clone(), SubmitOptions::each()).await.expect("submit_in");
    let mut waiting = tokio::task::JoinSet::new();
    for key in ["a", "b", "c"] {
        let store = store.clone();
        waiting.spawn(async move { store.submit(vec![job().unique(key)], SubmitOptions::each()).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let others = async {
        for key in ["x", "y"] {
            submit(&store, vec![job()]).await;
            submit(&store, vec![job().unique(key)]).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), others).await.expect("nobody waits for a host");
    tx.commit().await.expect("commit");
    let held: Vec<_> = held.iter().map(|job| job.id).collect();
    for done in waiting.join_all().await {
        let reply = done.expect("submit").replies[0];
        assert!(matches!(reply, Submitted::Existing(id) | Submitted::Conflict(id) if held.contains(&id)));
    }
}

/// Somebody else's transaction has the id of a lone job, and goes on having it.
#[tokio::test]
async fn who_waits_for_an_id_is_told_that_nothing_has_happened() {
    let database = database();
    let store = open(&database).await;
    let waits = PgStore::builder(database.url()).statement_timeout(Duration::from_secs(1));
    let waits = waits.connect().await.expect("a store");
    submit(&waits, vec![job()]).await;
    let mut host = PgConnection::connect(&database.url()).await.expect("a connection");
    let mut tx = host.begin().await.expect("begin");
    let held = job();
    store.submit_in(&mut tx, vec![held.clone()], SubmitOptions::each()).await.expect("submit_in");
    let refused = waits.submit(vec![held.clone()], SubmitOptions::each()).await.expect_err("it is held");
    assert_eq!(refused.kind(), ErrorKind::Timeout);
    tx.commit().await.expect("commit");
    let done = waits.submit(vec![held.clone()], SubmitOptions::each()).await.expect("submit");
    assert_eq!(done.replies, [Submitted::Existing(held.id)]);
}
