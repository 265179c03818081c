//! The verbs of the embedded store, held against the model.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::store::Store;
use hodei_core::testkit::conformance::{Fixture, START, Setup, compare_with_model_by};
use hodei_core::{Clock, ManualClock, Timestamp};
use hodei_store_redb::RedbStore;
use hodei_store_redb::testkit::open_on;

use self::disk::Disk;

#[expect(dead_code, reason = "the tests of the store use the rest of their disk")]
#[path = "../../hodei-store-redb/tests/it/faults/disk.rs"]
mod disk;

/// Stores on one disk in memory.
struct OnDisk {
    disk: Disk,
    clock: Arc<ManualClock>,
    setup: Setup,
}

impl OnDisk {
    fn start(&self) -> Arc<dyn Store> {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        let builder = RedbStore::builder("in memory").clock(clock).changes(self.setup.change_log);
        let store = open_on(builder.cache_bytes(4 << 20), self.disk.clone());
        Arc::new(store.expect("the store opens"))
    }
}

#[async_trait]
impl Fixture for OnDisk {
    async fn open(&mut self, setup: Setup) -> Option<Arc<dyn Store>> {
        (self.disk, self.setup) = (Disk::default(), setup);
        Some(self.start())
    }

    async fn reopen(&mut self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        drop(store);
        Some(self.start())
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
    }
}

/// Does what bytes choose to a store and to a model that keeps plain lists, and compares the replies and all that can
/// be read.
///
/// # Panics
///
/// When they differ.
pub fn operations(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let clock = Arc::new(ManualClock::at(START));
    let fixture = OnDisk { disk: Disk::default(), clock, setup: Setup::default() };
    runtime.block_on(compare_with_model_by(fixture, data.to_vec()));
}
