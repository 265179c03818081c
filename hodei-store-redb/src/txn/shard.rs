//! What a shard keeps for whoever stands above it.

use std::time::Duration;

use bytes::Bytes;
use hodei_core::job::Lease;
use hodei_core::store::{Note, Term};
use hodei_core::{Name, Result};

use super::work::Work;
use crate::codec::{self, OwnerRow, TermRow};
use crate::rows::Rows;
use crate::table::{META_INCARNATION, Tab};

/// Writes a note whose version is still the expected one, and says whether it was.
pub(crate) fn put_note(work: &mut Work<'_, '_>, name: &Name, expected: u64, value: &Bytes) -> Result<bool> {
    let key = name.as_str().as_bytes();
    let version = work.read(Tab::Notes, key, codec::note)?.map_or(0, |note| note.version);
    if version != expected {
        return Ok(false);
    }
    let note = Note { version: version + 1, value: value.clone() };
    work.put(Tab::Notes, key, &codec::note_row(&note)?)?;
    Ok(true)
}

/// Enters an owner that was registered elsewhere, and says whether it lives here.
pub(crate) fn adopt_owner(work: &mut Work<'_, '_>, owner: &Lease, ttl: Duration) -> Result<bool> {
    let name = owner.owner.name().as_str();
    let now = work.now.as_micros();
    let mut expires_at = work.now.saturating_add(ttl).as_micros();
    match work.owner(name)? {
        Some(row) if row.incarnation > owner.incarnation => return Ok(false),
        Some(row) if row.incarnation == owner.incarnation => {
            if row.expires_at <= now {
                return Ok(false);
            }
            expires_at = expires_at.max(row.expires_at);
        }
        Some(_) | None => {}
    }
    work.put_owner(name, OwnerRow { incarnation: owner.incarnation, expires_at })?;
    let last = work.delta.incarnation.unwrap_or_else(|| work.look(|index| index.incarnation));
    if owner.incarnation > last {
        work.put(Tab::Meta, META_INCARNATION, &codec::number_row(owner.incarnation)?)?;
        work.delta.incarnation = Some(owner.incarnation);
    }
    Ok(true)
}

/// Enters a term that was given out elsewhere; `false` when a later one is known.
pub(crate) fn adopt_term(work: &mut Work<'_, '_>, term: &Term, ttl: Duration) -> Result<bool> {
    let later = work.read(Tab::Terms, term.duty.as_str().as_bytes(), |row| {
        let row: TermRow<'_> = codec::decode(row)?;
        let same =
            row.owner == term.holder.owner.name().as_str() && row.incarnation == term.holder.incarnation;
        Ok(row.number > term.number || (row.number == term.number && !same))
    })?;
    if later.unwrap_or(false) {
        return Ok(false);
    }
    work.put_term(term, ttl)?;
    Ok(true)
}
