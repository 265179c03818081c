//! The ledger of the schema: which steps were taken, and the taking of those that were not.
//!
//! Each step is a transaction of its own that first takes the lock of all migrations, so that of many nodes that start
//! together one migrates and the others find it done. Locks of transactions are all it needs: it works through proxies
//! that pool transactions.

use std::time::Duration;

use hodei_core::{Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::indexes;
use crate::ask;
use crate::codec::Bodies;
use crate::error::failed;

const OP: &str = "store.migrate";

/// The lock of all migrations: an arbitrary number that nobody else uses.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7305239824715346289)";

/// How long a step waits for a lock, with everybody else behind it, before it lets them pass: 100 ms. It tries again.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '100ms'";
/// How long it waits for all of several.
const LOCKS_TIMEOUT: &str = "SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '100ms'";
/// Functions are made before the tables are as they know them.
const UNSEEN: &str = "SET LOCAL check_function_bodies = off";
/// The clock, for what is done before there are functions. One that is there stays: making it anew would have every node
/// plan its statements again at each try.
const NOW_IF_ABSENT: &str = concat!(
    "DO $make$ BEGIN IF to_regprocedure('hodei.now()') IS NULL THEN\n",
    include_str!("now.sql"),
    "END IF; END $make$"
);
/// How often a step that others were in the way of is tried: for about a minute, and longer where a vacuum is one of them.
const TRIES: u32 = 200;
/// How long making the first parts of the history may take while others wait: 500 ms. Longer would mean that a large
/// rest is looked through.
const AHEAD_TIMEOUT: &str = "SET LOCAL statement_timeout = '500ms'";
/// How long the others are let pass.
const PASS: Duration = Duration::from_millis(200);

/// One step of the schema.
struct Step {
    name: &'static str,
    /// What is done before, each in a transaction of its own: what takes its time and holds up nobody. It may be done
    /// again.
    before: &'static [&'static str],
    /// What nobody waits for.
    sql: &'static [&'static str],
    /// What others wait for, at the end: first the statement that locks all that it locks.
    last: &'static [&'static str],
    /// What takes back what was done before, where the step is given up.
    given_up: &'static [&'static str],
}

/// Every step, in order; the first makes version 1. A step that was released is never changed; one that was not may be. A step with nothing in it
/// brings the functions up to date.
const STEPS: &[Step] = &[
    Step {
        name: "tables and walls",
        before: &[],
        sql: &[include_str!("tables.sql"), include_str!("walls.sql")],
        last: &[],
        given_up: &[],
    },
    Step {
        name: "history in parts, checkpoints, wide limits, counts by queue",
        before: &[
            NOW_IF_ABSENT,
            include_str!("clock.sql"),
            include_str!("history_before.sql"),
            include_str!("history_proved.sql"),
        ],
        sql: &[
            include_str!("history_quiet.sql"),
            include_str!("history_tables.sql"),
            include_str!("wide.sql"),
            include_str!("freed.sql"),
        ],
        last: &[
            include_str!("history_locks.sql"),
            include_str!("born.sql"),
            include_str!("history.sql"),
            include_str!("queues.sql"),
            include_str!("keys.sql"),
            include_str!("rates.sql"),
            include_str!("lean.sql"),
            include_str!("listed.sql"),
        ],
        given_up: &[include_str!("history_given_up.sql")],
    },
];

/// The functions, made anew with the last step before anybody waits for it: no table depends on them.
const FUNCTIONS: &[&str] = &[
    include_str!("now.sql"),
    concat!(
        "CREATE OR REPLACE FUNCTION hodei.home() RETURNS int8 LANGUAGE plpgsql VOLATILE AS $$ BEGIN RETURN\n",
        include_str!("home.sql"),
        "; END $$"
    ),
    include_str!("log.sql"),
    include_str!("names.sql"),
    include_str!("limits.sql"),
    include_str!("paces.sql"),
    include_str!("places.sql"),
    include_str!("counts.sql"),
    include_str!("list.sql"),
    include_str!("births.sql"),
    include_str!("claim.sql"),
    include_str!("owners.sql"),
    include_str!("submit.sql"),
    include_str!("exchange.sql"),
    include_str!("bounds.sql"),
    include_str!("parts.sql"),
    include_str!("retention.sql"),
    include_str!("doors.sql"),
];

