//! Submitting and settling inside a transaction of the host.

use futures_util::StreamExt;
use hodei_core::job::{Parent, Requires, State};
use hodei_core::store::{Applied, Consistency, JobStore, Refusal, Scope, SubmitOptions, Submitted};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::env::{claim, database, done, job, open, owner, sql, submit};

#[tokio::test]
async fn jobs_are_there_when_the_transaction_commits_and_only_then() {
    let database = database();
    let store = open(&database).await;
    sql(&database, "CREATE TABLE orders (id int)");
    let mut host = PgConnection::connect(&database.url()).await.expect("a connection");
    for commit in [false, true] {
        let mut tx = host.begin().await.expect("begin");
        sqlx::query("INSERT INTO orders VALUES (1)").execute(&mut *tx).await.expect("insert");
        let (first, second) = (job(), job());
        let (parent, child) = (first.id, second.id);
        let second = second.after([Parent { id: parent, requires: Requires::Success }]);
        let jobs = vec![first, second];
        let replies = store.submit_in(&mut tx, jobs, SubmitOptions::atomic()).await.expect("submit_in");
        assert_eq!(replies, [Submitted::New(parent), Submitted::New(child)]);
        assert_eq!(store.counts(&Scope::All).await.expect("counts").total(), 0);
        let mut wakeups = store.wakeups();
        if commit {
            tx.commit().await.expect("commit");
            let woken = tokio::time::timeout(std::time::Duration::from_secs(60), wakeups.next()).await;
            woken.expect("the node is told");
        } else {
            tx.rollback().await.expect("rollback");
        }
    }
    let counts = store.counts(&Scope::All).await.expect("counts");
    assert_eq!((counts.of(State::Pending), counts.of(State::Blocked)), (1, 1));
    assert_eq!(sql(&database, "SELECT count(*) FROM orders"), "1");
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

#[tokio::test]
async fn a_refusal_leaves_the_transaction_as_it_was() {
    let database = database();
    let store = open(&database).await;
    sql(&database, "CREATE TABLE orders (id int)");
    let mut host = PgConnection::connect(&database.url()).await.expect("a connection");
    let mut tx = host.begin().await.expect("begin");
    sqlx::query("INSERT INTO orders VALUES (1)").execute(&mut *tx).await.expect("insert");
    let orphan = job().after([Parent { id: job().id, requires: Requires::Ended }]);
    let replies = store.submit_in(&mut tx, vec![orphan], SubmitOptions::each()).await.expect("submit_in");
    assert!(matches!(replies[0], Submitted::Refused(Refusal::UnknownParent(_))));
    tx.commit().await.expect("commit");
    assert_eq!(sql(&database, "SELECT count(*) FROM orders"), "1");
}

#[tokio::test]
async fn an_end_and_what_the_run_did_become_true_together_or_not_at_all() {
    let database = database();
    let store = open(&database).await;
    sql(&database, "CREATE TABLE results (id int)");
    let worker = owner(&store, "worker").await;
    let id = submit(&store, vec![job()]).await[0];
    let held = claim(&store, &worker, 1).await.remove(0);
    let mut host = PgConnection::connect(&database.url()).await.expect("a connection");
    for commit in [false, true] {
        let mut tx = host.begin().await.expect("begin");
        sqlx::query("INSERT INTO results VALUES (1)").execute(&mut *tx).await.expect("insert");
        let applied = store.settle_in(&mut tx, vec![done(id, held.job.epoch)]).await.expect("settle_in");
        assert_eq!(applied, [Applied::Done]);
        if commit { tx.commit().await.expect("commit") } else { tx.rollback().await.expect("rollback") }
    }
    assert_eq!(sql(&database, "SELECT count(*) FROM results"), "1");
    let read = store.get_many(&Scope::All, vec![id], Consistency::Latest).await.expect("get");
    assert_eq!(read[0].as_ref().map(|job| job.state), Some(State::Succeeded));
    let mut tx = host.begin().await.expect("begin");
    let stale = store.settle_in(&mut tx, vec![done(id, held.job.epoch.next())]).await.expect("settle_in");
    assert!(matches!(stale[0], Applied::LeaseLost { .. }), "another epoch changes nothing");
}
