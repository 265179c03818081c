//! How a trail is opened.

use std::fmt;
use std::time::Duration;

use hodei_core::{Error, ErrorKind, Fault, Result};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::chain::Keys;
use super::public::AuditPublicKey;
use super::sink::PgAudit;
use crate::address;

/// How a trail is opened; made by [`PgAudit::builder`].
#[derive(Clone)]
#[must_use = "a builder opens nothing until `connect`"]
pub struct PgAuditBuilder {
    url: String,
    keys: Keys,
    pub(super) checkpoint_every: u64,
    pub(super) queue: usize,
    pub(super) batch_max: usize,
    pub(super) timeout: Duration,
}

/// The url may hold a password, which is shown to nobody.
impl fmt::Debug for PgAuditBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgAuditBuilder")
            .field("checkpoint_every", &self.checkpoint_every)
            .field("queue", &self.queue)
            .field("batch_max", &self.batch_max)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl PgAuditBuilder {
    pub(super) fn new(url: String, key: &[u8; 32]) -> Self {
        Self {
            url,
            keys: Keys::of(key),
            checkpoint_every: 1_000,
            queue: 1_024,
            batch_max: 1_000,
            timeout: Duration::from_secs(10),
        }
    }

    /// Sets after how many rows a checkpoint is written beside them; 1,000 unless set.
    pub fn checkpoint_every(mut self, rows: u64) -> Self {
        self.checkpoint_every = rows;
        self
    }

    /// Sets how many calls may wait for the writer; a further one waits until there is room. 1,024 unless set.
    pub fn queue(mut self, calls: usize) -> Self {
        self.queue = calls;
        self
    }

    /// Sets how many records go into one transaction; 1,000 unless set. A call with more has one of its own.
    pub fn batch_max(mut self, records: usize) -> Self {
        self.batch_max = records;
        self
    }

    /// Sets how long a batch may take; 10 s unless set. One that was given up is `Indeterminate`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Returns the public key of the trail, which can be given to everybody. Nothing is opened for it.
    #[must_use]
    pub fn public_key(&self) -> AuditPublicKey {
        self.keys.public()
    }

    /// Connects, makes the tables unless they are there, and opens the trail.
    ///
    /// # Errors
    ///
    /// `Config` for a url that is none and for a limit of zero, `SchemaTooNew` for tables of a newer version,
    /// `Unavailable` where the server does not answer, `PermissionDenied` and `Unauthenticated` where it refuses.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have made the tables; connect again.
    pub async fn connect(self) -> Result<PgAudit> {
        let limits = [
            ("checkpoint_every", self.checkpoint_every),
            ("queue", self.queue as u64),
            ("batch_max", self.batch_max as u64),
        ];
        if let Some((limit, _)) = limits.into_iter().find(|(_, value)| *value == 0) {
            return Err(config(limit, "zero"));
        }
        let options = options(&self.url)?;
        // One that writes and one that verifies.
        let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(self.timeout);
        let pool = pool.connect_lazy_with(options);
        super::schema::prepare(&pool).await?;
        Ok(PgAudit::start(&self, self.keys.clone(), pool))
    }
}

/// Where a trail is.
pub(super) fn options(url: &str) -> Result<PgConnectOptions> {
    let options = address::parse(url).map_err(|_| config("url", "malformed"))?;
    Ok(options.application_name("hodei-audit").disable_statement_logging())
}

fn config(field: &'static str, code: &'static str) -> Error {
    Error::new(ErrorKind::Config, "audit.open").with("fault", Fault::new(field, code))
}
