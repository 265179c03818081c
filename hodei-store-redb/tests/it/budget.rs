//! What 1,000 typical jobs cost, counted. A change that makes a figure worse fails here; one that makes it better
//! lowers the figure.

use hodei_core::job::{Finish, NewJob, Output};
use hodei_core::store::{
    Consistency, Exchange, JobStore, Move, Query, Scope, Served, StoreStats, Transition,
};
use hodei_core::testkit::typical_spec;
use hodei_store_redb::RedbStore;

use crate::env::{Env, claim, owner, submit};

const JOBS: u64 = 1_000;

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
    // Spec, head, list, lane, change of each; the lane and the counts of all.
    assert_eq!(spent(&store, &mut since), (1, 5 * JOBS + 2, JOBS), "submitted in one batch");
    assert!(bytes <= 1_000 * JOBS, "{bytes} bytes");

    store.lanes(&Served::default()).await.unwrap();
    assert_eq!(spent(&store, &mut since), (0, 0, 2), "the heads of one lane");

    let held = claim(&store, &node, 1_000).await;
    assert_eq!(held.len(), 1_000);
    // Head, list twice, lane, lease, change of each; the counts of all. The spec is still in memory.
    assert_eq!(spent(&store, &mut since), (1, 6 * JOBS + 1, 2 * JOBS + 4), "claimed in one exchange");

    let finish = |of: &hodei_core::store::Claimed| Transition {
        job: of.job.id,
        epoch: of.job.epoch,
        step: Move::Finished(Box::new(Finish::succeeded(Output::none()))),
    };
    let transitions = held.iter().map(finish).collect();
    store.exchange(Exchange { owner: node.clone(), transitions, picks: Vec::new() }).await.unwrap();
    // Head, end, list twice, lease, change of each; the counts of all.
    assert_eq!(spent(&store, &mut since), (1, 6 * JOBS + 1, JOBS + 1), "settled in one exchange");

    let ids = held.iter().map(|of| of.job.id).collect();
    store.get_many(&Scope::All, ids, Consistency::Latest).await.unwrap();
    assert_eq!(spent(&store, &mut since), (0, 0, 3 * JOBS), "read in full");
    store.query(&Scope::All, Query::new().limit(1_000)).await.unwrap();
    assert_eq!(spent(&store, &mut since), (0, 0, 2 * JOBS + 1), "listed");
    store.counts(&Scope::All).await.unwrap();
    assert_eq!(spent(&store, &mut since), (0, 0, 0), "counted");
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
    assert_eq!(spent(&store, &mut since), (20, 20 * 6 + 1, 20));
    for _ in 0..20 {
        assert_eq!(claim(&store, &node, 1).await.len(), 1);
    }
    let (commits, written, _) = spent(&store, &mut since);
    assert_eq!((commits, written), (20, 20 * 7));
}
