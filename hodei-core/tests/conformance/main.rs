//! The memory store, and several of them as shards, held to the conformance suite.

mod sharded;

use std::sync::Arc;

use hodei_core::store::{MemoryStore, MemoryStoreBuilder};
use hodei_core::testkit::conformance::{Fixture, PROPERTIES, Setup, Volatile};
use hodei_core::{Clock, store_conformance};

fn builder(setup: Setup, clock: Arc<dyn Clock>) -> MemoryStoreBuilder {
    let mut store = MemoryStore::builder().clock(clock).change_log(setup.change_log);
    if let Some(jobs) = setup.max_jobs {
        store = store.max_jobs(jobs as usize);
    }
    if let Some(jobs) = setup.tenant_max_open {
        store = store.tenant_max_open(jobs.into());
    }
    store
}

fn memory() -> impl Fixture + 'static {
    Volatile::new(|setup: Setup, clock| Some(builder(setup, clock).build()))
}

store_conformance!(memory());

#[test]
fn every_property_has_a_name_of_its_own() {
    let mut names: Vec<&str> = PROPERTIES.iter().map(|property| property.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), PROPERTIES.len());
}

#[tokio::test]
async fn checkpoints_in_memory_are_fenced() {
    hodei_core::testkit::conformance::hold_checkpoints(&hodei_core::checkpoint::MemoryCheckpoints::new())
        .await;
}
