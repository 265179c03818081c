//! What 1,000 typical jobs cost, counted. A change that makes a figure worse fails here; one that makes it better
//! lowers the figure.

use hodei_core::job::{Finish, NewJob, Output};
use hodei_core::store::{
    Consistency, Coordination, Exchange, JobStore, Move, Query, Retention, Scope, Served, StoreStats,
    Transition,
};
use hodei_core::testkit::typical_spec;
use hodei_store_redb::RedbStore;

use crate::env::{Env, claim, owner, submit, term};

const JOBS: u64 = 1_000;
/// Rows of as many changes as there are jobs, 32 to a row.
const CHANGES: u64 = JOBS.div_ceil(32);
/// Rows that name as many open jobs, 64 to a row.
const BATCHES: u64 = JOBS.div_ceil(64);

/// The typical job, of a spec that all of them share.
fn typical() -> Vec<NewJob> {
    let spec = std::sync::Arc::new(typical_spec().build().expect("the typical spec is valid"));
    (0..JOBS).map(|_| NewJob::new(std::sync::Arc::clone(&spec))).collect()
}

/// Commits, rows written, rows read.
type Cost = (u64, u64, u64);

/// Counts what came since the last count.
fn spent(store: &RedbStore, since: &mut StoreStats) -> Cost {
    let (before, now) = (*since, store.stats());
    *since = now;
    assert_eq!(now.syncs, now.commits);
    (now.commits - before.commits, now.rows_written - before.rows_written, now.rows_read - before.rows_read)
}

#[tokio::test]
async fn a_thousand_jobs_cost_what_they_did() {
    let env = Env::new();
    let store = env.open();
    let node = owner(&store, "node").await;
    let mut since = store.stats();
    submit(&store, typical()).await;
    let bytes = store.stats().bytes_written - since.bytes_written;
    // What each was born with; the changes, what is open, and the counts of all.
    let cost = (1, JOBS + CHANGES + BATCHES + 1, 1);
    assert_eq!(spent(&store, &mut since), cost, "submitted in one batch");
    assert!(bytes <= 1_000 * JOBS, "{bytes} bytes");

    store.lanes(&Served::default()).await.unwrap();
    assert_eq!(spent(&store, &mut since), (0, 0, 1), "the heads of one lane");

    let held = claim(&store, &node, 1_000).await;
    assert_eq!(held.len(), 1_000);
    // What moves of each; the changes and the counts of all. What they were born with is still in memory.
    let cost = (1, JOBS + CHANGES + 1, 3);
    assert_eq!(spent(&store, &mut since), cost, "claimed in one exchange");

    let finish = |of: &hodei_core::store::Claimed| Transition {
        job: of.job.id,
        epoch: of.job.epoch,
        step: Move::Finished(Box::new(Finish::succeeded(Output::none()))),
    };
    let begin = |of: &hodei_core::store::Claimed| Transition {
        job: of.job.id,
        epoch: of.job.epoch,
        step: Move::Started { lease: None },
    };
    let transitions = held.iter().flat_map(|of| [begin(of), finish(of)]).collect();
    store.exchange(Exchange { owner: node.clone(), transitions, picks: Vec::new() }).await.unwrap();
    // Begun and ended in one exchange, a job is written once: what moves, and the list of what has ended; two changes of
    // each; the counts, and what is no longer open. An end that left nothing behind has no row.
    let cost = (1, 2 * JOBS + (2 * JOBS).div_ceil(32) + BATCHES + 1, 1);
    assert_eq!(spent(&store, &mut since), cost, "begun and settled in one exchange");

    let ids = held.iter().map(|of| of.job.id).collect();
    store.get_many(&Scope::All, ids, Consistency::Latest).await.unwrap();
    assert_eq!(spent(&store, &mut since), (0, 0, 2 * JOBS), "read in full");
    store.query(&Scope::All, Query::new().limit(1_000)).await.unwrap();
    assert_eq!(spent(&store, &mut since), (0, 0, 2 * JOBS), "listed");
    store.counts(&Scope::All).await.unwrap();
    assert_eq!(spent(&store, &mut since), (0, 0, 0), "counted");
}

#[tokio::test]
async fn upkeep_reads_what_it_removes_and_not_what_waits() {
    let env = Env::new();
    let store = env.open();
    let node = owner(&store, "node").await;
    submit(&store, typical()).await;
    assert_eq!(claim(&store, &node, 1_000).await.len(), 1_000);
    store.retire(&node).await.unwrap();
    let node = owner(&store, "node").await;
    let duty = term(&store, "maintain", &node).await;
    let mut since = store.stats();
    assert_eq!(store.reap(&duty, 1, 10).await.unwrap().changes.len(), 10);
    let (_, _, read) = spent(&store, &mut since);
    assert!(read <= 50, "{read} rows read to take ten jobs back");
    assert_eq!(store.reap(&duty, 1, 1_000).await.unwrap().changes.len(), 990);
    env.clock.advance(Retention::KEYS_MIN);
    let node = owner(&store, "node").await;
    let duty = term(&store, "maintain", &node).await;
    let retention = Retention { jobs: Retention::KEYS_MIN, changes: u64::MAX, ..Retention::default() };
    spent(&store, &mut since);
    let pruned = store.prune(&duty, retention, 10).await.unwrap();
    assert_eq!((pruned.jobs, pruned.more), (10, true));
    let (_, _, read) = spent(&store, &mut since);
    assert!(read <= 100, "{read} rows read to remove ten jobs");
}

#[tokio::test]
async fn one_at_a_time_costs_a_commit_each_and_no_more_rows_but_the_counts() {
    let env = Env::new();
    let store = env.open();
    let node = owner(&store, "node").await;
    let mut since = store.stats();
    for job in typical().into_iter().take(20) {
        submit(&store, vec![job]).await;
    }
    assert_eq!(spent(&store, &mut since), (20, 20 * 4, 1));
    for _ in 0..20 {
        assert_eq!(claim(&store, &node, 1).await.len(), 1);
    }
    let (commits, written, _) = spent(&store, &mut since);
    assert_eq!((commits, written), (20, 20 * 3));
}
