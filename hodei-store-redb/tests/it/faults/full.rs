//! Real file systems: one without room, and one that cannot be written to.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use hodei_core::job::NewJob;
use hodei_core::store::{Consistency, JobStore as _, Scope, SubmitOptions};
use hodei_core::{Error, ErrorKind, JobId, Result};
use hodei_store_redb::RedbStore;
use tempfile::TempDir;

use crate::env::{job, job_of, spec, submit};

/// No answer takes longer.
const BOUND: Duration = Duration::from_secs(5);

/// A file system of 8 MiB in memory, for as long as the test lasts.
struct Mount(TempDir);

impl Mount {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let this = Self(directory);
        this.mount(&["-t", "tmpfs", "-o", "size=8m", "hodei-test"]);
        this
    }

    fn mount(&self, words: &[&str]) {
        let ended = Command::new("mount").args(words).arg(self.0.path()).output();
        let ended = ended.expect("this test needs the program `mount`");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "this test needs root, to mount a tmpfs: {said}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        if !std::thread::panicking() {
            assert!(ended.expect("the program `umount`").success());
        }
    }
}

/// A job of some three thousand bytes.
fn large() -> NewJob {
    let padded = spec().env("PADDING", "x".repeat(3_000));
    job_of(&hodei_core::Tenant::default(), padded)
}

async fn submit_one(store: &RedbStore) -> Result<JobId> {
    let (job, began) = (large(), Instant::now());
    let id = job.id;
    let done = store.submit(vec![job], SubmitOptions::each()).await;
    assert!(began.elapsed() < BOUND, "it took {:?}", began.elapsed());
    done.map(|_| id)
}

async fn all_there(store: &RedbStore, ids: &[JobId]) -> bool {
    let jobs = store.get_many(&Scope::All, ids.to_vec(), Consistency::Latest).await;
    jobs.expect("the file is sound").iter().all(Option::is_some)
}

#[tokio::test]
async fn a_full_file_system_loses_nothing_and_is_told() {
    let mount = Mount::new();
    let (path, ballast) = (mount.path("jobs.redb"), mount.path("ballast"));
    fs::write(&ballast, vec![1; 3 << 20]).unwrap();
    let store = RedbStore::open(&path).unwrap();
    let mut stored = Vec::new();
    let first = loop {
        match submit_one(&store).await {
            Ok(id) => stored.push(id),
            Err(error) => break error,
        }
    };
    let told = [ErrorKind::Full, ErrorKind::Indeterminate];
    assert!(told.contains(&first.kind()) && !stored.is_empty(), "{first:?} after {}", stored.len());
    assert!(first.to_string().contains("No space left on device"), "{first}");
    let again = submit_one(&store).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Io, "until it is opened anew");
    drop(store);
    // Without room it may open or not; it is not made worse.
    match RedbStore::open(&path) {
        Ok(store) => assert!(all_there(&store, &stored).await),
        Err(error) => assert!([ErrorKind::Full, ErrorKind::Io].contains(&error.kind()), "{error:?}"),
    }
    fs::remove_file(&ballast).unwrap();
    let store = RedbStore::open(&path).unwrap();
    assert!(all_there(&store, &stored).await);
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    let total = store.counts(&Scope::All).await.unwrap().total();
    let stored = stored.len() as u64;
    assert!(
        total == stored || total == stored + 1,
        "{total} of {stored}: the one that failed is whole or not there"
    );
    submit_one(&store).await.unwrap();
}

#[tokio::test]
async fn a_new_file_without_room_is_full_and_leaves_nothing() {
    let mount = Mount::new();
    let ballast = mount.path("ballast");
    // To the last page but two.
    let room = (8 << 20) - 3 * 4_096;
    fs::write(&ballast, vec![1; room]).unwrap();
    let error = RedbStore::open(mount.path("jobs.redb")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
    let names = fs::read_dir(mount.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["ballast"], "nothing is left of it");
    fs::remove_file(&ballast).unwrap();
    submit(&RedbStore::open(mount.path("jobs.redb")).unwrap(), vec![job()]).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_written_to_is_an_error_and_stays_as_it_is() {
    let mount = Mount::new();
    let path = mount.path("jobs.redb");
    submit(&RedbStore::open(&path).unwrap(), vec![job()]).await;
    let before = fs::read(&path).unwrap();
    mount.mount(&["-o", "remount,ro"]);
    let kind =
        |name: &str| RedbStore::open(mount.path(name)).map_err(|error: Error| error.kind()).unwrap_err();
    assert_eq!(kind("jobs.redb"), ErrorKind::Io);
    assert_eq!(kind("new.redb"), ErrorKind::Io);
    assert!(fs::read(&path).unwrap() == before);
    mount.mount(&["-o", "remount,rw"]);
    assert_eq!(RedbStore::open(&path).unwrap().counts(&Scope::All).await.unwrap().total(), 1);
}
