//! A disk that fails: nothing that was acknowledged is lost, and nothing is acknowledged after it.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::TryStreamExt;
use hodei_core::job::{JobSpec, NewJob};
use hodei_core::store::{JobStore, Query, Scope, SubmitOptions};
use hodei_core::{Error, ErrorKind, JobId, Result};

use crate::store::RedbStore;
use crate::sync::lock;
use crate::testkit::{StorageBackend, open_on};

/// What was written, and what of it was synced.
#[derive(Debug, Default)]
struct Disk {
    written: Vec<u8>,
    synced: Vec<u8>,
}

/// A disk that changes so often and then no more.
#[derive(Clone, Debug)]
struct Failing {
    disk: Arc<Mutex<Disk>>,
    left: Arc<AtomicU64>,
    with: io::ErrorKind,
}

impl Failing {
    fn new(bytes: Vec<u8>, changes: u64, with: io::ErrorKind) -> Self {
        let disk = Disk { synced: bytes.clone(), written: bytes };
        Self { disk: Arc::new(Mutex::new(disk)), left: Arc::new(AtomicU64::new(changes)), with }
    }

    fn change(&self, change: impl FnOnce(&mut Disk)) -> io::Result<()> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map_err(|_| io::Error::from(self.with))?;
        change(&mut lock(&self.disk));
        Ok(())
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("a small file")
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.disk).written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = lock(&self.disk);
        let bytes = disk.written.get(place(offset)..place(offset) + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|disk| disk.written.resize(place(len), 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|disk| disk.synced.clone_from(&disk.written))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|disk| disk.written[place(offset)..place(offset) + data.len()].copy_from_slice(data))
    }
}

fn open(on: Failing) -> Result<RedbStore> {
    open_on(RedbStore::builder("on no disk").cache_bytes(1 << 20), on)
}

async fn submit_one(store: &RedbStore) -> (JobId, Result<()>) {
    let job = NewJob::new(JobSpec::command(["/bin/true"]).build().expect("a valid spec"));
    let id = job.id;
    (id, store.submit(vec![job], SubmitOptions::each()).await.map(drop))
}

/// What a life on a failing disk left behind.
#[derive(Default)]
struct Left {
    acknowledged: BTreeSet<JobId>,
    /// Asked for, and never acknowledged.
    asked: BTreeSet<JobId>,
    errors: Vec<ErrorKind>,
}

/// Submits until the disk has failed a few times.
async fn live(store: &RedbStore) -> Left {
    let mut left = Left::default();
    while left.errors.len() < 3 {
        match submit_one(store).await {
            (id, Ok(())) => {
                assert!(left.errors.is_empty(), "nothing is acknowledged after a failure");
                left.acknowledged.insert(id);
            }
            (id, Err(error)) => {
                left.asked.insert(id);
                left.errors.push(error.kind());
            }
        }
    }
    left
}

async fn stored(store: &RedbStore) -> BTreeSet<JobId> {
    let listed: Vec<_> = store.stream(&Scope::All, Query::new()).try_collect().await.expect("a sound file");
    listed.into_iter().flatten().map(|job| job.id).collect()
}

/// What a disk has that was written once before and then fails after so many changes; what is found is checked.
async fn fail_after(changes: u64, with: io::ErrorKind, made: &[u8]) -> Vec<ErrorKind> {
    let disk = Failing::new(made.to_vec(), changes, with);
    let left = match open(disk.clone()) {
        Ok(store) => live(&store).await,
        Err(error) => Left { errors: vec![error.kind()], ..Left::default() },
    };
    let Disk { written, synced } = std::mem::take(&mut *lock(&disk.disk));
    for image in [written, synced] {
        let store = open(Failing::new(image, u64::MAX, with)).expect("the file is sound after a failure");
        let stored = stored(&store).await;
        assert!(stored.is_superset(&left.acknowledged), "after {changes} changes");
        let known = left.acknowledged.union(&left.asked).copied().collect();
        assert!(stored.is_subset(&known), "after {changes} changes");
        assert_eq!(store.verify_indexes().await.expect("a sound file"), Vec::<String>::new());
    }
    left.errors
}

#[tokio::test]
async fn a_disk_that_fails_at_any_point_loses_nothing_that_was_acknowledged() {
    let empty = Failing::new(Vec::new(), u64::MAX, io::ErrorKind::Other);
    drop(open(empty.clone()).unwrap());
    let made = lock(&empty.disk).written.clone();
    let (mut first, mut later) = (BTreeSet::new(), BTreeSet::new());
    for changes in 0..80 {
        for with in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            let errors = fail_after(changes, with, &made).await;
            first.insert(format!("{:?}", errors[0]));
            later.extend(errors[1..].iter().map(|kind| format!("{kind:?}")));
        }
    }
    let kinds = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(
        first,
        kinds(&["Full", "Indeterminate", "Io"]),
        "what may have arrived is said to be uncertain"
    );
    assert_eq!(later, kinds(&["Io"]), "until it is opened anew");
}

#[tokio::test]
async fn a_store_whose_disk_failed_still_answers_from_what_it_read_or_says_why_not() {
    let disk = Failing::new(Vec::new(), u64::MAX, io::ErrorKind::Other);
    let store = open(disk.clone()).unwrap();
    let (id, first) = submit_one(&store).await;
    first.unwrap();
    disk.left.store(0, Ordering::Relaxed);
    let (_, second) = submit_one(&store).await;
    assert_eq!(second.as_ref().map_err(Error::kind), Err(ErrorKind::Io), "nothing was written yet");
    let read = store.get_many(&Scope::All, vec![id], hodei_core::store::Consistency::Latest).await;
    assert!(read.map_or_else(|error| error.kind() == ErrorKind::Io, |found| found[0].is_some()));
}
