//! The connections: those that the verbs share, and the one that is kept for those who must prove that they live.

use std::str::FromStr;
use std::time::Duration;

use hodei_core::{Error, ErrorKind, Result};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::config::PgStoreBuilder;
use crate::error::failed;

/// The connections of a store.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    /// What every verb takes.
    pub(crate) verbs: PgPool,
    /// What heartbeats, owners and terms take: a flood of work never makes a node look dead.
    pub(crate) reserved: PgPool,
}

impl Pools {
    /// Connects.
    pub(crate) async fn connect(config: &PgStoreBuilder) -> Result<Self> {
        let options = options(config)?;
        let verbs = pool(config, config.connections).connect_lazy_with(options.clone());
        let reserved = pool(config, 1).connect_lazy_with(options);
        let first = tokio::time::timeout(config.connect_timeout, verbs.acquire()).await;
        match first {
            Ok(connection) => drop(connection.map_err(failed("store.open"))?),
            Err(_) => return Err(Error::new(ErrorKind::Unavailable, "store.open").with("timeout", "connect")),
        }
        Ok(Self { verbs, reserved })
    }

    /// Closes every connection, after what is under way.
    pub(crate) async fn close(&self) {
        self.verbs.close().await;
        self.reserved.close().await;
    }
}

/// What a url says, with what Hodei sets.
fn options(config: &PgStoreBuilder) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(&config.url)
        .map_err(|_| Error::new(ErrorKind::Config, "store.open").with("fault", "url: malformed"))?;
    Ok(options.application_name("hodei").disable_statement_logging())
}

fn pool(config: &PgStoreBuilder, most: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(most)
        .min_connections(0)
        .acquire_timeout(config.acquire_timeout)
        .idle_timeout(Some(config.idle_timeout))
        .max_lifetime(Some(Duration::from_secs(3_600)))
        // A ping before every use would double the round trips; a connection that died shows where it is used.
        .test_before_acquire(false)
}
