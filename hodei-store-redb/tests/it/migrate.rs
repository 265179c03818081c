//! Files of older schemas, each written by the version that had it, are read whole by this one.

use std::fs;

use hodei_core::Timestamp;
use hodei_core::store::JobStore;
use hodei_store_redb::RedbStore;

use crate::env::{Env, claim, everything, job, owner, submit};

/// A file of schema 1 with jobs in every state, and everything that its version said of it.
const FIRST: (&[u8], &str) =
    (include_bytes!("../golden/store-schema-1.redb"), include_str!("../golden/store-schema-1.txt"));

/// Everything that a store says, as the versions of those schemas put it: their changes did not name a queue, which no log
/// keeps.
async fn said(store: &RedbStore) -> String {
    format!("{:#?}\n", everything(store).await.expect("it is read")).replace("            queue: None,\n", "")
}

#[tokio::test]
async fn a_file_of_schema_1_says_what_it_said_before_however_small_the_steps_are() {
    for jobs in [1, 3, 1_000] {
        let env = Env::new();
        fs::write(env.path(), FIRST.0).unwrap();
        let store = env.builder().migrate_jobs(jobs).open().unwrap();
        let said = said(&store).await;
        assert!(said == FIRST.1, "{jobs} at a time:\n{said}");
        assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
        let node = owner(&store, "node").await;
        submit(&store, vec![job()]).await;
        assert!(!claim(&store, &node, 1).await.is_empty());
        drop(store);
        assert_eq!(env.open().verify_indexes().await.unwrap(), Vec::<String>::new());
    }
}

/// A file of schema 2, made by seventy calls of every kind, and everything that its version said of it.
const SECOND: (&[u8], &str) =
    (include_bytes!("../golden/store-schema-2.redb"), include_str!("../golden/store-schema-2.txt"));

/// The time on its clock then.
const SECOND_AT: Timestamp = Timestamp::from_micros(1_700_090_001_000_002);

#[tokio::test]
async fn a_file_of_schema_2_says_what_it_said_before() {
    let env = Env::new();
    fs::write(env.path(), SECOND.0).unwrap();
    env.clock.set(SECOND_AT);
    let store = env.open();
    let said = said(&store).await;
    assert!(said == SECOND.1, "{said}");
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    let node = owner(&store, "node").await;
    submit(&store, vec![job()]).await;
    assert!(!claim(&store, &node, 1).await.is_empty());
}
