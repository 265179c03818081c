//! Copies of a file that is in use, and files made small.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use hodei_core::store::{Coordination, JobStore, Retention, Scope};
use hodei_core::{ErrorKind, ManualClock};

use crate::env::{Env, everything, job, owner, submit, term};
use crate::reopen::populate;

#[tokio::test]
async fn a_copy_says_what_the_store_said() {
    let env = Env::new();
    let store = env.open();
    populate(&env, &store).await;
    let before = everything(&store).await.unwrap();
    let copy = Env::new();
    let copied = store.backup(copy.path()).await.unwrap();
    assert!(copied.rows > 30 && copied.bytes > 1_000, "{copied:?}");
    let clock: Arc<ManualClock> = Arc::clone(&env.clock);
    let other = copy.builder().clock(clock).open().unwrap();
    assert_eq!(everything(&other).await.unwrap(), before);
    assert_eq!(other.verify_indexes().await.unwrap(), Vec::<String>::new());
    let taken = store.backup(copy.path()).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict, "nothing is written over");
    let nowhere = store.backup(copy.dir.path().join("no/such/folder")).await.unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::Io);
    assert_eq!(fs::read_dir(copy.dir.path()).unwrap().count(), 1, "nothing half-made is left");
}

/// A process that is killed while it makes a copy cannot remove what it has made of it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_the_dead_left_beside_a_path_is_removed() {
    let (env, copy) = (Env::new(), Env::new());
    let store = env.open();
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let (dead, living) = (dead.id(), std::process::id());
    let beside = |rest: &str| copy.dir.path().join(format!("jobs.redb{rest}"));
    let stays = [
        format!(".new-{living}-999999"),
        format!(".new-{dead}-x"),
        format!(".new-{dead}"),
        ".new".to_owned(),
    ];
    let goes = [format!(".new-{dead}-0"), format!(".new-{dead}-17")];
    stays.iter().chain(&goes).for_each(|rest| fs::write(beside(rest), b"redb").unwrap());
    store.backup(copy.path()).await.unwrap();
    assert!(goes.iter().all(|rest| !beside(rest).exists()));
    assert!(stays.iter().all(|rest| beside(rest).exists()));
    drop(copy.open());
}

#[tokio::test]
async fn a_copy_made_under_load_is_of_one_moment() {
    let env = Env::new();
    let store = env.open();
    let mut before = BTreeSet::new();
    for _ in 0..20 {
        before.extend(submit(&store, (0..50).map(|_| job()).collect()).await);
    }
    let copy = Env::new();
    let copying = store.backup(copy.path());
    let (copied, later) = tokio::join!(copying, async {
        let mut later = BTreeSet::new();
        for _ in 0..20 {
            later.extend(submit(&store, (0..50).map(|_| job()).collect()).await);
        }
        later
    });
    copied.unwrap();
    let other = copy.open();
    assert_eq!(other.verify_indexes().await.unwrap(), Vec::<String>::new());
    let there: BTreeSet<_> = everything(&other).await.unwrap().jobs.into_iter().map(|job| job.id).collect();
    assert!(there.is_superset(&before), "what was acknowledged before is in the copy");
    assert!(there.is_subset(&before.union(&later).copied().collect()));
}

#[tokio::test]
async fn a_file_is_made_small_once_nobody_has_it_open() {
    let env = Env::new();
    let store = env.open();
    let ids = submit(&store, (0..5_000).map(|_| job()).collect()).await;
    store.request_cancel(&Scope::All, ids).await.unwrap();
    env.clock.advance(Retention::KEYS_MIN);
    let node = owner(&store, "node").await;
    let duty = term(&store, "maintain", &node).await;
    let retention = Retention { jobs: Retention::KEYS_MIN, changes: 10, ..Retention::default() };
    while store.prune(&duty, retention, 1_000).await.unwrap().more {}
    let kept = submit(&store, vec![job()]).await;
    store.retire(&node).await.unwrap();
    assert_eq!(env.builder().compact().unwrap_err().kind(), ErrorKind::Locked);
    drop(store);
    let before = fs::metadata(env.path()).unwrap().len();
    assert!(env.builder().compact().unwrap());
    let after = fs::metadata(env.path()).unwrap().len();
    assert!(after < before / 2, "{before} bytes became {after}");
    let jobs = everything(&env.open()).await.unwrap().jobs;
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), kept);
}

#[test]
fn a_file_of_an_older_schema_is_made_small_too() {
    let env = Env::new();
    fs::write(env.path(), include_bytes!("../golden/store-schema-2.redb")).unwrap();
    let before = fs::metadata(env.path()).unwrap().len();
    assert!(env.builder().compact().unwrap());
    assert!(fs::metadata(env.path()).unwrap().len() < before);
    drop(env.open());
}
