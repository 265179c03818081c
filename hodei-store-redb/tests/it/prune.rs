//! What one call of a pruning touches, whatever jobs have for children and however their changes share rows.

use hodei_core::JobId;
use hodei_core::job::{NewJob, Parent, Requires, State};
use hodei_core::store::{JobStore, Pruned, Retention, Scope, Term};
use hodei_store_redb::RedbStore;

use crate::env::{Env, job, owner, submit, term};

const KEEP: Retention =
    Retention { jobs: Retention::KEYS_MIN, failed: None, most: u64::MAX, changes: u64::MAX };

async fn duty(env: &Env, store: &RedbStore) -> Term {
    env.clock.advance(2 * Retention::KEYS_MIN);
    let node = owner(store, "node").await;
    term(store, "maintain", &node).await
}

/// Prunes until nothing is left, holds each call to a number of rows read, and written.
async fn prune(store: &RedbStore, term: &Term, limit: usize, most: u64) -> (u64, usize) {
    let (mut jobs, mut calls, mut more) = (0, 0, true);
    while more {
        let before = store.stats();
        let pruned: Pruned = store.prune(term, KEEP, limit).await.expect("the store is sound");
        let after = store.stats();
        let (read, written) = (after.rows_read - before.rows_read, after.rows_written - before.rows_written);
        assert!(read <= 8 * most && written <= most, "{read} rows read and {written} written in one call");
        (jobs, calls, more) = (jobs + pruned.jobs, calls + 1, pruned.more);
        assert!(calls < 1_000, "it comes to an end");
    }
    (jobs, calls)
}

#[tokio::test]
async fn a_parent_of_very_many_goes_by_and_by() {
    const CHILDREN: usize = 20_000;
    let env = Env::new();
    let store = env.open();
    let (parent, last) = (job(), job());
    let needs = Parent { id: parent.id, requires: Requires::Ended };
    let children: Vec<NewJob> = (0..CHILDREN).map(|_| job().after([needs])).collect();
    let child = last.after([needs]);
    let ids: Vec<JobId> = children.iter().map(|job| job.id).collect();
    submit(&store, vec![parent.clone()]).await;
    // The last of them waits.
    submit(&store, [children, vec![child.clone()]].concat()).await;
    for some in ids.chunks(5_000) {
        store.request_cancel(&Scope::All, some.to_vec()).await.unwrap();
    }
    store.request_cancel(&Scope::All, vec![parent.id]).await.unwrap();
    let term = duty(&env, &store).await;
    // The children go, a hundred at a time; the parent stays as long as one of them is open.
    let (jobs, _) = prune(&store, &term, 1_000, 9_000).await;
    assert_eq!(jobs, CHILDREN as u64);
    let counts = store.counts(&Scope::All).await.unwrap();
    assert_eq!((counts.of(State::Cancelled), counts.of(State::Pending)), (1, 1));
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    store.request_cancel(&Scope::All, vec![child.id]).await.unwrap();
    drop(store);
    let store = env.open();
    let term = duty(&env, &store).await;
    assert_eq!(prune(&store, &term, 1_000, 9_000).await.0, 2);
    assert_eq!(store.counts(&Scope::All).await.unwrap().total(), 0);
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn the_edges_to_many_children_go_before_their_parent_and_none_is_looked_at_twice() {
    const CHILDREN: usize = 10_000;
    let env = Env::new();
    let store = env.open();
    let parent = job();
    let needs = Parent { id: parent.id, requires: Requires::Ended };
    submit(&store, vec![parent.clone()]).await;
    store.request_cancel(&Scope::All, vec![parent.id]).await.unwrap();
    env.clock.advance(2 * Retention::KEYS_MIN);
    // They ended only now, so that nothing but the edges to them can go with the parent.
    let children: Vec<NewJob> = (0..CHILDREN).map(|_| job().after([needs])).collect();
    let ids: Vec<JobId> = children.iter().map(|job| job.id).collect();
    submit(&store, children).await;
    for some in ids.chunks(5_000) {
        store.request_cancel(&Scope::All, some.to_vec()).await.unwrap();
    }
    let node = owner(&store, "node").await;
    let term = term(&store, "maintain", &node).await;
    let first = store.prune(&term, KEEP, 100).await.unwrap();
    assert_eq!((first.jobs, first.more), (0, true), "there is no room for all of it in one call");
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    // What was half-way is redriven all the same, and its child as well.
    store.redrive(&Scope::All, vec![ids[0]]).await.unwrap();
    let second = store.prune(&term, KEEP, 100).await.unwrap();
    assert_eq!((second.jobs, second.more), (0, true));
    let (jobs, calls) = prune(&store, &term, 100, 4_500).await;
    assert!(jobs == 1 && calls <= 2, "{jobs} jobs in {calls} calls more");
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    drop(store);
    assert_eq!(env.open().verify_indexes().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn changes_go_by_rows_and_as_fast_as_jobs_bring_them() {
    let env = Env::new();
    let store = env.open();
    let ids = submit(&store, (0..6_400).map(|_| job()).collect()).await;
    store.request_cancel(&Scope::All, ids).await.unwrap();
    let node = owner(&store, "node").await;
    let term = term(&store, "maintain", &node).await;
    let keep = Retention { changes: 100, ..KEEP };
    let pruned = store.prune(&term, keep, 50).await.unwrap();
    assert_eq!((pruned.changes, pruned.more), (50 * 4 * 32, true), "200 rows of 32");
    let rest = store.prune(&term, keep, 500).await.unwrap();
    assert_eq!((rest.changes, rest.more), (12_800 - 6_400 - 100, false));
    let page = store.changes(&Scope::All, None, 1_000).await.unwrap();
    assert_eq!(page.changes.len(), 100);
    // Rows of one change each are as many rows.
    for _ in 0..20 {
        submit(&store, vec![job()]).await;
    }
    let pruned = store.prune(&term, Retention { changes: 0, ..KEEP }, 1).await.unwrap();
    assert!(pruned.more && pruned.changes <= 4 * 32, "{} changes of four rows", pruned.changes);
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
}
