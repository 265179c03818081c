//! How a store is opened.

use std::fmt;
use std::time::Duration;

use hodei_core::store::ChangeLog;
use hodei_core::{Error, ErrorKind, Fault, Result};

use crate::store::PgStore;

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commits {
    /// It keeps what it acknowledges; one that may not is refused.
    Kept,
    /// It may lose the last ones.
    MayBeLost,
    /// It is taken for one that keeps them, whatever it says.
    #[cfg(feature = "testkit")]
    TakenForKept,
}

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
    pub(crate) commits: Commits,
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
            commits: Commits::Kept,
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
    /// with `pool_mode = transaction`. Unless set, two connections are compared when the store is opened. Behind such a
    /// proxy every statement is prepared anew, inside of a transaction, in all stores of the process: some more round trips
    /// each. Nodes do not hear of each other through it and look by themselves: every half second or so while they find
    /// something, else less and less often, down to every five seconds.
    ///
    /// A proxy that pools sessions is none, as far as this goes.
    pub fn pooled(mut self, pooled: bool) -> Self {
        self.pooled = pooled;
        self
    }

    /// Sets whether the server may lose commits that it has acknowledged, when it crashes or loses its power; it may not
    /// unless set, and a server or a role with `fsync = off` or `synchronous_commit = off` is refused then, as is
    /// `synchronous_commit = local` where standbys are named that must have a commit. With it, such a server is taken, and
    /// the store is not [`durable`](hodei_core::store::Capabilities::durable): jobs that were acknowledged may be gone, and
    /// what had ended may run again.
    pub fn may_lose_commits(mut self, may: bool) -> Self {
        self.commits = if may { Commits::MayBeLost } else { Commits::Kept };
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
    /// `Config` for a url that is none, for a limit of zero, and for a server that may lose commits; `SchemaTooNew` for a
    /// database of a newer version, `Unavailable` where the server does not answer or is a standby, `PermissionDenied` and
    /// `Unauthenticated` where it refuses.
    ///
    /// # Cancel safety
    ///
    /// As [`PgStore::migrate`]; nothing of the store goes on.
    pub async fn connect(self) -> Result<PgStore> {
        if self.connections == 0 {
            let fault = Fault::new("connections", "zero");
            return Err(Error::new(ErrorKind::Config, "store.open").with("fault", fault));
        }
        PgStore::start(self).await
    }
}
