//! Rows that are new, written together.
//!
//! An insert walks down the tree and moves about what is in its leaf. Most rows of a transaction are new and come behind
//! what is there: they are kept until it ends, or until somebody looks for one of them, and then fill one leaf after the
//! other through a cursor.

use std::ops::{Bound, Range};

use hodei_core::Result;
use hodei_core::map::JobSet;
use redb::{CursorError, Table};

use crate::codec;
use crate::error::failed;
use crate::key;
use crate::table::Tab;

/// How many bytes of a table are kept at most.
const KEPT_MAX: usize = 1 << 20;

/// How many rows a cursor has to take for its opening to have been worth it.
const RUN_MIN: usize = 8;

/// How many rows are inserted one by one where a run was shorter.
const APART: usize = 32;

/// Rows of one table that are still to be written. Each key is there once.
#[derive(Debug, Default)]
pub(super) struct Appends {
    /// Where the keys and the rows are.
    places: Vec<(Range<usize>, Range<usize>)>,
    bytes: Vec<u8>,
    /// The ids that end the keys, once one has come before another: most rows come in their order, where the last key
    /// says what a look at all of them would.
    ids: Option<JobSet>,
}

impl Appends {
    /// Takes a row as it is made, seals it, and returns how many bytes it is with its key.
    pub(super) fn take(
        &mut self,
        tab: Tab,
        key: &[u8],
        make: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let row = self.bytes.len();
        if let Err(error) = make(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        if self.bytes.len() > row {
            codec::bind_from(row, tab, key, &mut self.bytes);
        }
        let end = self.bytes.len();
        if self.ids.is_none() && self.last().is_some_and(|last| last >= key) {
            self.ids = Some(
                self.places.iter().filter_map(|(key, _)| key::last_id(&self.bytes[key.clone()])).collect(),
            );
        }
        self.places.push((start..row, row..end));
        if let Some(ids) = &mut self.ids {
            ids.extend(key::last_id(key));
        }
        Ok(end - start)
    }

    /// Returns the key that came last.
    fn last(&self) -> Option<&[u8]> {
        self.places.last().map(|(key, _)| &self.bytes[key.clone()])
    }

    /// Says whether a key may be among those that are still to be written.
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        match &self.ids {
            Some(ids) => key::last_id(key).is_none_or(|id| ids.contains(&id)),
            None => {
                let has = || self.places.binary_search_by(|(at, _)| self.bytes[at.clone()].cmp(key)).is_ok();
                self.last().is_some_and(|last| last >= key) && has()
            }
        }
    }

    /// Says whether a row with a key is no second one, and has room.
    pub(super) fn has_room_for(&self, key: &[u8]) -> bool {
        self.bytes.len() < KEPT_MAX && !self.may_have(key)
    }

    /// Says whether nothing is to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Writes what was kept.
    pub(super) fn write(&mut self, table: &mut Table<'_, &'static [u8], &'static [u8]>) -> Result<()> {
        let Self { places, bytes, ids } = self;
        if ids.is_some() {
            places.sort_unstable_by(|(one, _), (other, _)| bytes[one.clone()].cmp(&bytes[other.clone()]));
        }
        let rows = places.iter().map(|(key, row)| (&bytes[key.clone()], &bytes[row.clone()]));
        let written = write_ascending(table, &rows.collect::<Vec<_>>());
        places.clear();
        bytes.clear();
        *ids = None;
        written
    }
}

/// Writes rows of ascending keys: runs that fall between two rows of the table through a cursor, others one by one.
fn write_ascending(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    mut rows: &[(&[u8], &[u8])],
) -> Result<()> {
    while let [(first, _), ..] = rows {
        let run = if rows.len() < RUN_MIN { 0 } else { write_run(table, first, rows)? };
        rows = &rows[run..];
        // Whatever a cursor does not take is taken by an insert.
        let apart = if run < RUN_MIN { APART } else { 1 };
        for (key, row) in rows.split_off(..apart.min(rows.len())).unwrap_or_default() {
            table.insert(key, row).map_err(failed("store.write"))?;
        }
    }
    Ok(())
}

/// Writes rows up to the first whose key does not fall before the next row of the table, and returns how many.
fn write_run(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    first: &[u8],
    rows: &[(&[u8], &[u8])],
) -> Result<usize> {
    let mut cursor = table.lower_bound_mut(Bound::Included(first)).map_err(failed("store.write"))?;
    let mut written = 0;
    for (key, row) in rows {
        match cursor.insert_before(key, row) {
            Ok(()) => written += 1,
            Err(CursorError::UnorderedKey) => break,
            Err(error) => return Err(failed("store.write")(error)),
        }
    }
    cursor.close().map_err(failed("store.write"))?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hodei_core::JobId;
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;
    use redb::{Database, ReadableDatabase, ReadableTable};

    use super::*;

    type Row = (Vec<u8>, Vec<u8>);

    fn rows(table: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Vec<Row> {
        let row = |row: std::result::Result<(redb::AccessGuard<'_, _>, redb::AccessGuard<'_, _>), _>| {
            let (key, value): (redb::AccessGuard<'_, &[u8]>, redb::AccessGuard<'_, &[u8]>) = row.unwrap();
            (key.value().to_vec(), value.value().to_vec())
        };
        table.iter().unwrap().map(row).collect()
    }

    proptest! {
        #[test]
        fn whatever_is_there_rows_come_in_as_if_inserted_one_by_one(
            before in prop::collection::vec(0..400_u64, 0..60),
            batches in prop::collection::vec(prop::collection::btree_set(0..400_u64, 0..120), 1..4),
        ) {
            let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
            let id = |n: u64| *JobId::from_parts(n, hodei_core::Tenant::default().slot(), n).as_bytes();
            let mut model = BTreeMap::new();
            let write = database.begin_write().unwrap();
            {
                let mut table = write.open_table(Tab::Born.definition()).unwrap();
                for n in before {
                    table.insert(&id(n)[..], &b"before"[..]).unwrap();
                    model.insert(id(n).to_vec(), b"before".to_vec());
                }
                let mut appends = Appends::default();
                for (number, batch) in batches.iter().enumerate() {
                    // Every other batch in an order that is not theirs.
                    let mut batch: Vec<u64> = batch.iter().copied().collect();
                    if number % 2 == 0 {
                        batch.reverse();
                    }
                    for n in &batch {
                        prop_assert!(appends.has_room_for(&id(*n)));
                        let row = [n.to_le_bytes(), (number as u64).to_le_bytes()].concat();
                        appends.take(Tab::Born, &id(*n), |into| { into.extend_from_slice(&row); Ok(()) }).unwrap();
                        prop_assert!(appends.may_have(&id(*n)) && !appends.may_have(&id(400)));
                        let mut sealed = Vec::new();
                        codec::seal(Tab::Born, &id(*n), &row, &mut sealed);
                        model.insert(id(*n).to_vec(), sealed);
                    }
                    prop_assert!(batch.iter().all(|n| appends.may_have(&id(*n))));
                    appends.write(&mut table).unwrap();
                    prop_assert!(appends.is_empty());
                }
            }
            write.commit().unwrap();
            let table = database.begin_read().unwrap().open_table(Tab::Born.definition()).unwrap();
            prop_assert_eq!(rows(&table), model.into_iter().collect::<Vec<_>>());
        }
    }
}
