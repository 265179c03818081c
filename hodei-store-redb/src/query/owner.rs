//! Who is alive.

use std::collections::BTreeMap;

use hodei_core::job::Lease;
use hodei_core::store::Living;
use hodei_core::{Name, OwnerId, Result, Timestamp};

use crate::codec::{self, OwnerRow, TermRow};
use crate::error::corrupt;
use crate::reader::Snapshot;
use crate::rows::{Rows, Span};
use crate::table::Tab;

/// Lists who is alive, and what he leads.
pub(crate) fn owners(rows: &mut Snapshot<'_>, now: Timestamp) -> Result<Vec<Living>> {
    let mut led: BTreeMap<(String, u64), Vec<Name>> = BTreeMap::new();
    rows.scan(Tab::Terms, Span::ALL, |key, row| {
        let row: TermRow<'_> = codec::decode(row)?;
        if row.expires_at > now.as_micros() {
            led.entry((row.owner.to_owned(), row.incarnation)).or_default().push(name(key)?);
        }
        Ok(true)
    })?;
    let mut living = Vec::new();
    rows.scan(Tab::Owners, Span::ALL, |key, row| {
        let row: OwnerRow = codec::decode(row)?;
        if row.expires_at > now.as_micros() {
            let owner = OwnerId::from(name(key)?);
            let duties = led.remove(&(owner.name().as_str().to_owned(), row.incarnation)).unwrap_or_default();
            let lease = Lease { owner, incarnation: row.incarnation };
            living.push(Living { lease, until: Timestamp::from_micros(row.expires_at), duties });
        }
        Ok(true)
    })?;
    Ok(living)
}

fn name(key: &[u8]) -> Result<Name> {
    let text = str::from_utf8(key).map_err(|_| corrupt("store.owners", "a name that is no text"))?;
    Name::new(text).map_err(|_| corrupt("store.owners", "a bad name"))
}
