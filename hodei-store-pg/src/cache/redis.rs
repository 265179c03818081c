//! Rows in Redis: each under its own key, with its version in front.
//!
//! A value is 4 bytes of version (big-endian) and the row. A script compares versions where the rows lie, so that of two
//! nodes that write at once the newer version stays.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hodei_core::store::{CacheTier, TierRow};
use hodei_core::{Error, ErrorKind, Fault, JobId, Result};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, IntoConnectionInfo, Pipeline, RedisError, Script, Value};

/// How many bytes of a value are the version.
const VERSION: usize = 4;

/// Writes rows unless a newer version is there. What is no row, of whatever type, is overwritten.
static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        for i, key in ipairs(KEYS) do
            local version = tonumber(ARGV[3 * i - 2])
            local there = redis.pcall('GETRANGE', key, 0, 3)
            local newer = type(there) == 'string' and #there == 4 and struct.unpack('>I4', there) > version
            if not newer then
                redis.call('SET', key, ARGV[3 * i], 'PX', ARGV[3 * i - 1])
            end
        end",
    )
});

/// A tier of the cache in Redis, or in what speaks its protocol, that all nodes share.
///
/// It is one connection that all visits share and that is made anew when it breaks. It may be down when a node starts, and
/// come and go: a visit then fails at once or after the budget of the cache, and the cache goes on without it.
///
/// It needs no persistence, and an eviction policy (`allkeys-lru`, say) in place of more memory. One server, or a proxy
/// that looks like one: rows of several nodes of a Redis Cluster cannot be written in one visit.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use hodei_core::store::{CachedStore, TierOptions, Store};
/// # use hodei_store_pg::{RedisTier, TokioTimer};
/// # async fn open<S: Store>(store: S, key: [u8; 32]) -> hodei_core::Result<()> {
/// let tier = RedisTier::builder("redis://:secret@cache.internal").prefix("jobs:").open()?;
/// let store = CachedStore::builder(store)
///     .tier(Arc::new(tier), key, Arc::new(TokioTimer), TierOptions::default())
///     .build();
/// # let _ = store;
/// # Ok(())
/// # }
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
#[derive(Clone)]
pub struct RedisTier {
    connection: ConnectionManager,
    prefix: String,
    row_max: usize,
}

/// The connection knows the password, which is shown to nobody.
impl fmt::Debug for RedisTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTier")
            .field("prefix", &self.prefix)
            .field("row_max", &self.row_max)
            .finish_non_exhaustive()
    }
}

/// How a tier in Redis is opened; made by [`RedisTier::builder`].
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
#[derive(Clone)]
#[must_use = "a builder opens nothing until `open`"]
pub struct RedisTierBuilder {
    url: String,
    prefix: String,
    row_max: usize,
    connect_timeout: Duration,
    dead_after: Duration,
}

/// The url may hold a password, which is shown to nobody.
impl fmt::Debug for RedisTierBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTierBuilder")
            .field("prefix", &self.prefix)
            .field("row_max", &self.row_max)
            .field("connect_timeout", &self.connect_timeout)
            .field("dead_after", &self.dead_after)
            .finish_non_exhaustive()
    }
}

impl RedisTier {
    /// Begins to describe a tier at `redis://[user][:password@]host[:port][/database]`.
    pub fn builder(url: impl Into<String>) -> RedisTierBuilder {
        RedisTierBuilder {
            url: url.into(),
            prefix: "hodei:".to_owned(),
            row_max: 64 * 1024,
            connect_timeout: Duration::from_secs(1),
            dead_after: Duration::from_secs(5),
        }
    }

    fn key(&self, id: JobId) -> String {
        format!("{}{id}", self.prefix)
    }
}

impl RedisTierBuilder {
    /// Sets what every key begins with, by which several databases of jobs share one Redis; `hodei:` unless set.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how many bytes of a row are read at most, whatever lies there; 64 KiB unless set. Not less than
    /// [`TierOptions::row_max`](hodei_core::store::TierOptions::row_max), or longer rows are written in vain.
    pub fn row_max(mut self, bytes: usize) -> Self {
        self.row_max = bytes;
        self
    }

    /// Sets how long a connection may take; 1 s unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets after how long a peer that acknowledges nothing is held for dead, and its connection made anew; 5 s unless set.
    pub fn dead_after(mut self, time: Duration) -> Self {
        self.dead_after = time;
        self
    }

    /// Opens the tier. It connects with the first visit, so that no node waits for it to start.
    ///
    /// # Errors
    ///
    /// `Config` for a url that is none, for one that asks for TLS, which this tier does not speak, and outside of a runtime
    /// of tokio.
    pub fn open(self) -> Result<RedisTier> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(config("runtime", "missing"));
        }
        let address = self.url.as_str().into_connection_info().map_err(|_| config("url", "malformed"))?;
        let address = address.set_tcp_settings(TcpSettings::default().set_user_timeout(self.dead_after));
        let client = Client::open(address).map_err(|_| config("url", "malformed"))?;
        // A visit is not repeated here: how often to try is the business of the breaker.
        let settings = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.dead_after));
        let connection =
            ConnectionManager::new_lazy_with_config(client, settings).map_err(failed("cache.open"))?;
        Ok(RedisTier { connection, prefix: self.prefix, row_max: self.row_max })
    }
}

#[async_trait]
impl CacheTier for RedisTier {
    async fn get_many(&self, keys: &[JobId]) -> Result<Vec<Option<Bytes>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut asked = Pipeline::with_capacity(keys.len());
        // A part of the value, so that no length of what somebody put there is read whole. One that is of another type
        // than ours is an error of its own, and no reason to miss the others.
        asked.ignore_errors();
        let end = self.row_max + VERSION - 1;
        for key in keys {
            asked.cmd("GETRANGE").arg(self.key(*key)).arg(0).arg(end);
        }
        let rows: Vec<Value> =
            asked.query_async(&mut self.connection.clone()).await.map_err(failed("cache.get"))?;
        Ok(rows.into_iter().map(row_of).collect())
    }

    async fn put_many(&self, rows: Vec<TierRow>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut write = WRITE.prepare_invoke();
        for TierRow { key, version, bytes, ttl } in rows {
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, TTL_MAX);
            let value = [&version.to_be_bytes(), &bytes[..]].concat();
            write.key(self.key(key)).arg(version).arg(ttl).arg(value);
        }
        write.invoke_async(&mut self.connection.clone()).await.map_err(failed("cache.put"))
    }

    async fn remove_many(&self, keys: &[JobId]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut remove = redis::cmd("UNLINK");
        for key in keys {
            remove.arg(self.key(*key));
        }
        remove.exec_async(&mut self.connection.clone()).await.map_err(failed("cache.remove"))
    }
}

/// The longest time to live that Redis takes without an overflow, and more than anybody needs: a hundred years.
const TTL_MAX: u64 = 100 * 365 * 24 * 3_600 * 1_000;

/// The row in a value; nothing where there is none. What cannot be a row is an empty one, which the cache does not believe
/// and removes.
fn row_of(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) if bytes.is_empty() => None,
        Value::BulkString(bytes) if bytes.len() > VERSION => Some(Bytes::from(bytes).split_off(VERSION)),
        Value::Nil => None,
        _ => Some(Bytes::new()),
    }
}

fn failed(op: &'static str) -> impl Fn(RedisError) -> Error {
    move |error| {
        let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Unavailable };
        Error::new(kind, op).source_error(error)
    }
}

fn config(field: &'static str, code: &'static str) -> Error {
    Error::new(ErrorKind::Config, "cache.open").with("fault", Fault::new(field, code))
}
