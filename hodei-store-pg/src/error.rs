//! What the server says, as errors of Hodei.

use std::time::Duration;

use hodei_core::{Error, ErrorKind};

/// After how long a retry makes sense where the server is not there: 200 ms.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(200);
/// After how long a retry makes sense where two transactions were in each other's way: 5 ms.
const RACE_AFTER: Duration = Duration::from_millis(5);
/// What `hodei.lane_no` says where a tenant has as many lanes as it may.
pub(crate) const CROWDED: &str = "HD002";
/// What `hodei.pos` says in a transaction of another isolation than `READ COMMITTED`.
const ISOLATED: &str = "HD003";

/// A row that is refused by a bound of the history.
pub(crate) const BOUNDED: &str = "23514";

/// No lock within its timeout.
pub(crate) const NO_LOCK: &str = "55P03";

/// A statement that the server knows by no name, or by a name that is taken: so it is behind a proxy that pools
/// transactions, where the name was given on another connection. Nothing of it was done.
pub(crate) const NAMELESS: [&str; 2] = ["26000", "42P05"];

/// How far a verb had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing can be committed: a read, or a write before its commit was asked for.
    Before,
    /// The commit was asked for: without a reply nobody knows whether it happened.
    Commit,
}

/// Turns an error of the database into one of Hodei, where nothing can have been committed.
pub(crate) fn failed(op: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| of(op, Stage::Before, error)
}

/// As [`failed`], where a connection was being made: a certificate that is not believed is no fault that passes.
pub(crate) fn unconnected(op: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| match error {
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            of(op, Stage::Before, sqlx::Error::Tls(Box::new(error)))
        }
        error => of(op, Stage::Before, error),
    }
}

/// Turns an error of the database into one of Hodei.
pub(crate) fn of(op: &'static str, stage: Stage, error: sqlx::Error) -> Error {
    let kind = kind_of(stage, &error);
    let made = Error::new(kind, op);
    let made = match error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned())) {
        Some(code) if NAMELESS.contains(&code.as_str()) => {
            crate::ask::without_names();
            made.with("sqlstate", code)
        }
        Some(code) => made.with("sqlstate", code),
        None => made,
    };
    let made = made.source_error(error);
    match kind {
        ErrorKind::Unavailable => made.retry_after(RETRY_AFTER),
        ErrorKind::Locked => made.retry_after(RACE_AFTER),
        _ => made,
    }
}

fn kind_of(stage: Stage, error: &sqlx::Error) -> ErrorKind {
    let lost = if stage == Stage::Commit { ErrorKind::Indeterminate } else { ErrorKind::Unavailable };
    match error {
        // For moments, while a part of the history is made that is hours ahead: an id of then.
        sqlx::Error::Database(error) if error.constraint() == Some("era") => ErrorKind::Locked,
        sqlx::Error::Database(error) => error.code().map_or(lost, |code| of_state(stage, &code)),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => ErrorKind::Unavailable,
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => lost,
        sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => ErrorKind::Config,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Bug,
    }
}

/// The kind of an SQLSTATE: its class is the first two letters.
pub(crate) fn of_state(stage: Stage, code: &str) -> ErrorKind {
    let lost = if stage == Stage::Commit { ErrorKind::Indeterminate } else { ErrorKind::Unavailable };
    match code {
        // Serialization failure, deadlock, no lock within its timeout; an id or a key that somebody else took meanwhile,
        // of whom the next try knows.
        "40001" | "40P01" | NO_LOCK | "23505" => ErrorKind::Locked,
        // As if another had the name: the next try does without.
        code if NAMELESS.contains(&code) => ErrorKind::Locked,
        // The statement was cancelled: by its timeout, or by somebody.
        "57014" => ErrorKind::Timeout,
        // Shutting down, crashed, starting up, too many connections.
        "57P01" | "57P02" | "57P05" => lost,
        // It was silent in a transaction for too long, and the server has ended it.
        "25P03" => lost,
        "57P03" | "53300" => ErrorKind::Unavailable,
        "53100" | "53200" | "53000" | CROWDED => ErrorKind::Full,
        "42501" | "25006" => ErrorKind::PermissionDenied,
        // No schema.
        "42P01" | "3F000" | "42883" | "42703" => ErrorKind::Config,
        "XX001" | "XX002" => ErrorKind::Corrupt,
        "3D000" | ISOLATED => ErrorKind::Config,
        _ => match code.get(..2) {
            Some("08") => lost,
            // Whether the server still knows what a transaction did is not known.
            Some("40") => ErrorKind::Indeterminate,
            Some("28") => ErrorKind::Unauthenticated,
            Some("53") => ErrorKind::Full,
            Some("58") => ErrorKind::Io,
            _ => ErrorKind::Bug,
        },
    }
}
