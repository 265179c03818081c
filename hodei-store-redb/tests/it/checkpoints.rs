//! Checkpoints in the file of the jobs.

use bytes::Bytes;
use hodei_core::checkpoint::{CHECKPOINT_MAX, CheckpointStore};
use hodei_core::job::Epoch;
use hodei_core::store::{JobStore, Relocate, Retention, Scope};
use hodei_core::{ErrorKind, Tenant};
use hodei_store_redb::RedbStore;

use crate::env::{Env, job, job_of, owner, spec, submit, tenant, term};

fn epoch(number: u64) -> Epoch {
    Epoch::from_number(number)
}

const HALF: Bytes = Bytes::from_static(b"half");

#[tokio::test]
async fn what_was_saved_and_who_is_shut_out_outlive_the_process_and_are_part_of_a_backup() {
    let env = Env::new();
    let store = env.open();
    let (own, id) = (Tenant::default(), submit(&store, vec![job()]).await[0]);
    store.save(&own, id, epoch(2), HALF).await.unwrap();
    let copy = env.dir.path().join("copy.redb");
    store.backup(&copy).await.unwrap();
    drop(store);
    for store in [env.open(), RedbStore::open(&copy).unwrap()] {
        let stale = CheckpointStore::open(&store, &own, id, epoch(1)).await.unwrap_err();
        assert_eq!(stale.kind(), ErrorKind::LeaseLost);
        assert_eq!(CheckpointStore::open(&store, &own, id, epoch(3)).await.unwrap(), Some(HALF));
        assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn checkpoints_cost_a_row_for_a_save_and_none_for_whoever_opens_again() {
    let env = Env::new();
    let store = env.open();
    let (own, id) = (Tenant::default(), submit(&store, vec![job()]).await[0]);
    let spent = async |commits, written, read, what: &str, since: hodei_core::store::StoreStats| {
        let now = store.stats();
        let cost = (
            now.commits - since.commits,
            now.rows_written - since.rows_written,
            now.rows_read - since.rows_read,
        );
        assert_eq!(cost, (commits, written, read), "{what}");
    };
    let before = store.stats();
    CheckpointStore::open(&store, &own, id, epoch(1)).await.unwrap();
    spent(1, 1, 1, "opened", before).await;
    let before = store.stats();
    CheckpointStore::open(&store, &own, id, epoch(1)).await.unwrap();
    spent(0, 0, 1, "opened again", before).await;
    let before = store.stats();
    store.save(&own, id, epoch(1), vec![7; CHECKPOINT_MAX].into()).await.unwrap();
    spent(1, 1, 1, "saved", before).await;
    let written = store.stats().bytes_written - before.bytes_written;
    assert!(written <= CHECKPOINT_MAX as u64 + 64, "{written} bytes");
}

#[tokio::test]
async fn a_checkpoint_goes_with_its_job_when_that_is_pruned_and_stays_when_its_slot_leaves() {
    let env = Env::new();
    let store = env.open();
    let acme = tenant("acme");
    let id = submit(&store, vec![job_of(&acme, spec()), job_of(&acme, spec())]).await;
    store.save(&acme, id[0], epoch(1), HALF).await.unwrap();
    store.save(&acme, id[1], epoch(1), HALF).await.unwrap();
    store.request_cancel(&Scope::All, vec![id[0]]).await.unwrap();
    env.clock.advance(2 * Retention::KEYS_MIN);
    let node = owner(&store, "node").await;
    let duty = term(&store, "maintain", &node).await;
    let keep = Retention { jobs: Retention::KEYS_MIN, changes: u64::MAX, ..Retention::default() };
    assert_eq!(store.prune(&duty, keep, 10).await.unwrap().jobs, 1);
    assert_eq!(CheckpointStore::open(&store, &acme, id[0], epoch(1)).await.unwrap(), None);
    store.seal_slot(acme.slot(), 1).await.unwrap();
    while store.close_slot(acme.slot(), 1, 10).await.unwrap() {}
    assert_eq!(CheckpointStore::open(&store, &acme, id[1], epoch(1)).await.unwrap(), Some(HALF));
}

#[tokio::test]
async fn checkpoints_are_written_as_lines_and_come_back() {
    let env = Env::new();
    let store = env.open();
    let (own, id) = (Tenant::default(), submit(&store, vec![job(), job()]).await);
    store.save(&own, id[0], epoch(7), HALF).await.unwrap();
    CheckpointStore::open(&store, &own, id[1], epoch(3)).await.unwrap();
    let path = env.dir.path().join("lines");
    let counts = store.export(std::fs::File::create(&path).unwrap()).await.unwrap();
    assert_eq!(counts.checkpoints, 2);
    let other = Env::new();
    let text = std::fs::read(&path).unwrap();
    assert_eq!(other.builder().import(&text[..]).unwrap(), counts);
    let store = other.open();
    assert_eq!(CheckpointStore::open(&store, &own, id[0], epoch(7)).await.unwrap(), Some(HALF));
    let stale = CheckpointStore::open(&store, &own, id[1], epoch(2)).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::LeaseLost);
}
