//! What a store must lend to the suite.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::store::{ChangeLog, Store};
use crate::time::{Clock, ManualClock, Timestamp};

/// How a store is to be set up. What is not set is as the store has it by default.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Setup {
    /// Which changes it records.
    pub change_log: ChangeLog,
    /// How many jobs it keeps at most.
    pub max_jobs: Option<u32>,
    /// How many unsettled jobs a tenant has at most.
    pub tenant_max_open: Option<u32>,
}

impl Setup {
    /// Sets which changes are recorded.
    #[must_use]
    pub fn change_log(mut self, change_log: ChangeLog) -> Self {
        self.change_log = change_log;
        self
    }

    /// Sets how many jobs are kept at most.
    #[must_use]
    pub fn max_jobs(mut self, jobs: u32) -> Self {
        self.max_jobs = Some(jobs);
        self
    }

    /// Sets how many unsettled jobs a tenant has at most.
    #[must_use]
    pub fn tenant_max_open(mut self, jobs: u32) -> Self {
        self.tenant_max_open = Some(jobs);
        self
    }
}

/// Opens the stores that the suite runs against, and moves their clock.
///
/// The clock stands still between two calls of [`Fixture::advance`], and moves by whole microseconds.
///
/// # Cancel safety
///
/// The tests drop no call before it returns.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Opens a store with nothing in it; `None` when it has no such setting. The default setup must open.
    async fn open(&mut self, setup: Setup) -> Option<Arc<dyn Store>>;

    /// Closes a store and opens it again with all it has kept; `None` when it keeps nothing. The suite has given away
    /// every other handle to it.
    async fn reopen(&mut self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>>;

    /// Returns what the store's clock shows.
    fn now(&self) -> Timestamp;

    /// Moves the store's clock forward.
    async fn advance(&mut self, by: Duration);
}

/// Opens stores that take a clock and keep nothing.
///
/// ```
/// use hodei_core::store::MemoryStore;
/// use hodei_core::testkit::conformance::Volatile;
///
/// let fixture = Volatile::new(|_setup, clock| Some(MemoryStore::with_clock(clock)));
/// # let _ = fixture;
/// ```
pub struct Volatile<F> {
    open: F,
    clock: Arc<ManualClock>,
}

impl<F> std::fmt::Debug for Volatile<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volatile").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl<F> Volatile<F> {
    /// Takes what makes an empty store on a clock.
    #[must_use]
    pub fn new<S>(open: F) -> Self
    where
        F: FnMut(Setup, Arc<dyn Clock>) -> Option<S>,
    {
        Self { open, clock: Arc::new(ManualClock::at(START)) }
    }
}

/// When the clocks of the suite begin: some day in 2025.
pub const START: Timestamp = Timestamp::from_micros(1_750_000_000_000_000);

#[async_trait]
impl<S, F> Fixture for Volatile<F>
where
    S: Store + 'static,
    F: FnMut(Setup, Arc<dyn Clock>) -> Option<S> + Send + Sync,
{
    async fn open(&mut self, setup: Setup) -> Option<Arc<dyn Store>> {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        (self.open)(setup, clock).map(|store| Arc::new(store) as Arc<dyn Store>)
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
