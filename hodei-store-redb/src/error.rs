//! What the database says, as errors of Hodei.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hodei_core::{Error, ErrorKind, Result};

/// Turns an error of the database into one of Hodei.
pub(crate) fn failed<E: Into<redb::Error>>(op: &'static str) -> impl Fn(E) -> Error {
    move |error| of(op, error.into())
}

fn of(op: &'static str, error: redb::Error) -> Error {
    let kind = match &error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => ErrorKind::Locked,
        redb::Error::Io(source) => of_io(source),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => ErrorKind::Io,
        redb::Error::ValueTooLarge(_) => ErrorKind::LimitExceeded,
        _ => ErrorKind::Corrupt,
    };
    Error::new(kind, op).source_error(error)
}

fn of_io(source: &io::Error) -> ErrorKind {
    match source.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Io,
    }
}

/// A row that is not what was written.
pub(crate) fn corrupt(op: &'static str, what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, op).with("found", what)
}

/// Runs something on the database. Where damaged pages make it panic, the panic becomes an error.
pub(crate) fn guarded<R>(op: &'static str, run: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(corrupt(op, "a panic of the database")))
}
