//! Statements, by whose text the server knows them again.
//!
//! Each is prepared once per connection and kept there under a name. A proxy that gives every transaction another
//! connection would look for the name where it is not, or find another statement under it: so once a store behind one was
//! opened, or a server did not know a name, the process prepares statements anew each time, without a name and inside of a
//! transaction.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{FromRow, query_as, query_scalar};

static UNNAMED: AtomicBool = AtomicBool::new(false);

/// From now on no statement has a name.
pub(crate) fn without_names() {
    UNNAMED.store(true, Ordering::Release);
}

/// Whether statements have names.
pub(crate) fn named() -> bool {
    !UNNAMED.load(Ordering::Acquire)
}

/// A statement.
pub(crate) fn query<'q>(sql: &'static str) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(sql).persistent(named())
}

/// A statement of whose rows the first column is wanted.
pub(crate) fn scalar<'q, O>(sql: &'static str) -> QueryScalar<'q, Postgres, O, PgArguments>
where
    (O,): for<'r> FromRow<'r, PgRow>,
{
    query_scalar(sql).persistent(named())
}

/// A statement whose rows are tuples.
pub(crate) fn rows<'q, O>(sql: &'static str) -> QueryAs<'q, Postgres, O, PgArguments>
where
    O: for<'r> FromRow<'r, PgRow>,
{
    query_as(sql).persistent(named())
}
