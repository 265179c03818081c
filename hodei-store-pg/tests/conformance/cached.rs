//! The PostgreSQL store behind a cache with a second tier in Redis, held to those parts of the suite that read jobs as they move.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::store::{CachedStore, Store, TierOptions};
use hodei_core::testkit::conformance::{Fixture, PROPERTIES, Setup};
use hodei_core::{Clock, ManualClock, Timestamp};
use hodei_store_pg::{RedisTier, TokioTimer};
use hodei_test_servers::Redis;

use crate::{Databases, hold_all};

/// What is read of jobs while they move, end, go round again and are pruned.
const THEMES: &[&str] = &[
    "attempts", "cancel", "feeds", "fencing", "prune", "reads", "reap", "redrive", "reopen", "settle",
    "tenants",
];

/// The Redis of all properties.
static REDIS: LazyLock<Redis> = LazyLock::new(|| Redis::start().expect("Redis starts"));

/// A tier with keys of its own.
fn tier() -> RedisTier {
    static TIERS: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("{}:", TIERS.fetch_add(1, Ordering::Relaxed));
    RedisTier::builder(REDIS.url()).prefix(prefix).open().expect("a tier")
}

struct Cached(Databases);

impl Cached {
    /// Puts a cache before the store that was opened last.
    fn before(&self) -> Option<Arc<dyn Store>> {
        let store = self.0.store.clone().expect("it was opened");
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.0.clock);
        let cache = CachedStore::builder(store).clock(clock);
        let tiered = cache.tier(Arc::new(tier()), [7; 32], Arc::new(TokioTimer), TierOptions::default());
        Some(Arc::new(tiered.build()))
    }
}

#[async_trait]
impl Fixture for Cached {
    async fn open(&mut self, setup: Setup) -> Option<Arc<dyn Store>> {
        self.0.open(setup).await?;
        self.before()
    }

    async fn reopen(&mut self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        self.0.reopen(store).await?;
        self.before()
    }

    fn now(&self) -> Timestamp {
        self.0.now()
    }

    async fn advance(&mut self, by: Duration) {
        self.0.advance(by).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_cache_with_a_tier_in_redis_all_holds_that_is_read_of_jobs() {
    for theme in THEMES {
        assert!(PROPERTIES.iter().any(|property| property.theme == *theme), "{theme}");
    }
    let of_jobs = PROPERTIES.iter().filter(|property| THEMES.contains(&property.theme));
    assert_eq!(hold_all(of_jobs, || Cached(Databases::new())).await, Vec::<&str>::new());
}
