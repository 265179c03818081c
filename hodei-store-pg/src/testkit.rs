//! A clock that stands still until it is moved, and servers without a disk.

use std::time::Duration;

use hodei_core::{Result, Timestamp};

use crate::config::{Commits, PgStoreBuilder};
use crate::error::failed;
use crate::store::PgStore;

const OP: &str = "testkit.clock";

impl PgStoreBuilder {
    /// Takes the server for one that keeps what it acknowledges, whatever its settings say: a test that kills processes and
    /// cuts no power need not wait for a disk.
    pub fn take_for_durable(mut self) -> Self {
        self.commits = Commits::TakenForKept;
        self
    }
}

impl PgStore {
    /// Stops the clock of the database, for all who use it, at a time; from then on it is moved by
    /// [`PgStore::advance_clock`].
    ///
    /// # Errors
    ///
    /// Those of the server.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have stopped it; stopping it again does no harm.
    pub async fn stop_clock(&self, at: Timestamp) -> Result<()> {
        let mut conn = self.inner().pools.reserved.acquire(OP).await?;
        sqlx::raw_sql(
            "CREATE TABLE IF NOT EXISTS hodei.test_clock (one bool PRIMARY KEY DEFAULT true, at int8 NOT NULL);
             CREATE OR REPLACE FUNCTION hodei.now() RETURNS int8 LANGUAGE sql VOLATILE AS
                 $$ SELECT at FROM hodei.test_clock $$",
        )
        .execute(&mut *conn)
        .await
        .map_err(failed(OP))?;
        sqlx::query(
            "INSERT INTO hodei.test_clock (at) VALUES ($1) ON CONFLICT (one) DO UPDATE SET at = excluded.at",
        )
        .bind(at.as_micros())
        .execute(&mut *conn)
        .await
        .map_err(failed(OP))?;
        conn.clean().await.map_err(failed(OP))
    }

    /// Moves a stopped clock forward.
    ///
    /// # Errors
    ///
    /// Those of the server.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a dropped call may have moved it.
    pub async fn advance_clock(&self, by: Duration) -> Result<()> {
        let mut conn = self.inner().pools.reserved.acquire(OP).await?;
        sqlx::query("UPDATE hodei.test_clock SET at = at + $1")
            .bind(i64::try_from(by.as_micros()).unwrap_or(i64::MAX))
            .execute(&mut *conn)
            .await
            .map_err(failed(OP))?;
        conn.clean().await.map_err(failed(OP))
    }
}
