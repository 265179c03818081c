//! One, two and three embedded stores as shards of one, held to the conformance suite; and three between which the slots
//! of the suite's tenants move whenever time passes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::store::{Shard, ShardedStore, Store};
use hodei_core::testkit::conformance::{Fixture, Setup};
use hodei_core::{Tenant, Timestamp};

use crate::Files;

pub(crate) struct Shards {
    files: Vec<Files>,
    /// Whether slots move, of which store, and how often time has passed.
    moving: bool,
    store: Option<ShardedStore>,
    turn: usize,
}

fn shards(count: usize) -> Shards {
    let first = Files::new();
    let clock = Arc::clone(&first.clock);
    let more = (1..count).map(|_| Files { clock: Arc::clone(&clock), ..Files::new() });
    Shards { files: std::iter::once(first).chain(more).collect(), moving: false, store: None, turn: 0 }
}

pub(crate) fn moving() -> Shards {
    Shards { moving: true, ..shards(3) }
}

impl Shards {
    /// Opens shards in files that are not there yet.
    pub(crate) async fn anew(&mut self, setup: Setup) -> ShardedStore {
        self.store = None;
        for files in &mut self.files {
            files.opened += 1;
            files.setup = setup;
        }
        let store = self.start().await;
        // Apart from each other, and the first of them not at home.
        bring(&store, self.files.len() - 1, 0).await;
        store
    }

    /// Opens the shards, or opens them again, where nobody else has them open.
    pub(crate) async fn start(&mut self) -> ShardedStore {
        self.store = None;
        let shard = |files: &Files| Arc::new(files.start()) as Arc<dyn Shard>;
        let store = ShardedStore::open(self.files.iter().map(shard).collect()).await.expect("it opens");
        self.store = Some(store.clone());
        store
    }
}

#[async_trait]
impl Fixture for Shards {
    async fn open(&mut self, setup: Setup) -> Option<Arc<dyn Store>> {
        Some(Arc::new(self.anew(setup).await))
    }

    async fn reopen(&mut self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        drop(store);
        Some(Arc::new(self.start().await))
    }

    fn now(&self) -> Timestamp {
        self.files[0].now()
    }

    async fn advance(&mut self, by: Duration) {
        self.files[0].advance(by).await;
        if let Some(store) = self.store.as_ref().filter(|_| self.moving) {
            self.turn += 1;
            bring(store, self.turn % 3, self.turn / 3 % 3).await;
        }
    }
}

/// Brings the tenants of the suite to shards.
async fn bring(store: &ShardedStore, default: usize, acme: usize) {
    for (tenant, shard) in [(Tenant::default(), default), (Tenant::new("acme").expect("a name"), acme)] {
        store.move_slot(tenant.slot(), shard).await.expect("it moves");
        assert_eq!(store.shard_of(&tenant), shard);
    }
}

mod one {
    hodei_core::store_conformance!(super::shards(1));
}

mod two {
    hodei_core::store_conformance!(super::shards(2));
}

mod three {
    hodei_core::store_conformance!(super::shards(3));
}

/// Without the model: it takes a tenant's old changes to be gone in their order, which holds shard by shard.
mod on_the_move {
    hodei_core::for_each_property!(hodei_core::__store_conformance_tests, super::moving());
}
