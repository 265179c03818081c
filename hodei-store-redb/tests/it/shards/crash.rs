//! A move that dies at any step, with the files closed where they are then, and is taken up again.

use hodei_core::store::*;
use hodei_core::testkit::fault::{Fault, Faults};
use hodei_core::{ErrorKind, Tenant};

use super::world::{Files, changes, seen, versions_in_order};
use crate::env::{claim, job_of, owner, spec, submit};
use crate::faults::Worker;

/// Two files with jobs in every state, of tenants in both, as bytes.
async fn story(files: &Files, seed: u64) -> Vec<Vec<u8>> {
    let store = files.open().await;
    let clock = std::sync::Arc::clone(&files.0[0].clock);
    let mut worker = Worker::new(seed, clock).repeatable();
    for _ in 0..60 {
        worker.step(&store, &|| 0).await.expect("the files are sound");
    }
    let node = owner(&store, "holder").await;
    submit(&store, (0..9).map(|_| job_of(&Tenant::default(), spec())).collect()).await;
    claim(&store, &node, 2).await;
    drop(store);
    // Whoever opens them again finds every owner dead, each time.
    drop(files.stores());
    files.bytes()
}

#[tokio::test]
async fn a_move_survives_the_failure_of_every_call_and_the_loss_of_its_process() {
    let files = Files::new(2);
    for seed in [1, 2] {
        let bytes = story(&files, seed).await;
        let slot = Tenant::default().slot();
        for fault in [Fault::Refused, Fault::ReplyLost] {
            let mut calls = 0;
            loop {
                files.restore(&bytes);
                let faults = Faults::new();
                let store = files.open_faulty(&faults).await;
                let to = 1 - store.shard_of(&Tenant::default());
                let (before, log) = (seen(&store).await.expect("nothing moves"), changes(&store).await);
                faults.one(calls, fault);
                let moved = store.move_slot(slot, to).await;
                drop(store);
                let next = files.open().await;
                match seen(&next).await {
                    Ok(seen) => assert_eq!(seen, before, "whatever can be read is whole"),
                    Err(error) => assert!(error.is_retryable() && is_slot_closed(&error), "{error}"),
                }
                next.resume_moves().await.expect("it is taken up");
                next.move_slot(slot, to).await.expect("or begins anew");
                assert_eq!(seen(&next).await.expect("it has arrived"), before);
                assert_eq!(next.verify_indexes().await.expect("verify"), Vec::<String>::new());
                let after = changes(&next).await;
                versions_in_order(&after);
                assert_eq!(after.len(), log.len(), "a move changes nothing");
                match moved {
                    Ok(()) => break,
                    Err(error) => {
                        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Indeterminate));
                    }
                }
                calls += 1;
            }
            assert!(calls >= 10, "the move makes more calls than {calls}");
        }
        files.0.iter().for_each(|env| std::fs::remove_file(env.path()).expect("it is there"));
    }
}
