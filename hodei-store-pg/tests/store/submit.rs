//! Submissions that somebody else is in the way of.

use std::time::Duration;

use hodei_core::store::{Consistency, JobStore, Scope, SubmitOptions, Submitted};

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::env::{database, job, open, sql, submit};

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
