//! No statement reads a large table from its beginning to its end.
//!
//! The server counts it: the tables are filled, every verb is called, and the number of sequential scans must not rise.

use std::time::Duration;

use hodei_core::job::{Finish, State};
use hodei_core::store::{
    Consistency, Coordination, JobStore, Move, Query, QueueQuery, Retention, Scope, Served, SubmitOptions,
    Transition,
};
use hodei_core::{Name, Tenant};
use hodei_test_servers::{Database, Postgres};

use crate::env::{TTL, burn, claim, done, exchange, job, jobs, open, owner, submit};

/// How many jobs there are of each kind.
const MANY: usize = 20_000;

/// The tables that grow with the jobs. Those of names, and those that transactions leave small, are read as the planner
/// likes; that of leases is read whole after a death or a lost reply.
const LARGE: &str = "^((job|done|change)_([0-9]+|rest)|ready|delayed|blocked|edge|unique_key|checkpoint)$";

async fn scans(server: &Postgres, database: &Database) -> String {
    // What a session counted is told when it is idle for a second, or ends.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let sql_text = format!(
        "SELECT string_agg(relname || ' ' || seq_scan, ', ' ORDER BY relname) FROM pg_stat_user_tables
         WHERE schemaname = 'hodei' AND relname ~ '{LARGE}'"
    );
    server.sql(database.name(), &sql_text).expect("the server answers")
}

#[tokio::test]
async fn no_verb_reads_a_large_table_whole() {
    // What the server does by itself, to keep an index of blocks, would be counted too.
    let server = Postgres::builder().setting("autovacuum", "off").start().expect("PostgreSQL");
    let database = server.database().expect("a database");
    let sql = |text: &str| server.sql(database.name(), text).expect("the server answers");
    // Of a table of one page the planner would read all, whatever indexes there are; here only what has none is read so.
    sql(&format!("ALTER DATABASE {} SET enable_seqscan = off", database.name()));
    let store = open(&database).await;
    let worker = owner(&store, "worker").await;
    for _ in 0..MANY / 1_000 {
        submit(&store, jobs(1_000)).await;
    }
    burn(&store, &worker, 1_000).await;
    let later = hodei_core::Timestamp::from_micros(4_000_000_000_000_000);
    for _ in 0..MANY / 1_000 {
        submit(&store, jobs(1_000)).await;
        submit(&store, jobs(1_000).into_iter().map(|job| job.run_at(later)).collect()).await;
    }
    sql("ANALYZE");
    let before = scans(&server, &database).await;
    every_verb(&store).await;
    assert_eq!(scans(&server, &database).await, before);
}

pub(crate) async fn every_verb(store: &hodei_store_pg::PgStore) {
    let worker = owner(store, "another").await;
    let keyed = || ["key", "unfailed:key", "waiting:key"].map(|key| job().unique(key)).to_vec();
    let mut new = keyed();
    new.push(job().deadline(hodei_core::Timestamp::from_micros(0)));
    store.submit(new, SubmitOptions::each()).await.expect("submit");
    store.submit(keyed(), SubmitOptions::each()).await.expect("submit");
    let id = submit(store, vec![job()]).await[0];
    let child = job()
        .unique("open:child")
        .after([hodei_core::job::Parent { id, requires: hodei_core::job::Requires::Success }]);
    store.submit(vec![child], SubmitOptions::atomic()).await.expect("submit");
    let held = claim(store, &worker, 20).await;
    let ends = held.iter().take(10).map(|held| done(held.job.id, held.job.epoch)).collect();
    exchange(store, &worker, ends, Vec::new()).await;
    let spawning = Finish { spawn: vec![job()], ..Finish::succeeded(hodei_core::job::Output::none()) };
    let step = |step| Transition { job: held[10].job.id, epoch: held[10].job.epoch, step };
    exchange(store, &worker, vec![step(Move::Finished(Box::new(spawning)))], Vec::new()).await;
    let back = |n: usize| Transition { job: held[n].job.id, epoch: held[n].job.epoch, step: Move::Returned };
    exchange(store, &worker, vec![back(11), back(12)], Vec::new()).await;
    store.lanes(&Served::default()).await.expect("lanes");
    store.request_cancel(&Scope::All, vec![held[11].job.id, held[13].job.id, id]).await.expect("cancel");
    store.redrive(&Scope::All, vec![held[11].job.id]).await.expect("redrive");
    store.beat(vec![worker.clone()], TTL).await.expect("beat");
    let term = store.take_term(&Name::literal("maintain"), &worker, TTL).await.expect("term").expect("free");
    store.reap(&term, 5, 100).await.expect("reap");
    store.prune(&term, Retention { changes: 1_000, ..Retention::default() }, 100).await.expect("prune");
    let ids = held.iter().map(|held| held.job.id).collect::<Vec<_>>();
    store.get_many(&Scope::All, ids.clone(), Consistency::Latest).await.expect("get");
    store.outputs(&Scope::All, ids).await.expect("outputs");
    for scope in [Scope::All, Scope::Tenant(Tenant::default())] {
        store.counts(&scope).await.expect("counts");
        let of_queue = QueueQuery::new().queue(Name::literal("default"));
        for query in [QueueQuery::new(), of_queue] {
            store.queue_counts(&scope, query).await.expect("queue_counts");
        }
        store.changes(&scope, None, 100).await.expect("changes");
        store.query(&scope, Query::new()).await.expect("query");
        store
            .query(&scope, Query::new().oldest_first().queue(Name::literal("default")))
            .await
            .expect("query");
        for state in [State::Succeeded, State::Failed, State::Cancelled, State::Blocked] {
            store.query(&scope, Query::new().state(state)).await.expect("query");
        }
    }
    store.changes_end().await.expect("end");
}
