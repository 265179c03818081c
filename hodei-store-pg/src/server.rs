//! What a store asks of a server before it works on a connection to it: that it keeps what it acknowledges, that it is one
//! that can be written to, and that the connection is the store's own.

use hodei_core::{Error, ErrorKind, Result};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

use crate::config::Commits;
use crate::error::{RETRY_AFTER, failed};

/// How often it is looked whether connections are lent: once is enough where nobody else comes in between.
const LOOKS: u32 = 3;

/// Tells on which course of history a server is.
macro_rules! home {
    () => {
        concat!("SELECT ", include_str!("schema/home.sql"))
    };
}

/// What decides whether a commit that was acknowledged stands, and the course of history.
const PROMISES: &str = concat!(
    home!(),
    ", pg_is_in_recovery()::text, current_setting('fsync'), current_setting('synchronous_commit'),
    current_setting('synchronous_standby_names')"
);

/// Goes on in a transaction of the caller's, and tells on which course of history its server is.
const SAVE: &str = concat!("SAVEPOINT hodei; ", home!());

/// A course of history of a server: the cluster and its timeline. On another one numbers stand for other names, and what was
/// committed last on this one may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home(pub(crate) i64);

/// Makes sure, at each new connection, that the server is the one that writes and keeps what it acknowledges.
pub(crate) async fn keeps_commits(
    connection: &mut PgConnection,
    op: &'static str,
    commits: Commits,
) -> Result<Home> {
    let row = sqlx::raw_sql(PROMISES).fetch_one(connection).await.map_err(failed(op))?;
    let setting = |n: usize| row.try_get::<&str, _>(n + 1).map_err(failed(op));
    let home = home_in(&row).map_err(failed(op))?;
    let Some(home) = home.filter(|_| setting(0).is_ok_and(|standby| standby != "true")) else {
        // As while another one takes over: whoever asks again may come to that.
        return Err(Error::new(ErrorKind::Unavailable, op)
            .with("server", "a standby")
            .retry_after(RETRY_AFTER));
    };
    let weak = |name, value: &str| Err(Error::new(ErrorKind::Config, op).with(name, value));
    match (commits, setting(1)?, setting(2)?) {
        (Commits::Kept, fsync @ "off", _) => weak("fsync", fsync),
        (Commits::Kept, _, commit @ "off") => weak("synchronous_commit", commit),
        // The disk of this server only, where others were named that must have it too.
        (Commits::Kept, _, commit @ "local") if !setting(3)?.is_empty() => weak("synchronous_commit", commit),
        _ => Ok(home),
    }
}

/// Begins another course of history before anything else is asked of it, as well as it can be: whoever writes first would
/// do so too, and everybody else waits for his transaction, which may be one of the host and last for long.
pub(crate) async fn move_in(connection: &mut PgConnection) {
    drop(sqlx::raw_sql("SELECT hodei.move_in()").execute(connection).await);
}

/// Reads what [`home`] has told: nothing where a server only repeats what another does.
fn home_in(row: &PgRow) -> std::result::Result<Option<Home>, sqlx::Error> {
    row.try_get::<Option<i64>, _>(0).map(|home| home.map(Home))
}

/// Begins a transaction as is said, and tells where.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    begin: &str,
) -> std::result::Result<Option<Home>, sqlx::Error> {
    let sql = AssertSqlSafe(format!("{begin}; {}", home!()));
    home_in(&sqlx::raw_sql(sql).fetch_one(connection).await?)
}

/// Saves the transaction of a caller, to come back to, and tells where it is.
pub(crate) async fn save(connection: &mut PgConnection) -> std::result::Result<Option<Home>, sqlx::Error> {
    home_in(&sqlx::raw_sql(SAVE).fetch_one(connection).await?)
}

/// Whether a proxy gives each transaction another connection to the server. While one client is in a transaction another
/// keeps its connection, unless it has none of its own.
pub(crate) async fn lends(
    one: &mut PgConnection,
    other: &mut PgConnection,
) -> std::result::Result<bool, sqlx::Error> {
    for _ in 0..LOOKS {
        let before = process(one).await?;
        sqlx::raw_sql("BEGIN").execute(&mut *other).await?;
        let taken = process(other).await?;
        let lent = taken == before || process(one).await? != before;
        sqlx::raw_sql("ROLLBACK").execute(&mut *other).await?;
        if lent {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The process of the server behind a connection.
async fn process(connection: &mut PgConnection) -> std::result::Result<i32, sqlx::Error> {
    sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}
