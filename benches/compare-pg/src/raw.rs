//! What the same server does for plain SQL on one table, with the batches and connections of the fastest engines.

use std::time::{Duration, Instant};

use hodei_benches::load::{BATCH, Load, per_second};
use hodei_test_servers::Postgres;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;

use crate::peer::{Result, Wrong};

/// Connections that claim and settle beside each other.
const CONNECTIONS: u32 = 4;
/// Rows that are claimed by a statement.
const CLAIMED: i64 = 500;

const SCHEMA: [&str; 2] = [
    "CREATE TABLE raw (id bigserial PRIMARY KEY, state smallint NOT NULL DEFAULT 0, priority smallint NOT NULL \
     DEFAULT 0, run_at timestamptz NOT NULL DEFAULT now(), args bytea NOT NULL)",
    "CREATE INDEX raw_ready ON raw (priority, run_at, id) WHERE state = 0",
];
const SINGLE: &str = "INSERT INTO raw (args) VALUES ($1)";
const BULK: &str = "INSERT INTO raw (args) SELECT * FROM unnest($1::bytea[])";
const CLAIM: &str = "WITH next AS MATERIALIZED (SELECT id FROM raw WHERE state = 0 ORDER BY priority, run_at, id \
     LIMIT $1 FOR UPDATE SKIP LOCKED) UPDATE raw SET state = 1 FROM next WHERE raw.id = next.id RETURNING raw.id";
const SETTLE: &str = "UPDATE raw SET state = 2 WHERE id = ANY($1) AND state = 1";

/// Rows a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// One insert a commit, one connection.
    pub(crate) single: f64,
    /// Inserts of 1,000 rows by UNNEST, one connection.
    pub(crate) bulk: f64,
    /// Claimed by 500 and updated to done, four connections.
    pub(crate) drain: f64,
}

impl Limits {
    /// Returns the better of each.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            single: self.single.max(other.single),
            bulk: self.bulk.max(other.bulk),
            drain: self.drain.max(other.drain),
        }
    }
}

/// Measures all of them on a new database.
pub(crate) async fn limits(server: &Postgres, load: Load) -> Result<Limits> {
    let database = server.database()?;
    let options = PgPoolOptions::new().max_connections(CONNECTIONS).test_before_acquire(false);
    let pool = options.connect(&database.url()).await?;
    for statement in SCHEMA {
        sqlx::query(statement).execute(&pool).await?;
    }
    let single = per_second(load.single, single(&pool, load.single).await?);
    sqlx::query("TRUNCATE raw").execute(&pool).await?;
    let bulk = per_second(load.bulk, bulk(&pool, load.bulk).await?);
    sqlx::query("TRUNCATE raw").execute(&pool).await?;
    bulk_of(&pool, load.drain).await?;
    let drain = per_second(load.drain, drain(&pool).await?);
    pool.close().await;
    Ok(Limits { single, bulk, drain })
}

async fn single(pool: &PgPool, n: usize) -> Result<Duration> {
    let mut connection = pool.acquire().await?;
    let start = Instant::now();
    for n in 0..n {
        sqlx::query(SINGLE).bind(args(n)).execute(&mut *connection).await?;
    }
    Ok(start.elapsed())
}

async fn bulk(pool: &PgPool, n: usize) -> Result<Duration> {
    let start = Instant::now();
    bulk_of(pool, n).await?;
    Ok(start.elapsed())
}

async fn bulk_of(pool: &PgPool, n: usize) -> Result<()> {
    let mut connection = pool.acquire().await?;
    for start in (0..n).step_by(BATCH) {
        let rows: Vec<Vec<u8>> = (start..n.min(start + BATCH)).map(args).collect();
        sqlx::query(BULK).bind(rows).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn drain(pool: &PgPool) -> Result<Duration> {
    let start = Instant::now();
    let mut drains = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let pool = pool.clone();
        drains.spawn(async move {
            let mut connection = pool.acquire().await?;
            loop {
                let ids: Vec<i64> =
                    sqlx::query_scalar(CLAIM).bind(CLAIMED).fetch_all(&mut *connection).await?;
                if ids.is_empty() {
                    return Ok::<(), Wrong>(());
                }
                sqlx::query(SETTLE).bind(ids).execute(&mut *connection).await?;
            }
        });
    }
    while let Some(drained) = drains.join_next().await {
        drained??;
    }
    Ok(start.elapsed())
}

fn args(n: usize) -> Vec<u8> {
    format!("{{\"n\":{n}}}").into_bytes()
}
