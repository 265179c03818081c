//! One statement that is a transaction of its own.

use hodei_core::{Error, ErrorKind, Result};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

use crate::error::{Stage, of};
use crate::inner::Inner;
use crate::pool::Conn;

impl Inner {
    /// Asks for its rows; gives the connection back with them. Where it fails before the server can have had it, or the
    /// server says so, nothing has happened; else nobody knows.
    pub(crate) async fn statement(
        &self,
        op: &'static str,
        mut conn: Conn,
        query: Query<'_, sqlx::Postgres, PgArguments>,
    ) -> Result<(Conn, Vec<PgRow>)> {
        self.trip();
        let asked = async {
            let rows = query.fetch_all(&mut *conn).await;
            let rows = rows.map_err(|error| of(op, Stage::Commit, error))?;
            conn.made().await.map_err(|error| of(op, Stage::Commit, error))?;
            Ok(rows)
        };
        match self.in_time(op, asked).await {
            Ok(rows) => Ok((conn, rows)),
            Err(error) => match error.kind() {
                ErrorKind::Timeout => Err(Error::new(ErrorKind::Indeterminate, op).source_error(error)),
                ErrorKind::Indeterminate => {
                    self.pools.verbs.forget();
                    Err(error)
                }
                // The server has answered: the connection is as good as before.
                _ => {
                    // Whatever it says to that, it has said what became of the statement.
                    drop(conn.clean().await);
                    Err(error)
                }
            },
        }
    }
}