/// The length of the first eras: that of an eighth of the default retention, which is a week.
const ERA: i64 = 7 * 24 * 3_600 * 1_000_000 / 8;

/// The tables in which it is written when jobs were created.
const PLACES: [&str; 4] = ["ready", "delayed", "blocked", "done"];

/// A row of one of them: its lane or tenant, its rank or state, its time and its job.
type Place = (i32, i16, i64, Uuid);

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
        now = patiently(&mut connection, now).await?;
        newer(now)?;
    }
    indexes::heal(&mut connection, options).await?;
    if from < now {
        ahead(&mut connection).await?;
    }
    attribute(&mut connection).await?;
    births(&mut connection).await?;
    if from < now {
        free_keys(&mut connection).await?;
    }
    drop(connection.close().await);
    let number = |version: i32| u32::try_from(version).unwrap_or_default();
    Ok(Migrated { from: number(from), to: number(now) })
}

/// Makes sure that the schema is the one that this program knows, and says how jobs are to be stored: as nodes of before read
/// them, while one lives.
pub(crate) async fn check(connection: &mut PgConnection) -> Result<Bodies> {
    let found = version_in(connection).await?;
    newer(found)?;
    if found < known() {
        return Err(Error::new(ErrorKind::Config, "store.open")
            .with("schema", found)
            .with("needed", known()));
    }
    // The database may have come from another cluster.
    ask::query("SELECT hodei.rebase()").execute(&mut *connection).await.map_err(failed("store.open"))?;
    let before = ask::scalar(
        "SELECT EXISTS (SELECT 1 FROM hodei.owner WHERE reads IS NULL AND NOT cleared AND expires_at > hodei.now())",
    );
    let before: bool = before.fetch_one(connection).await.map_err(failed("store.open"))?;
    Ok(if before { Bodies::AsBefore } else { Bodies::Lean })
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

/// Takes the next step, again and again where somebody is in the way: nobody waits for it longer than it waits for them.
async fn patiently(connection: &mut PgConnection, from: i32) -> Result<i32> {
    let mut tries = 0;
    loop {
        tries += 1;
        match step(connection, from).await {
            Err(error) if was_in_the_way(&error) && tries < TRIES => tokio::time::sleep(PASS).await,
            Err(error) => {
                give_up(connection, from).await;
                return Err(error);
            }
            taken => return taken,
        }
    }
}

/// Whether somebody held what a step needs.
fn was_in_the_way(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Locked | ErrorKind::Timeout)
}

/// Takes back what was done before a step that is given up, as well as it can be: the error of the step is what counts.
async fn give_up(connection: &mut PgConnection, from: i32) {
    let step = usize::try_from(from).ok().and_then(|taken| STEPS.get(taken));
    for sql in step.map_or(&[][..], |step| step.given_up) {
        for _ in 0..TRIES {
            match alone(connection, sql).await {
                Err(error) if was_in_the_way(&error) => tokio::time::sleep(PASS).await,
                _ => break,
            }
        }
    }
}

/// Runs a script in a transaction of its own, with the lock of all migrations.
async fn alone(connection: &mut PgConnection, sql: &'static str) -> Result<()> {
    let mut tx = connection.begin().await.map_err(failed(OP))?;
    ask::query(LOCK).execute(&mut *tx).await.map_err(failed(OP))?;
    ask::query(LOCK_TIMEOUT).execute(&mut *tx).await.map_err(failed(OP))?;
    sqlx::raw_sql(sql).execute(&mut *tx).await.map_err(failed(OP))?;
    tx.commit().await.map_err(failed(OP))
}

/// Runs a statement in a transaction of its own, as all here are: out of one a proxy that pools transactions may run it on
/// another connection than that on which it was prepared.
async fn loose(connection: &mut PgConnection, sql: &'static str) -> Result<()> {
    let mut tx = connection.begin().await.map_err(failed(OP))?;
    ask::query(sql).execute(&mut *tx).await.map_err(failed(OP))?;
    tx.commit().await.map_err(failed(OP))
}

/// Finds the queues of what was counted without them: all of it before there were counts by queue, and what transactions
/// counted that were under way when these came.
async fn attribute(connection: &mut PgConnection) -> Result<()> {
    loose(connection, "SELECT hodei.attribute()").await
}

