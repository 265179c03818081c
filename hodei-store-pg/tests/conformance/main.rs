//! The PostgreSQL store, held to the conformance suite on a private server.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::store::Store;
use hodei_core::testkit::conformance::{Fixture, Property, START, Setup, hold};
use hodei_core::{Clock, ManualClock, Timestamp, store_conformance};
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

mod bare;
mod cached;

/// Stores in databases of one server, on one clock, which is that of the database.
struct Databases {
    server: &'static Postgres,
    clock: Arc<ManualClock>,
    setup: Setup,
    /// Whether ended jobs are kept.
    history: bool,
    database: Option<Database>,
    store: Option<PgStore>,
}

/// The server of the suite. Nothing here is about what survives its death, and hundreds of databases come and go: without
/// syncs they do so in a fraction of the time.
fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        let quick = Postgres::builder().setting("fsync", "off").setting("full_page_writes", "off");
        quick.start().expect("PostgreSQL")
    })
}

impl Databases {
    fn new() -> Self {
        let server = server();
        let clock = Arc::new(ManualClock::at(START));
        Self { server, clock, setup: Setup::default(), history: true, database: None, store: None }
    }

    async fn start(&mut self) -> Arc<dyn Store> {
        let database = self.database.as_ref().expect("it was opened");
        let store = PgStore::builder(database.url()).connections(4).history(self.history).take_for_durable();
        // Many properties share one server: what is slow under load is not broken.
        let store = store.statement_timeout(Duration::from_secs(120));
        let mut store = store.changes(self.setup.change_log);
        if let Some(jobs) = self.setup.max_jobs {
            store = store.max_jobs(jobs.into());
        }
        if let Some(jobs) = self.setup.tenant_max_open {
            store = store.tenant_max_open(jobs.into());
        }
        let store = store.connect().await.expect("the store opens");
        self.store = Some(store.clone());
        Arc::new(store)
    }

    fn forget(&mut self) {
        self.store = None;
        if let Some(database) = self.database.take() {
            // Beside the test: a connection that it has just begun to open is not to be ended before it is open, and who is
            // to open it is the thread of the test.
            let (server, sql) = (self.server, format!("DROP DATABASE {} WITH (FORCE)", database.name()));
            std::thread::spawn(move || server.sql("postgres", &sql).expect("the database goes"));
        }
    }
}

impl Drop for Databases {
    fn drop(&mut self) {
        // A test that fails is told by its own words.
        if !std::thread::panicking() {
            self.forget();
        }
    }
}

#[async_trait]
impl Fixture for Databases {
    async fn open(&mut self, setup: Setup) -> Option<Arc<dyn Store>> {
        self.forget();
        self.database = Some(self.server.database().expect("a database"));
        self.setup = setup;
        let store = self.start().await;
        let handle = self.store.as_ref().expect("it was started");
        handle.stop_clock(self.clock.now()).await.expect("the clock stops");
        Some(store)
    }

    async fn reopen(&mut self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        drop(store);
        self.store = None;
        Some(self.start().await)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        let store = self.store.as_ref().expect("it was opened");
        store.advance_clock(by).await.expect("the clock moves");
    }
}

/// How many properties are held at once.
const AT_ONCE: usize = 2;

/// Holds stores to some of the properties, and names those that are broken.
async fn hold_all<F: Fixture + 'static>(
    properties: impl Iterator<Item = &'static Property>,
    fixture: fn() -> F,
) -> Vec<&'static str> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut holding = JoinSet::new();
    for property in properties {
        let room = Arc::clone(&room);
        holding.spawn(async move {
            let _room = room.acquire_owned().await.expect("it is never closed");
            // Each on a thread of its own: making databases blocks it, and no other may stand still in a transaction meanwhile.
            let held = tokio::task::spawn_blocking(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(hold(fixture(), property.name));
            });
            held.await.err().map(|_| property.name)
        });
    }
    let mut broken: Vec<&str> = holding.join_all().await.into_iter().flatten().collect();
    broken.sort_unstable();
    broken
}

store_conformance!(Databases::new());
