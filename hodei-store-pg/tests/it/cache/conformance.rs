//! A cache over a store that others write to, with a tier in Redis, is a store as any other.

use std::sync::Arc;

use hodei_core::Clock;
use hodei_core::store::{CachedStore, MemoryStore, TierOptions};
use hodei_core::testkit::conformance::{Fixture, Setup, Volatile};
use hodei_core::testkit::fault::{Faults, Faulty};
use hodei_store_pg::TokioTimer;

use super::world::{KEY, shared_tier};

fn memory(setup: Setup, clock: Arc<dyn Clock>) -> MemoryStore {
    let mut store = MemoryStore::builder().clock(clock).change_log(setup.change_log);
    if let Some(jobs) = setup.max_jobs {
        store = store.max_jobs(jobs as usize);
    }
    if let Some(jobs) = setup.tenant_max_open {
        store = store.tenant_max_open(jobs.into());
    }
    store.build()
}

fn tiered() -> impl Fixture + 'static {
    Volatile::new(|setup, clock: Arc<dyn Clock>| {
        let store = Faulty::new(memory(setup, Arc::clone(&clock)), Faults::new()).shared();
        let cache = CachedStore::builder(store).clock(clock);
        let tier = Arc::new(shared_tier());
        Some(cache.tier(tier, KEY, Arc::new(TokioTimer), TierOptions::default()).build())
    })
}

hodei_core::store_conformance!(tiered());
