//! One, two and three memory stores as shards of one, held to the conformance suite.

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
}

fn shards(count: usize) -> Shards {
    Shards { count, clock: Arc::new(ManualClock::at(START)) }
}

#[async_trait]
impl Fixture for Shards {
    async fn open(&mut self, setup: Setup) -> Option<Arc<dyn Store>> {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        let shard = |_| Arc::new(builder(setup, Arc::clone(&clock)).build()) as Arc<dyn Shard>;
        let store = ShardedStore::open((0..self.count).map(shard).collect()).await.expect("it opens");
        apart(&store, self.count).await;
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
    }
}

/// Makes sure that the tenants of the suite are in different shards, and the first of them not at home.
async fn apart(store: &ShardedStore, count: usize) {
    for (tenant, shard) in [(Tenant::default(), count - 1), (Tenant::new("acme").unwrap(), 0)] {
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
