//! How a store is opened.

use std::fmt;
use std::time::Duration;

use hodei_core::store::ChangeLog;
use hodei_core::{Error, ErrorKind, Fault, Result};

use crate::store::PgStore;

/// How a store is opened: a database, and limits that each have a default.
#[derive(Clone)]
#[must_use = "a builder opens nothing until `connect`"]
pub struct PgStoreBuilder {
    pub(crate) url: String,
    pub(crate) connections: u32,
    pub(crate) acquire_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) migrate: bool,
    pub(crate) pooled: bool,
    pub(crate) change_log: ChangeLog,
    pub(crate) history: bool,
    pub(crate) max_jobs: u64,
    pub(crate) tenant_max_open: u64,
    pub(crate) tenant_max_lanes: u32,
}

/// The url may hold a password, which is shown to nobody.
impl fmt::Debug for PgStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgStoreBuilder")
            .field("connections", &self.connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("migrate", &self.migrate)
            .field("change_log", &self.change_log)
            .field("history", &self.history)
            .finish_non_exhaustive()
    }
}

impl PgStoreBuilder {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            connections: 8,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            migrate: true,
            pooled: false,
            change_log: ChangeLog::All,
            history: true,
            max_jobs: u64::MAX,
            tenant_max_open: u64::MAX,
            tenant_max_lanes: 16_384,
        }
    }

    /// Sets how many connections the verbs share; 8 unless set. One more is kept for heartbeats, owners and terms, one
    /// that announces, one that listens, and one that sweeps up after many claims.
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// Sets how long a verb waits for a free connection before it is `Unavailable`; 5 s unless set.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets how long a verb waits for the reply of the server before it is given up; 30 s unless set. A write that was
    /// given up is `Indeterminate`.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets how long the first connection may take; 5 s unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets after how long without use a connection is closed; ten minutes unless set.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets whether the schema is made, or brought up to date, when the store is opened; it is unless set. Without,
    /// opening a database of an older schema fails.
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Sets whether a proxy stands before the server that gives each transaction another connection, as PgBouncer does
    /// with `pool_mode = transaction`; none unless set. Then every statement is prepared anew, inside of a transaction, in
    /// all stores of the process: some more round trips each. Nodes do not hear of each other through such a proxy and look
    /// by themselves, every half second or so.
    ///
    /// A proxy that follows prepared statements needs this not, nor does one that pools sessions.
    pub fn pooled(mut self, pooled: bool) -> Self {
        self.pooled = pooled;
        self
    }

    /// Sets which changes are recorded; all unless set. Every node of a database should have the same setting.
    pub fn changes(mut self, changes: ChangeLog) -> Self {
        self.change_log = changes;
        self
    }

    /// Sets whether ended jobs are kept, for as long as retention says; they are unless set. Without, a job that ends is
    /// removed in the same transaction, and nothing is left of it but its changes, where those are recorded: it is not
    /// found any more, also where it failed and might have been sent round again, its unique key is free at once, and the
    /// end of a run that is told a second time is that of an unknown job. Whoever submits a job again after a lost reply
    /// runs it twice where it had ended meanwhile.
    ///
    /// A parent stays until its last child has ended, and goes with the next pruning. Every node of a database should have
    /// the same setting.
    pub fn history(mut self, history: bool) -> Self {
        self.history = history;
        self
    }

    /// Sets how many jobs are kept; beyond it submissions fail with `Full`. Without limit unless set; with one,
    /// submissions are taken one after the other, since the bound is exact.
    pub fn max_jobs(mut self, jobs: u64) -> Self {
        self.max_jobs = jobs;
        self
    }

    /// Sets how many jobs of one tenant may be unsettled at once; more are refused, one by one, as
    /// [`Refusal::TooMany`](hodei_core::store::Refusal::TooMany). Without limit unless set; with one, submissions are
    /// taken one after the other.
    pub fn tenant_max_open(mut self, jobs: u64) -> Self {
        self.tenant_max_open = jobs;
        self
    }

    /// Sets how many lanes a tenant may have: one for each queue and each set of demands of its jobs, for good; 16 384
    /// unless set. A submission that needs another is `Full`, as a whole; many at once may make some more. What runs
    /// spawn and what schedules fire is not bounded.
    pub fn tenant_max_lanes(mut self, lanes: u32) -> Self {
        self.tenant_max_lanes = lanes;
        self
    }

    /// Connects, brings the schema up to date, and opens the store.
    ///
    /// # Errors
    ///
    /// `Config` for a url that is none and for a limit of zero, `SchemaTooNew` for a database of a newer version,
    /// `Unavailable` where the server does not answer, `PermissionDenied` and `Unauthenticated` where it refuses.
    pub async fn connect(self) -> Result<PgStore> {
        if self.connections == 0 {
            let fault = Fault::new("connections", "zero");
            return Err(Error::new(ErrorKind::Config, "store.open").with("fault", fault));
        }
        PgStore::start(self).await
    }
}
