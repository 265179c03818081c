//! The ledger of the schema: which steps were taken, and the taking of those that were not.
//!
//! Each step is a transaction of its own that first takes the lock of all migrations, so that of many nodes that start
//! together one migrates and the others find it done. Locks of transactions are all it needs: it works through proxies
//! that pool transactions.

use hodei_core::{Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};

use crate::ask;
use crate::error::failed;

const OP: &str = "store.migrate";

/// The lock of all migrations: an arbitrary number that nobody else uses.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7305239824715346289)";

/// One step of the schema.
struct Step {
    name: &'static str,
    sql: &'static [&'static str],
}

/// Every step, in order; the first makes version 1. A step that was released is never changed.
const STEPS: &[Step] = &[Step {
    name: "tables, functions and walls",
    sql: &[
        include_str!("tables.sql"),
        include_str!("log.sql"),
        include_str!("names.sql"),
        include_str!("places.sql"),
        include_str!("counts.sql"),
        include_str!("claim.sql"),
        include_str!("owners.sql"),
        include_str!("submit.sql"),
        include_str!("exchange.sql"),
        include_str!("retention.sql"),
        include_str!("walls.sql"),
    ],
}];

/// The version that this program knows.
fn known() -> i32 {
    i32::try_from(STEPS.len()).unwrap_or(i32::MAX)
}

/// What a migration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The version before; 0 for a database without a schema.
    pub from: u32,
    /// The version now.
    pub to: u32,
}

/// Takes the steps that were not taken.
pub(crate) async fn migrate(options: &PgConnectOptions) -> Result<Migrated> {
    let mut connection = PgConnection::connect_with(options).await.map_err(failed(OP))?;
    let from = version(&mut connection).await?;
    let mut now = from;
    newer(now)?;
    while now < known() {
        now = step(&mut connection, now).await?;
        newer(now)?;
    }
    drop(connection.close().await);
    let number = |version: i32| u32::try_from(version).unwrap_or_default();
    Ok(Migrated { from: number(from), to: number(now) })
}

/// Says whether the schema is the one that this program knows.
pub(crate) async fn check(connection: &mut PgConnection) -> Result<()> {
    let found = version_in(connection).await?;
    newer(found)?;
    if found < known() {
        return Err(Error::new(ErrorKind::Config, "store.open")
            .with("schema", found)
            .with("needed", known()));
    }
    // The database may have come from another cluster.
    ask::query("SELECT hodei.rebase()").execute(connection).await.map_err(failed("store.open"))?;
    Ok(())
}

fn newer(found: i32) -> Result<()> {
    if found <= known() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::SchemaTooNew, "store.open").with("schema", found).with("known", known()))
}

/// The version of a database: 0 where there is none.
async fn version(connection: &mut PgConnection) -> Result<i32> {
    let mut tx = connection.begin().await.map_err(failed(OP))?;
    let found = version_in(&mut tx).await?;
    tx.commit().await.map_err(failed(OP))?;
    Ok(found)
}

async fn version_in(connection: &mut PgConnection) -> Result<i32> {
    let there = ask::scalar::<bool>("SELECT to_regclass('hodei.schema_step') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed(OP))?;
    if !there {
        return Ok(0);
    }
    ask::scalar("SELECT coalesce(max(version), 0) FROM hodei.schema_step")
        .fetch_one(connection)
        .await
        .map_err(failed(OP))
}

/// Takes the next step, unless somebody else has taken it meanwhile, and returns the version.
async fn step(connection: &mut PgConnection, from: i32) -> Result<i32> {
    let mut tx = connection.begin().await.map_err(failed(OP))?;
    ask::query(LOCK).execute(&mut *tx).await.map_err(failed(OP))?;
    sqlx::raw_sql(
        "CREATE SCHEMA IF NOT EXISTS hodei;
         CREATE TABLE IF NOT EXISTS hodei.schema_step (
             version int4 PRIMARY KEY, name text NOT NULL, taken_at timestamptz NOT NULL DEFAULT now()
         )",
    )
    .execute(&mut *tx)
    .await
    .map_err(failed(OP))?;
    let found: i32 = ask::query("SELECT coalesce(max(version), 0) FROM hodei.schema_step")
        .fetch_one(&mut *tx)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed(OP))?;
    let next = usize::try_from(found).ok().and_then(|taken| STEPS.get(taken));
    let Some(next) = next.filter(|_| found == from) else { return Ok(found) };
    for sql in next.sql {
        sqlx::raw_sql(*sql).execute(&mut *tx).await.map_err(failed(OP))?;
    }
    ask::query("INSERT INTO hodei.schema_step (version, name) VALUES ($1, $2)")
        .bind(found + 1)
        .bind(next.name)
        .execute(&mut *tx)
        .await
        .map_err(failed(OP))?;
    tx.commit().await.map_err(failed(OP))?;
    Ok(found + 1)
}
