//! The indexes that no key makes: built beside the work where they are missing, and anew where they are broken.
//!
//! An index is built without holding anybody up, which a transaction cannot do, so its building can end half-way: then an
//! index is left behind that costs every write and serves no read.

use std::time::Duration;

use hodei_core::{ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};

use crate::ask;
use crate::error::failed;

const OP: &str = "store.migrate";

/// The lock of all builders of indexes: an arbitrary number that nobody else uses.
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(7305239824715346291)";
/// How often it is asked whether another builder is done.
const ASKED: Duration = Duration::from_millis(100);

/// An index: its name, its table, and what comes after that in the statement that makes it.
struct Index {
    name: &'static str,
    table: &'static str,
    on: &'static str,
}

const fn index(name: &'static str, table: &'static str, on: &'static str) -> Index {
    Index { name, table, on }
}

/// What there must be. A new index is added here, and to no step of the schema.
const INDEXES: &[Index] = &[
    index("job_listed", "job", "(tenant, created_at, id)"),
    index("job_pipeline", "job", "(pipeline, created_at, id) WHERE pipeline IS NOT NULL"),
    index("ready_moved", "ready", "(id) WHERE version IS NOT NULL"),
    index("ready_deadline", "ready", "(deadline) WHERE deadline IS NOT NULL"),
    index("delayed_deadline", "delayed", "(deadline) WHERE deadline IS NOT NULL"),
    index("leased_cancel", "leased", "(holder) WHERE cancel"),
    index("done_moved", "done", "USING brin (moved_at) WITH (pages_per_range = 32, autosummarize = on)"),
    index("done_bad", "done", "(state, tenant, moved_at, id) WHERE state IN (5, 6)"),
    index("ready_listed", "ready", "(lane, created_at, id) WHERE created_at IS NOT NULL"),
    index("delayed_listed", "delayed", "(lane, created_at, id) WHERE created_at IS NOT NULL"),
    index("blocked_listed", "blocked", "(lane, created_at, id) WHERE created_at IS NOT NULL"),
    index("done_listed", "done", "(state, created_at, id) WHERE created_at IS NOT NULL"),
    index("done_tenant", "done", "(state, tenant, created_at, id) WHERE state IN (5, 6)"),
    index("edge_child", "edge", "(child)"),
    index("unique_key_open", "unique_key", "(id) WHERE key LIKE 'open:%'"),
    index("delta_tenant", "delta", "(tenant)"),
    index("inbox_new", "inbox", "(no) WHERE refused IS NULL"),
    index("inbox_refused", "inbox", "(refused_at) WHERE refused_at IS NOT NULL"),
];

/// What is wrong with the indexes of the schema.
#[derive(Debug, Default)]
struct Ill {
    /// Broken ones of tables and of parts of tables.
    broken: Vec<String>,
    /// Those that are not there, or not for every part, by name.
    missing: Vec<String>,
}

impl Ill {
    fn is_well(&self) -> bool {
        self.broken.is_empty() && self.missing.is_empty()
    }
}

/// Builds what is missing, and what is broken anew. Somebody else doing so is waited for.
pub(super) async fn heal(connection: &mut PgConnection, options: &PgConnectOptions) -> Result<()> {
    if diagnose(connection).await?.is_well() {
        return Ok(());
    }
    // A transaction that does nothing keeps the lock: one that waits for a lock inside of a statement would be waited for
    // by who builds.
    let mut guard = PgConnection::connect_with(options).await.map_err(failed(OP))?;
    let mut held = loop {
        let mut tx = guard.begin().await.map_err(failed(OP))?;
        if ask::scalar::<bool>(LOCK).fetch_one(&mut *tx).await.map_err(failed(OP))? {
            break tx;
        }
        tx.rollback().await.map_err(failed(OP))?;
        tokio::time::sleep(ASKED).await;
    };
    let ill = diagnose(connection).await?;
    for name in &ill.broken {
        // What a rebuilding that ended half-way left behind has a twin.
        let left = name.contains("_ccnew") || name.contains("_ccold");
        let cure = if left { "DROP INDEX CONCURRENTLY" } else { "REINDEX INDEX CONCURRENTLY" };
        run(connection, format!("{cure} hodei.\"{name}\"")).await?;
    }
    for index in INDEXES.iter().filter(|index| ill.missing.iter().any(|name| name == index.name)) {
        build(connection, index).await?;
    }
    ask::query("SELECT 1").execute(&mut *held).await.map_err(failed(OP))?;
    held.rollback().await.map_err(failed(OP))?;
    drop(guard.close().await);
    Ok(())
}

