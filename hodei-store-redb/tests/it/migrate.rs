//! Files of older schemas, each written by the version that had it, are read whole by this one.

use std::fs;

use hodei_core::checkpoint::CheckpointStore;
use hodei_core::job::Epoch;
use hodei_core::store::{JobStore, Relocate, Scope, SubmitOptions};
use hodei_core::{ErrorKind, JobId, Tenant, Timestamp};
use hodei_store_redb::RedbStore;

use crate::env::{Env, claim, everything, job, job_of, owner, spec, submit, tenant};
use crate::story;

/// A file of schema 1 with jobs in every state, and everything that its version said of it.
const FIRST: (&[u8], &str) =
    (include_bytes!("../golden/store-schema-1.redb"), include_str!("../golden/store-schema-1.txt"));

/// What the versions of those schemas did not say: changes named no queue, which no log keeps, and limits had no rates.
const UNSAID: [&str; 3] = [
    "            queue: None,\n",
    "                rate: None,\n",
    "            spent: Spent(\n                0,\n            ),\n",
];

/// Everything that a store says, as the versions of those schemas put it.
async fn said(store: &RedbStore) -> String {
    let said = format!("{:#?}\n", everything(store).await.expect("it is read"));
    UNSAID.iter().fold(said, |said, unsaid| said.replace(unsaid, ""))
}

/// The store works, and its file is sound before and after.
async fn serves(env: &Env, store: RedbStore) {
    assert_eq!(store.verify_indexes().await.expect("it is looked through"), Vec::<String>::new());
    let node = owner(&store, "node").await;
    submit(&store, vec![job()]).await;
    assert!(!claim(&store, &node, 1).await.is_empty());
    drop(store);
    assert_eq!(env.open().verify_indexes().await.expect("it is looked through"), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_of_schema_1_says_what_it_said_before_however_small_the_steps_are() {
    for jobs in [1, 3, 1_000] {
        let env = Env::new();
        fs::write(env.path(), FIRST.0).unwrap();
        let store = env.builder().migrate_jobs(jobs).open().unwrap();
        let said = said(&store).await;
        assert!(said == FIRST.1, "{jobs} at a time:\n{said}");
        serves(&env, store).await;
    }
}

/// Compacting one with a limit of zero once noted that its jobs were rewritten when none was: it never opened again.
#[tokio::test]
async fn a_file_of_schema_1_is_compacted_whole_or_not_touched() {
    let env = Env::new();
    fs::write(env.path(), FIRST.0).unwrap();
    assert_eq!(env.builder().migrate_jobs(0).compact().unwrap_err().kind(), ErrorKind::Config);
    assert!(fs::read(env.path()).unwrap() == FIRST.0, "not one byte is another");
    env.builder().migrate_jobs(1).compact().unwrap();
    let store = env.open();
    assert!(said(&store).await == FIRST.1);
    serves(&env, store).await;
}

/// Files of later schemas, made by calls of every kind, what their versions said of them, and the time on their clocks
/// then. From schema 3 on a slot is on its way out of the file and one on its way in; from schema 4 on jobs have turns, and
/// one has a checkpoint. Those of schemas 5 and 6 are what [`story`] is told to; only the latter knows of rates. The last
/// one is of today's schema, for the versions that follow.
const LATER: [(&[u8], &str, Timestamp); 5] = [
    (
        include_bytes!("../golden/store-schema-2.redb"),
        include_str!("../golden/store-schema-2.txt"),
        Timestamp::from_micros(1_700_090_001_000_002),
    ),
    (
        include_bytes!("../golden/store-schema-3.redb"),
        include_str!("../golden/store-schema-3.txt"),
        Timestamp::from_micros(1_700_180_001_001_001),
    ),
    (
        include_bytes!("../golden/store-schema-4.redb"),
        include_str!("../golden/store-schema-4.txt"),
        Timestamp::from_micros(1_700_007_260_001_001),
    ),
    (
        include_bytes!("../golden/store-schema-5.redb"),
        include_str!("../golden/store-schema-5.txt"),
        Timestamp::from_micros(1_700_000_120_000_000),
    ),
    (TODAY, include_str!("../golden/store-schema-6.txt"), Timestamp::from_micros(1_700_000_120_000_000)),
];

/// The file of today's schema.
const TODAY: &[u8] = include_bytes!("../golden/store-schema-6.redb");

/// Whoever raises the schema has this file left behind by the version before: `HODEI_GOLDEN` names the path to copy it to.
#[tokio::test]
async fn a_file_that_is_made_today_says_what_its_golden_file_says() {
    let env = Env::new();
    let store = env.open();
    story::tell(&store, &env.clock).await;
    let said = said(&store).await;
    drop(store);
    if let Some(path) = std::env::var_os("HODEI_GOLDEN") {
        fs::copy(env.path(), path).unwrap();
    }
    assert!(said == LATER[LATER.len() - 1].1, "{said}");
}

#[tokio::test]
async fn files_of_later_schemas_say_what_they_said_before() {
    for (file, before, at) in LATER {
        for jobs in [1, 1_000] {
            let env = Env::new();
            fs::write(env.path(), file).unwrap();
            env.clock.set(at);
            let store = env.builder().migrate_jobs(jobs).open().unwrap();
            let said = said(&store).await;
            assert!(said == before, "{jobs} at a time:\n{said}");
            serves(&env, store).await;
        }
    }
}

/// The moves that were under way go on, and come into sight whole.
#[tokio::test]
async fn slots_that_were_on_their_way_in_older_files_go_on() {
    for (file, _, at) in &LATER[1..] {
        let env = Env::new();
        fs::write(env.path(), file).unwrap();
        env.clock.set(*at);
        let store = env.open();
        let total = store.counts(&Scope::All).await.unwrap().total();
        let (leaves, comes) = (tenant("leaves"), tenant("comes"));
        let error = store.submit(vec![job_of(&leaves, spec())], SubmitOptions::each()).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        store.open_slot(comes.slot(), 1).await.unwrap();
        assert_eq!(store.counts(&Scope::Tenant(comes)).await.unwrap().total(), 2);
        store.close_slot(leaves.slot(), 1, 100).await.unwrap();
        assert_eq!(store.counts(&Scope::All).await.unwrap().total(), total, "two came and two went");
        assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    }
}

/// What a run had saved by schema 4 is there for the next one.
#[tokio::test]
async fn checkpoints_of_older_files_are_there() {
    for (file, _, at) in &LATER[2..] {
        let env = Env::new();
        fs::write(env.path(), file).unwrap();
        env.clock.set(*at);
        let (store, own) = (env.open(), Tenant::default());
        let saved = JobId::from_parts(0x7fff_0000_000a, own.slot(), 10);
        let found = CheckpointStore::open(&store, &own, saved, Epoch::from_number(3)).await.unwrap();
        assert_eq!(found.as_deref(), Some(&b"half"[..]));
    }
}
