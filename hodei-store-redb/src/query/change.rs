//! The change log.

use hodei_core::store::{ChangePage, Cursor, Scope};
use hodei_core::{Error, ErrorKind, Fault, Result};

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
    if limit == 0 {
        return Err(Error::invalid("store.changes", vec![Fault::new("limit", "zero")]));
    }
    let floor = rows.read(Tab::Meta, META_FLOOR, codec::number)?.unwrap_or(1);
    let from = match after {
        Some(cursor) => key::sequence_of(cursor.as_bytes()).ok_or_else(bad_cursor)?,
        None => floor,
    };
    if from < floor {
        return Err(Error::new(ErrorKind::CursorExpired, "store.changes"));
    }
    let first = |key: &[u8]| key::sequence_of(key).ok_or_else(|| corrupt("store.changes", "a short key"));
    // The change may be in the middle of a row.
    let row = rows.at_or_before(Tab::Changes, &key::sequence(from), |key, _| first(key))?;
    let (mut found, mut next, end) = (Vec::new(), from, from.saturating_add(EXAMINED_MAX as u64));
    let begin = key::sequence(row.unwrap_or(from));
    rows.scan(Tab::Changes, (Some(&begin[..]), None).into(), |key, row| {
        let (first, changes) = (first(key)?, codec::changes(row)?);
        let behind = first + changes.len() as u64;
        if behind <= from {
            return Ok(true);
        }
        // The numbers have no gaps.
        if first > next {
            return Err(corrupt("store.changes", "a change that is not there"));
        }
        for change in changes.into_iter().skip(usize::try_from(next - first).unwrap_or(usize::MAX)) {
            if found.len() == limit || next == end {
                return Ok(false);
            }
            next += 1;
            if scope.covers(&change.tenant) {
                found.push(change);
            }
        }
        Ok(true)
    })?;
    if found.is_empty() && next == from && from > floor {
        // The log may have been set back since, as by a copy of the file that was put in its place.
        let end = rows.at_or_before(Tab::Changes, &key::sequence(u64::MAX), |key, row| {
            Ok(first(key)? + codec::changes(row)?.len() as u64)
        })?;
        if end.is_none_or(|end| from > end) {
            return Err(Error::new(ErrorKind::CursorExpired, "store.changes"));
        }
    }
    let changes = found;
    Ok(ChangePage { changes, next: cursor_before(next) })
}
