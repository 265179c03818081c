//! From an older schema to ours.
//!
//! Schema 1 had a row of each job in ten indexes. Schema 2 keeps those of open jobs in memory, and writes of a job what it
//! was born with and what moves. Schema 3 has tables for slots that move and for notes beside those of schema 2, schema 4
//! one for sequences and one for checkpoints, schema 5 counts the jobs that wait again, and schema 6 counts by queue what
//! those before counted by tenant.
//!
//! Nobody waits for what can be done while the file is in use:
//!
//! | when | transactions | each of them |
//! |---|---|---|
//! | opening | the first | raises the number of the schema, so that a program that knows only an older one refuses the file from then on, adds the tables that are new, and notes that nothing is counted by queue; of schema 1, that its jobs are to be rewritten |
//! | opening | over the other rows of schema 1 | gives so many of them a checksum that covers their place |
//! | opening | over the jobs of schema 1 | rewrites so many jobs, and notes the last of them; the last one notes that nothing is counted by queue |
//! | in use | over the tables of schema 1 | removes so many rows, and a table without rows |
//! | in use | over the jobs | counts so many by queue, and notes the last of them |
//! | in use | the last | notes that all is counted |
//!
//! One that was interrupted goes on where it was; rows with new checksums are passed over. [`crate::memory`] says what is counted meanwhile, and
//! `crate::writer` when the transactions in use have their turn.

use hodei_core::{JobId, Result};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use crate::codec;
use crate::error::{corrupt, failed};
use crate::key;
use crate::memory::{BATCH, Uncounted};
use crate::table::{Definition, META_COUNTING, META_MIGRATED, META_SCHEMA, SCHEMA, Tab};

const OP: &str = "store.migrate";

/// What schema 1 kept of a job beside its head.
const SPECS: Definition = TableDefinition::new("specs");

/// Begins to migrate a file, or goes on with it, and rewrites the rows of schema 1, at most so many in a transaction.
pub(crate) fn migrate(db: &Database, rows: usize) -> Result<()> {
    begin(db)?;
    if has_specs(db)? {
        Tab::HANDED_DOWN.iter().try_for_each(|tab| bind(db, *tab, rows))?;
    }
    while step(db, rows)? {}
    Ok(())
}

