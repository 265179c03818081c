//! One, two and three memory stores as shards of one, held to the conformance suite; and three between which the slots
//! of the suite's tenants move whenever time passes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::store::{Shard, ShardedStore, Store};
use hodei_core::testkit::conformance::{Fixture, START, Setup};
use hodei_core::{Clock, ManualClock, Tenant, Timestamp};

use crate::builder;

struct Shards {
    count: usize,
    clock: Arc<ManualClock>,
    /// The store whose slots move, and how often time has passed.
    moving: Option<Option<ShardedStore>>,
    turn: usize,
}

fn shards(count: usize) -> Shards {
    Shards { count, clock: Arc::new(ManualClock::at(START)), moving: None, turn: 0 }
}

fn moving() -> Shards {
    Shards { moving: Some(None), ..shards(3) }
}

#[async_trait]
impl Fixture for Shards {
    async fn open(&mut self, setup: Setup) -> Option<Arc<dyn Store>> {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        let shard = |_| Arc::new(builder(setup, Arc::clone(&clock)).build()) as Arc<dyn Shard>;
        let store = ShardedStore::open((0..self.count).map(shard).collect()).await.expect("it opens");
        // Apart from each other, and the first of them not at home.
        bring(&store, self.count - 1, 0).await;
        if let Some(moving) = &mut self.moving {
            *moving = Some(store.clone());
        }
        Some(Arc::new(store))
    }

    async fn reopen(&mut self, _: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        None
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        if let Some(Some(store)) = &self.moving {
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
