//! The embedded store, several of them as shards, and both behind a cache, held to the conformance suite.

mod cached;
mod sharded;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::store::Store;
use hodei_core::testkit::conformance::{Fixture, START, Setup};
use hodei_core::{Clock, ManualClock, Timestamp, store_conformance};
use hodei_store_redb::RedbStore;

/// Stores in files of one directory, on one clock.
struct Files {
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
    opened: u32,
    setup: Setup,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, clock: Arc::new(ManualClock::at(START)), opened: 0, setup: Setup::default() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(format!("{}.redb", self.opened))
    }

    /// Opens a store in a file that is not there yet.
    fn anew(&mut self, setup: Setup) -> RedbStore {
        self.opened += 1;
        self.setup = setup;
        self.start()
    }

    fn start(&self) -> RedbStore {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        let mut store = RedbStore::builder(self.path()).clock(clock).changes(self.setup.change_log);
        if let Some(jobs) = self.setup.max_jobs {
            store = store.max_jobs(jobs.into());
        }
        if let Some(jobs) = self.setup.tenant_max_open {
            store = store.tenant_max_open(jobs.into());
        }
        store.open().expect("the store opens")
    }
}

#[async_trait]
impl Fixture for Files {
    async fn open(&mut self, setup: Setup) -> Option<Arc<dyn Store>> {
        Some(Arc::new(self.anew(setup)))
    }

    async fn reopen(&mut self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        drop(store);
        Some(Arc::new(self.start()))
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
    }
}

store_conformance!(Files::new());

#[tokio::test]
async fn checkpoints_are_fenced() {
    hodei_core::testkit::conformance::hold_checkpoints(&Files::new().start()).await;
}