async fn diagnose(connection: &mut PgConnection) -> Result<Ill> {
    let mut tx = connection.begin().await.map_err(failed(OP))?;
    let broken = ask::scalar(
        "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE c.relnamespace = 'hodei'::regnamespace AND c.relkind = 'i' AND NOT i.indisvalid ORDER BY 1",
    )
    .fetch_all(&mut *tx)
    .await
    .map_err(failed(OP))?;
    // One of a table in parts is valid when it is there for each of them.
    let missing = ask::scalar(
        "SELECT name FROM unnest($1::text[]) name WHERE NOT EXISTS (
             SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
             WHERE c.relnamespace = 'hodei'::regnamespace AND c.relname = name
                 AND (i.indisvalid OR c.relkind = 'i'))",
    )
    .bind(INDEXES.iter().map(|index| index.name).collect::<Vec<_>>())
    .fetch_all(&mut *tx)
    .await
    .map_err(failed(OP))?;
    tx.commit().await.map_err(failed(OP))?;
    Ok(Ill { broken, missing })
}

async fn build(connection: &mut PgConnection, index: &Index) -> Result<()> {
    let Index { name, table, on } = index;
    let mut tx = connection.begin().await.map_err(failed(OP))?;
    let parts: Vec<String> = ask::scalar(
        "SELECT p.relid::regclass::text FROM pg_partition_tree(format('hodei.%I', $1)::regclass) p
         WHERE p.isleaf AND p.parentrelid IS NOT NULL",
    )
    .bind(*table)
    .fetch_all(&mut *tx)
    .await
    .map_err(failed(OP))?;
    tx.commit().await.map_err(failed(OP))?;
    if parts.is_empty() {
        return run(connection, format!("CREATE INDEX CONCURRENTLY {name} ON hodei.{table} {on}")).await;
    }
    briefly(connection, format!("CREATE INDEX IF NOT EXISTS {name} ON ONLY hodei.{table} {on}")).await?;
    for part in parts {
        let mut tx = connection.begin().await.map_err(failed(OP))?;
        let has: bool = ask::scalar(
            "SELECT EXISTS (SELECT 1 FROM pg_index i JOIN pg_inherits h ON h.inhrelid = i.indexrelid
                 WHERE i.indrelid = $1::regclass AND h.inhparent = format('hodei.%I', $2)::regclass)",
        )
        .bind(&part)
        .bind(*name)
        .fetch_one(&mut *tx)
        .await
        .map_err(failed(OP))?;
        tx.commit().await.map_err(failed(OP))?;
        if has {
            continue;
        }
        let short = part.rsplit('.').next().unwrap_or(&part);
        let own = format!("{short}{}", name.strip_prefix(table).unwrap_or(name));
        run(connection, format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {own} ON {part} {on}")).await?;
        briefly(connection, format!("ALTER INDEX hodei.{name} ATTACH PARTITION hodei.{own}")).await?;
    }
    Ok(())
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop).map_err(failed(OP))
}

/// Runs what others wait behind while it waits, until nobody is in the way: a tenth of a second each time.
async fn briefly(connection: &mut PgConnection, sql: String) -> Result<()> {
    loop {
        let mut tx = connection.begin().await.map_err(failed(OP))?;
        ask::query("SET LOCAL lock_timeout = '100ms'").execute(&mut *tx).await.map_err(failed(OP))?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *tx).await.map_err(failed(OP));
        match done {
            Ok(_) => return tx.commit().await.map_err(failed(OP)),
            Err(error) if error.kind() == ErrorKind::Locked => {
                tx.rollback().await.map_err(failed(OP))?;
                tokio::time::sleep(ASKED).await;
            }
            Err(error) => return Err(error),
        }
    }
}
