//! What a file was before it was one of today, for the tests.

use std::collections::BTreeMap;
use std::path::Path;

use hodei_core::job::State;
use hodei_core::store::Counts;
use hodei_core::{Error, ErrorKind, JobId, Result, Tenant};
use redb::{Database, ReadableTable, Table, WriteTransaction};

use crate::codec;
use crate::error::{corrupt, failed};
use crate::inner::uncounted;
use crate::key;
use crate::table::{Definition, META_COUNTING, META_SCHEMA, Tab};

const OP: &str = "store.older";

type Rows<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// Makes a closed file one of schema 5 again, which counted by tenant; also where it is being counted.
///
/// # Errors
///
/// Those of opening it.
pub fn as_schema_5(path: &Path) -> Result<()> {
    let db = Database::open(path).map_err(failed(OP))?;
    let txn = db.begin_write().map_err(failed(OP))?;
    by_tenant(&txn, Tab::Counts)?;
    by_tenant(&txn, Tab::Apart)?;
    put(&txn, Tab::Meta, META_SCHEMA, &codec::number_row(5)?)?;
    remove(&txn, Tab::Meta, META_COUNTING)?;
    txn.commit().map_err(failed(OP))
}

/// Puts the counts of a tenant's queues together; those of slots out of sight have the slot before the tenant.
fn by_tenant(txn: &WriteTransaction, tab: Tab) -> Result<()> {
    let mut counted = BTreeMap::new();
    for row in txn.open_table(tab.definition()).map_err(failed(OP))?.iter().map_err(failed(OP))? {
        let (key, row) = row.map_err(failed(OP))?;
        let (tenant, _, of) = codec::counted(key.value(), codec::unseal(tab, key.value(), row.value())?)?;
        let mut prefix = key::tenant_prefix(&tenant);
        if tab == Tab::Apart {
            prefix = [&key::slot(tenant.slot())[..], &prefix].concat();
        }
        let (_, counts) = counted.entry(prefix).or_insert_with(|| (tenant, Counts::default()));
        *counts = counts.plus(of);
    }
    txn.delete_table(tab.definition()).map_err(failed(OP))?;
    counted
        .into_iter()
        .try_for_each(|(key, (tenant, counts))| put(txn, tab, &key, &codec::uncounted_row(&tenant, &counts)?))
}

fn put(txn: &WriteTransaction, tab: Tab, key: &[u8], row: &[u8]) -> Result<()> {
    let mut sealed = Vec::new();
    codec::seal(tab, key, row, &mut sealed);
    let mut table = txn.open_table(tab.definition()).map_err(failed(OP))?;
    table.insert(key, sealed.as_slice()).map_err(failed(OP))?;
    Ok(())
}

fn remove(txn: &WriteTransaction, tab: Tab, key: &[u8]) -> Result<()> {
    txn.open_table(tab.definition()).map_err(failed(OP))?.remove(key).map_err(failed(OP))?;
    Ok(())
}

/// Puts jobs into a closed file of schema 1, each as one of a tenant that waits there and under one of these ids, but for the
/// indexes, which nobody reads.
///
/// # Errors
///
/// Those of opening it; `NotFound` where none waits.
pub fn grow_schema_1(path: &Path, ids: &[JobId]) -> Result<()> {
    let db = Database::open(path).map_err(failed(OP))?;
    let txn = db.begin_write().map_err(failed(OP))?;
    let specs: Definition = Definition::new("specs");
    {
        let mut specs = txn.open_table(specs).map_err(failed(OP))?;
        let mut heads = txn.open_table(Tab::Heads.definition()).map_err(failed(OP))?;
        let (tenant, spec, head) = waiting(&specs, &heads)?;
        for id in ids {
            specs.insert(&id.as_bytes()[..], spec.as_slice()).map_err(failed(OP))?;
            heads.insert(&id.as_bytes()[..], head.as_slice()).map_err(failed(OP))?;
        }
        let key = key::tenant_prefix(&tenant);
        let mut counts = txn.open_table(Tab::Counts.definition()).map_err(failed(OP))?;
        let before = match counts.get(key.as_slice()).map_err(failed(OP))? {
            Some(row) => codec::uncounted(codec::unseal(Tab::Counts, &key, row.value())?)?.1,
            None => Counts::default(),
        };
        let more = |state| if state == State::Pending { ids.len() as u64 } else { 0 };
        let after = before.plus(Counts::from_numbers(State::ALL.map(more)));
        let mut sealed = Vec::new();
        codec::seal(Tab::Counts, &key, &codec::uncounted_row(&tenant, &after)?, &mut sealed);
        counts.insert(key.as_slice(), sealed.as_slice()).map_err(failed(OP))?;
    }
    txn.commit().map_err(failed(OP))
}

/// Returns the tenant of a job that waits, and its two rows as they are stored.
fn waiting(specs: &Rows<'_>, heads: &Rows<'_>) -> Result<(Tenant, Vec<u8>, Vec<u8>)> {
    for row in specs.iter().map_err(failed(OP))? {
        let (key, spec) = row.map_err(failed(OP))?;
        let head = heads.get(key.value()).map_err(failed(OP))?;
        let head = head.ok_or_else(|| corrupt(OP, "a spec without its job"))?;
        let id = key::last_id(key.value()).ok_or_else(|| corrupt(OP, "a short key"))?;
        let plain = |row| codec::opened(Tab::Heads, key.value(), row).map(|(row, _)| row);
        let job = codec::first_job(id, plain(spec.value())?, plain(head.value())?)?;
        if job.job.state == State::Pending && job.job.parents.is_empty() {
            return Ok((job.job.tenant, spec.value().to_vec(), head.value().to_vec()));
        }
    }
    Err(Error::new(ErrorKind::NotFound, OP))
}

/// Returns the last job of a closed file that is counted by queue; nothing when all are.
///
/// # Errors
///
/// Those of opening it.
pub fn counted_to(path: &Path) -> Result<Option<JobId>> {
    let counting = uncounted(&Database::open(path).map_err(failed(OP))?)?;
    Ok(counting.map(|uncounted| uncounted.after))
}
