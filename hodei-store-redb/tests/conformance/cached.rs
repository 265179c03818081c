//! One embedded store behind a cache, and three between which slots move behind one, held to the conformance suite.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::Timestamp;
use hodei_core::store::{CachedStore, CachedStoreBuilder, LatestReads, ShardedStore, Store};
use hodei_core::testkit::conformance::{Fixture, Setup};
use hodei_store_redb::RedbStore;

use crate::Files;
use crate::sharded::{Shards, moving};

/// What opens the stores below a cache.
#[async_trait]
trait Below: Fixture {
    type Store: Store + 'static;

    /// Opens a store with nothing in it.
    async fn fresh(&mut self, setup: Setup) -> Self::Store;

    /// Opens the last one again, which nobody has open.
    async fn again(&mut self) -> Self::Store;
}

#[async_trait]
impl Below for Files {
    type Store = RedbStore;

    async fn fresh(&mut self, setup: Setup) -> RedbStore {
        self.anew(setup)
    }

    async fn again(&mut self) -> RedbStore {
        self.start()
    }
}

#[async_trait]
impl Below for Shards {
    type Store = ShardedStore;

    async fn fresh(&mut self, setup: Setup) -> ShardedStore {
        self.anew(setup).await
    }

    async fn again(&mut self) -> ShardedStore {
        self.start().await
    }
}

struct Cached<F: Below> {
    below: F,
    set: fn(CachedStoreBuilder<F::Store>) -> CachedStoreBuilder<F::Store>,
}

impl<F: Below> Cached<F> {
    fn before(&self, store: F::Store) -> Option<Arc<dyn Store>> {
        Some(Arc::new((self.set)(CachedStore::builder(store)).build()))
    }
}

#[async_trait]
impl<F: Below> Fixture for Cached<F> {
    async fn open(&mut self, setup: Setup) -> Option<Arc<dyn Store>> {
        let store = self.below.fresh(setup).await;
        self.before(store)
    }

    async fn reopen(&mut self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        drop(store);
        let store = self.below.again().await;
        self.before(store)
    }

    fn now(&self) -> Timestamp {
        self.below.now()
    }

    async fn advance(&mut self, by: Duration) {
        self.below.advance(by).await;
    }
}

/// As it comes.
fn by_default() -> Cached<Files> {
    Cached { below: Files::new(), set: |cache| cache }
}

/// Every read of a job may come from memory, where there is room for a few, wherever its slot is by then.
fn on_the_move() -> Cached<Shards> {
    Cached { below: moving(), set: |cache| cache.latest(LatestReads::Acknowledged).bytes(16 << 10) }
}

mod one {
    hodei_core::store_conformance!(super::by_default());
}

/// Without the model, as for the same shards without a cache.
mod shards {
    hodei_core::for_each_property!(hodei_core::__store_conformance_tests, super::on_the_move());
}
