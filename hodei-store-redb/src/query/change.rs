//! The change log.

use hodei_core::store::{ChangePage, Cursor, Scope};
use hodei_core::{Error, ErrorKind, Result};

use super::list::bad_cursor;
use crate::codec;
use crate::error::corrupt;
use crate::key;
use crate::reader::Snapshot;
use crate::rows::Rows;
use crate::table::{META_FLOOR, Tab};

/// How many changes are looked at for a page before it is returned short.
const EXAMINED_MAX: usize = 10_000;

/// Returns how many rows a page may have to read.
pub(crate) fn changes_examined(scope: &Scope, limit: usize) -> usize {
    match scope {
        Scope::All => limit,
        Scope::Tenant(_) => EXAMINED_MAX,
    }
}

/// Returns the cursor of the change of a number.
pub(crate) fn cursor_before(number: u64) -> Cursor {
    Cursor::from_bytes(key::sequence(number).to_vec())
}

/// Reads changes in the order of their commits.
pub(crate) fn changes(
    rows: &mut Snapshot<'_>,
    scope: &Scope,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<ChangePage> {
    let floor = rows.read(Tab::Meta, META_FLOOR, codec::number)?.unwrap_or(1);
    let from = match after {
        Some(cursor) => key::sequence_of(cursor.as_bytes()).ok_or_else(bad_cursor)?,
        None => floor,
    };
    if from < floor {
        return Err(Error::new(ErrorKind::CursorExpired, "store.changes"));
    }
    let (mut changes, mut next, mut examined) = (Vec::new(), from, 0);
    rows.scan(Tab::Changes, (Some(&key::sequence(from)[..]), None).into(), |key, row| {
        if changes.len() == limit || examined == EXAMINED_MAX {
            return Ok(false);
        }
        // The numbers have no gaps.
        if key::sequence_of(key) != Some(next) {
            return Err(corrupt("store.changes", "a change that is not there"));
        }
        let change = codec::change(row)?;
        next += 1;
        examined += 1;
        if scope.covers(&change.tenant) {
            changes.push(change);
        }
        Ok(true)
    })?;
    Ok(ChangePage { changes, next: cursor_before(next) })
}