/// Says whether a file is one of schema 1, whose jobs may not be rewritten yet.
fn has_specs(db: &Database) -> Result<bool> {
    match db.begin_read().map_err(failed(OP))?.open_table(SPECS) {
        Ok(_) => Ok(true),
        // Later schemas have none: their rows are ours.
        Err(TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(failed(OP)(error)),
    }
}

/// Gives the rows of a table that have none a checksum that covers their place, at most so many in a transaction.
fn bind(db: &Database, tab: Tab, rows: usize) -> Result<()> {
    let mut from: Vec<u8> = Vec::new();
    loop {
        let mut some = Vec::new();
        let txn = db.begin_read().map_err(failed(OP))?;
        let table = txn.open_table(tab.definition()).map_err(failed(OP))?;
        for row in table.range::<&[u8]>(from.as_slice()..).map_err(failed(OP))? {
            let (key, sealed) = row.map_err(failed(OP))?;
            let (row, is_bound) = codec::opened(tab, key.value(), sealed.value())?;
            if !is_bound {
                some.push((key.value().to_vec(), row.to_vec()));
            }
            if some.len() == rows.max(1) {
                break;
            }
        }
        let Some((last, _)) = some.last() else { return Ok(()) };
        from = [last.as_slice(), &[0]].concat();
        let txn = db.begin_write().map_err(failed(OP))?;
        {
            let mut table = txn.open_table(tab.definition()).map_err(failed(OP))?;
            some.iter().try_for_each(|(key, row)| put(&mut table, tab, key, row))?;
        }
        txn.commit().map_err(failed(OP))?;
    }
}

/// Makes the file one of ours whose jobs are still to be rewritten.
fn begin(db: &Database) -> Result<()> {
    let txn = db.begin_write().map_err(failed(OP))?;
    for tab in Tab::ALL {
        txn.open_table(tab.definition()).map_err(failed(OP))?;
    }
    {
        let mut meta = txn.open_table(Tab::Meta.definition()).map_err(failed(OP))?;
        put(&mut meta, Tab::Meta, META_SCHEMA, &codec::number_row(SCHEMA)?)?;
        if meta.get(META_MIGRATED).map_err(failed(OP))?.is_none() {
            put(&mut meta, Tab::Meta, META_MIGRATED, &codec::id_row(JobId::from_bytes([0; 16]))?)?;
        }
    }
    txn.commit().map_err(failed(OP))
}

/// Makes one transaction, and says whether others follow.
fn step(db: &Database, rows: usize) -> Result<bool> {
    let some = some(db, rows)?;
    let txn = db.begin_write().map_err(failed(OP))?;
    if some.is_empty() {
        all_rewritten(&txn)?;
    } else {
        rewrite(&txn, &some)?;
    }
    txn.commit().map_err(failed(OP))?;
    Ok(!some.is_empty())
}

/// Notes that every job has the rows that it has today, and that nothing is counted by queue.
fn all_rewritten(txn: &WriteTransaction) -> Result<()> {
    let born = txn.open_table(Tab::Born.definition()).map_err(failed(OP))?;
    let last = match born.last().map_err(failed(OP))? {
        Some((key, _)) => key::last_id(key.value()).ok_or_else(|| corrupt(OP, "a short key"))?,
        None => JobId::from_bytes([0; 16]),
    };
    let mut meta = txn.open_table(Tab::Meta.definition()).map_err(failed(OP))?;
    put(&mut meta, Tab::Meta, META_COUNTING, &Uncounted::up_to(last).row()?)?;
    meta.remove(META_MIGRATED).map_err(failed(OP))?;
    Ok(())
}

/// A job, and its two rows.
type First = (JobId, Vec<u8>, Vec<u8>);

/// Reads the next jobs that are not rewritten, one at least: there are none only where none is left.
fn some(db: &Database, jobs: usize) -> Result<Vec<First>> {
    let txn = db.begin_read().map_err(failed(OP))?;
    let meta = txn.open_table(Tab::Meta.definition()).map_err(failed(OP))?;
    let from = match meta.get_owned(META_MIGRATED).map_err(failed(OP))? {
        Some(row) => {
            let last = codec::id(codec::unseal(Tab::Meta, META_MIGRATED, row.value())?)?;
            [&last.as_bytes()[..], &[0]].concat()
        }
        None => Vec::new(),
    };
    let specs = match txn.open_table(SPECS) {
        Ok(specs) => specs,
        // Schema 2 has none: its rows are ours.
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(failed(OP)(error)),
    };
    let heads = txn.open_table(Tab::Heads.definition()).map_err(failed(OP))?;
    let mut some = Vec::new();
    for row in specs.range::<&[u8]>(from.as_slice()..).map_err(failed(OP))?.take(jobs.max(1)) {
        let (key, fixed) = row.map_err(failed(OP))?;
        let id = key::last_id(key.value()).ok_or_else(|| corrupt(OP, "a short key"))?;
        let head = heads.get(key.value()).map_err(failed(OP))?;
        let head = head.ok_or_else(|| corrupt(OP, "a spec without its job"))?;
        let (fixed, head) = (fixed.value(), head.value());
        let plain = |row| codec::opened(Tab::Heads, key.value(), row).map(|(row, _)| row.to_vec());
        some.push((id, plain(fixed)?, plain(head)?));
    }
    Ok(some)
}

/// Writes the rows of jobs as schema 2 has them.
fn rewrite(txn: &WriteTransaction, jobs: &[First]) -> Result<()> {
    let open = |tab: Tab| txn.open_table(tab.definition()).map_err(failed(OP));
    let (mut born, mut heads, mut ended) = (open(Tab::Born)?, open(Tab::Heads)?, open(Tab::Ended)?);
    let mut batches = open(Tab::Open)?;
    let last = batches.last().map_err(failed(OP))?.map(|(key, _)| key::sequence_of(key.value()));
    let mut batch = last.flatten().map_or(0, |last| last + 1);
    let mut named = Vec::with_capacity(BATCH);
    for (id, fixed, row) in jobs {
        let mut head = codec::first_job(*id, fixed, row)?;
        head.batch = batch;
        let job = &head.job;
        let (mut work, mut row) = (Vec::new(), Vec::new());
        codec::work_part(&job.spec, &mut work)?;
        codec::born_row(job, &work, batch, &mut row)?;
        put(&mut born, Tab::Born, id.as_bytes(), &row)?;
        if head.is_newborn() {
            heads.remove(&id.as_bytes()[..]).map_err(failed(OP))?;
        } else {
            row.clear();
            codec::head_row(&head, &mut row)?;
            put(&mut heads, Tab::Heads, id.as_bytes(), &row)?;
        }
        if job.state.is_terminal() {
            put(&mut ended, Tab::Ended, &key::ended(&job.tenant, job.state, job.created_at, *id), &[])?;
            continue;
        }
        named.push(*id);
        if named.len() == BATCH {
            put(&mut batches, Tab::Open, &key::sequence(batch), &codec::ids_row(&named)?)?;
            batch += 1;
            named.clear();
        }
    }
    if !named.is_empty() {
        put(&mut batches, Tab::Open, &key::sequence(batch), &codec::ids_row(&named)?)?;
    }
    let Some((last, ..)) = jobs.last() else { return Ok(()) };
    put(&mut open(Tab::Meta)?, Tab::Meta, META_MIGRATED, &codec::id_row(*last)?)
}

fn put(table: &mut Table<'_, &[u8], &[u8]>, tab: Tab, key: &[u8], row: &[u8]) -> Result<()> {
    let mut sealed = Vec::new();
    codec::seal(tab, key, row, &mut sealed);
    table.insert(key, sealed.as_slice()).map_err(failed(OP))?;
    Ok(())
}

#[cfg(test)]
mod tests;
