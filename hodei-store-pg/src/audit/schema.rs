//! The tables of the trail, which may live in another database than the jobs.

use hodei_core::{Error, ErrorKind, Result};
use sqlx::postgres::{PgConnection, PgPool};

use crate::error::failed;

const OP: &str = "audit.open";
/// The version that this program knows. That of before had no seals and no signatures, and was never released.
const KNOWN: i32 = 2;
/// The lock of all migrations of trails: an arbitrary number that nobody else uses.
const LOCK: &str = "SELECT pg_advisory_xact_lock(4177029853391742053)";

/// Read from the catalogue as a table: `to_regclass` answers from a cache that, in a transaction that waited for the lock,
/// may not yet know what the holder of the lock has made.
const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_tables
    WHERE schemaname = 'hodei_audit' AND tablename = 'step')";

/// Makes the tables unless they are there, and refuses those of a newer version. A role that may not make any can open a
/// trail that is there.
pub(super) async fn prepare(pool: &PgPool) -> Result<()> {
    let mut tx = pool.begin().await.map_err(failed(OP))?;
    if !exists(&mut tx).await? {
        sqlx::query(LOCK).execute(&mut *tx).await.map_err(failed(OP))?;
        // Somebody else may have made them while this waited.
        if !exists(&mut tx).await? {
            sqlx::raw_sql(include_str!("schema.sql")).execute(&mut *tx).await.map_err(failed(OP))?;
        }
    }
    known(&mut tx).await?;
    tx.commit().await.map_err(failed(OP))
}

/// Refuses tables of another version, and a database without any.
pub(super) async fn check(connection: &mut PgConnection) -> Result<()> {
    if !exists(connection).await? {
        return Err(Error::new(ErrorKind::NotFound, OP).with("schema", "hodei_audit"));
    }
    known(connection).await
}

async fn known(connection: &mut PgConnection) -> Result<()> {
    let found: Option<i32> = sqlx::query_scalar("SELECT max(version) FROM hodei_audit.step")
        .fetch_one(connection)
        .await
        .map_err(failed(OP))?;
    match found {
        Some(KNOWN) => Ok(()),
        Some(newer) if newer > KNOWN => {
            Err(Error::new(ErrorKind::SchemaTooNew, OP).with("schema", newer).with("known", KNOWN))
        }
        _ => Err(Error::new(ErrorKind::Corrupt, OP).with("schema", "hodei_audit.step")),
    }
}

async fn exists(connection: &mut PgConnection) -> Result<bool> {
    sqlx::query_scalar(EXISTS).fetch_one(connection).await.map_err(failed(OP))
}