/// Frees the keys of jobs that had ended before keys went with them; what nodes of before end meanwhile frees its own. A key
/// that is left is free when somebody submits with it.
async fn free_keys(connection: &mut PgConnection) -> Result<()> {
    loose(
        connection,
        "DELETE FROM hodei.unique_key k USING hodei.done d WHERE k.key LIKE 'open:%' AND d.id = k.id",
    )
    .await
}

/// Writes beside jobs of before when they were created, a thousand after the other, as lists of their states need it: see
/// `born.sql`. Nobody writes it as before any more: whoever did was waited for when the indexes were built.
async fn births(connection: &mut PgConnection) -> Result<()> {
    let mut tx = connection.begin().await.map_err(failed(OP))?;
    let known = ask::scalar("SELECT coalesce((SELECT known FROM hodei.born), false)");
    let known: bool = known.fetch_one(&mut *tx).await.map_err(failed(OP))?;
    tx.commit().await.map_err(failed(OP))?;
    if known {
        return Ok(());
    }
    for place in PLACES {
        let mut last = (i32::MIN, i16::MIN, i64::MIN, Uuid::nil());
        while let Some(next) = note_births(connection, place, last).await? {
            last = next;
        }
    }
    loose(connection, "UPDATE hodei.born SET known = true").await
}

/// Goes on behind a place in a table, again where somebody is in the way, and says where it ended.
async fn note_births(connection: &mut PgConnection, place: &str, last: Place) -> Result<Option<Place>> {
    let mut tries = 0;
    loop {
        tries += 1;
        match note_once(connection, place, last).await {
            Err(error) if error.is_retryable() && tries < TRIES => tokio::time::sleep(PASS).await,
            noted => return noted,
        }
    }
}

async fn note_once(connection: &mut PgConnection, place: &str, last: Place) -> Result<Option<Place>> {
    let mut tx = connection.begin().await.map_err(failed(OP))?;
    let row = ask::query("SELECT * FROM hodei.note_births($1, $2, $3, $4, $5)")
        .bind(place)
        .bind(last.0)
        .bind(last.1)
        .bind(last.2)
        .bind(last.3)
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed(OP))?;
    tx.commit().await.map_err(failed(OP))?;
    let place = |row: PgRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
    row.map(place).transpose().map_err(failed(OP))
}

/// Makes the first parts of the history. Where somebody is in the way, or it would take too long, whoever leads makes
/// them later.
async fn ahead(connection: &mut PgConnection) -> Result<()> {
    loop {
        let mut tx = connection.begin().await.map_err(failed(OP))?;
        ask::query(LOCK).execute(&mut *tx).await.map_err(failed(OP))?;
        ask::query(LOCK_TIMEOUT).execute(&mut *tx).await.map_err(failed(OP))?;
        ask::query(AHEAD_TIMEOUT).execute(&mut *tx).await.map_err(failed(OP))?;
        let made = ask::scalar("SELECT hodei.add_era($1)").bind(ERA).fetch_one(&mut *tx).await;
        match made.map_err(failed(OP)) {
            Ok(Some(true)) => tx.commit().await.map_err(failed(OP))?,
            // Where it could be made once it was proved that nothing of the rest belongs there, nothing is begun.
            Ok(Some(false) | None) => return Ok(()),
            Err(error) if was_in_the_way(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Takes the next step, unless somebody else has taken it meanwhile, and returns the version.
async fn step(connection: &mut PgConnection, from: i32) -> Result<i32> {
    let next = usize::try_from(from).ok().and_then(|taken| STEPS.get(taken));
    for sql in next.map_or(&[][..], |next| next.before) {
        alone(connection, sql).await?;
    }
    let mut tx = connection.begin().await.map_err(failed(OP))?;
    ask::query(LOCK).execute(&mut *tx).await.map_err(failed(OP))?;
    ask::query(LOCK_TIMEOUT).execute(&mut *tx).await.map_err(failed(OP))?;
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
    let functions = if found + 1 == known() { FUNCTIONS } else { &[] };
    for sql in next.sql.iter().chain(&[UNSEEN]).chain(functions) {
        sqlx::raw_sql(*sql).execute(&mut *tx).await.map_err(failed(OP))?;
    }
    if let Some((locks, rest)) = next.last.split_first() {
        for sql in [LOCKS_TIMEOUT, locks, "SET LOCAL statement_timeout = 0"].iter().chain(rest) {
            sqlx::raw_sql(*sql).execute(&mut *tx).await.map_err(failed(OP))?;
        }
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
