//! Caches of several kinds, held to the conformance suite and to the model of random operations.
//!
//! The audit that ends each property compares every record in memory with the store's (`verify_indexes`).

use std::sync::Arc;

use hodei_core::Clock;
use hodei_core::store::{
    CachedStore, CachedStoreBuilder, LatestReads, MemoryStore, MemoryTier, Store, TierOptions,
};
use hodei_core::testkit::conformance::{Fixture, Setup, Volatile};

use crate::scripted::Scripted;
use crate::tier::{KEY, Patient};

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

fn cached<S: Store + 'static>(
    make: impl Fn(MemoryStore) -> S + Copy + Send + Sync + 'static,
    set: impl Fn(CachedStoreBuilder<S>) -> CachedStoreBuilder<S> + Copy + Send + Sync + 'static,
) -> impl Fixture + 'static {
    Volatile::new(move |setup, clock: Arc<dyn Clock>| {
        let store = CachedStore::builder(make(memory(setup, Arc::clone(&clock)))).clock(clock);
        Some(set(store).build())
    })
}

/// As it comes.
mod by_default {
    hodei_core::store_conformance!(super::cached(|store| store, |cache| cache));
}

/// Every read of a job may come from memory.
mod acknowledged {
    use super::LatestReads::Acknowledged;
    hodei_core::store_conformance!(super::cached(|store| store, |cache| cache.latest(Acknowledged)));
}

/// There is room for a few records only.
mod tiny {
    use super::LatestReads::Acknowledged;
    hodei_core::store_conformance!(super::cached(
        |store| store,
        |cache| cache.latest(Acknowledged).bytes(4_096)
    ));
}

/// Others may write to the store, and there is a second tier.
mod shared {
    hodei_core::store_conformance!(super::cached(super::Scripted::shared, super::tiered));
}

fn tiered<S: Store>(cache: CachedStoreBuilder<S>) -> CachedStoreBuilder<S> {
    cache.tier(Arc::new(MemoryTier::new()), KEY, Arc::new(Patient), TierOptions::default())
}
