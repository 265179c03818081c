//! The store.

use std::sync::Arc;

use hodei_core::Result;

use crate::config::PgStoreBuilder;
use crate::pool::Pools;

/// A store on PostgreSQL. Cloning shares it.
#[derive(Clone, Debug)]
pub struct PgStore(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) pools: Pools,
    pub(crate) config: PgStoreBuilder,
}

impl PgStore {
    /// Begins to set a store up, on the database of a url: `postgres://user:password@host:port/database`.
    pub fn builder(url: impl Into<String>) -> PgStoreBuilder {
        PgStoreBuilder::new(url.into())
    }

    /// Closes every connection, after what is under way. Further calls are `Unavailable`.
    pub async fn close(&self) {
        self.0.pools.close().await;
    }

    pub(crate) async fn start(config: PgStoreBuilder) -> Result<Self> {
        let pools = Pools::connect(&config).await?;
        Ok(Self(Arc::new(Inner { pools, config })))
    }
}
