//! From an older schema to ours, when a file is opened, so many rows per transaction.
//!
//! Schema 1 had a row of each job in ten indexes. Schema 2 keeps those of open jobs in memory, and writes of a job what it
//! was born with and what moves. Schema 3 has tables for slots that move and for notes beside those of schema 2, schema 4
//! one for sequences and one for checkpoints, schema 5 counts the jobs that wait again, and schema 6 counts by queue what
//! those before counted by tenant.
//!
//! | transactions | each of them |
//! |---|---|
//! | the first | raises the number of the schema, so that a program that knows only an older one refuses the file from then on, and notes that a migration is under way |
//! | over the jobs of schema 1 | rewrites so many jobs, and notes the last of them |
//! | over the tables that nobody needs any more | removes so many rows, and a table without rows |
//! | over the counts | removes so many; then writes so many of those that were made of the jobs |
//! | the last | is one of those, and notes that nothing is under way any more |
//!
//! One that was interrupted goes on with the jobs and the tables where it was, and counts anew.

use std::collections::BTreeSet;

use hodei_core::store::QueueTally;
use hodei_core::{JobId, Result};
use redb::{
    Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, TableHandle as _,
    WriteTransaction,
};

use crate::codec;
use crate::error::{corrupt, failed};
use crate::key;
use crate::memory::BATCH;
use crate::table::{Definition, META_MIGRATED, META_SCHEMA, SCHEMA, Tab};

const OP: &str = "store.migrate";

/// What schema 1 kept of a job beside its head.
const SPECS: Definition = TableDefinition::new("specs");

/// The tables of schema 1 that schema 2 does without.
const GONE: [&str; 8] = ["specs", "ready", "lanes", "due", "by_state", "leases", "cancels", "deadlines"];

/// The tables of counts.
const COUNTS: [Tab; 2] = [Tab::Counts, Tab::Apart];

/// Migrates a file, or goes on with it, at most so many jobs or rows in a transaction.
pub(crate) fn migrate(db: &Database, rows: usize) -> Result<()> {
    let mut next = Next::Jobs;
    while next.step(db, rows)? {}
    Ok(())
}

/// What a migration does next.
enum Next {
    /// Rewrite jobs.
    Jobs,
    /// Remove tables.
    Tables,
    /// Remove counts.
    Uncount,
    /// Write counts, the last of these first.
    Count(Vec<Counted>),
}

/// A row of counts: its table, its key and what it says.
type Counted = (Tab, Vec<u8>, Vec<u8>);

impl Next {
    /// Makes one transaction at most, and says whether others follow.
    fn step(&mut self, db: &Database, rows: usize) -> Result<bool> {
        match self {
            Self::Jobs => {
                let some = some(db, rows)?;
                if some.is_empty() {
                    *self = Self::Tables;
                } else {
                    write(db, |txn| rewrite(txn, &some))?;
                }
            }
            Self::Tables => {
                if !write(db, |txn| remove_tables(txn, rows))? {
                    *self = Self::Uncount;
                }
            }
            Self::Uncount => {
                if !write(db, |txn| remove_counts(txn, rows))? {
                    *self = Self::Count(count(db)?);
                }
            }
            Self::Count(counted) => {
                let some = counted.split_off(counted.len().saturating_sub(rows));
                let is_last = counted.is_empty();
                write(db, |txn| write_counts(txn, &some, is_last))?;
                return Ok(!is_last);
            }
        }
        Ok(true)
    }
}

/// Writes in a transaction, in which the file is one of ours that is being migrated.
fn write<R>(db: &Database, work: impl FnOnce(&WriteTransaction) -> Result<R>) -> Result<R> {
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
    let done = work(&txn)?;
    txn.commit().map_err(failed(OP))?;
    Ok(done)
}

/// A job, and its two rows.
type First = (JobId, Vec<u8>, Vec<u8>);

/// Reads the next jobs that are not rewritten.
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
    for row in specs.range::<&[u8]>(from.as_slice()..).map_err(failed(OP))?.take(jobs) {
        let (key, fixed) = row.map_err(failed(OP))?;
        let id = key::last_id(key.value()).ok_or_else(|| corrupt(OP, "a short key"))?;
        let head = heads.get(key.value()).map_err(failed(OP))?;
        let head = head.ok_or_else(|| corrupt(OP, "a spec without its job"))?;
        let (fixed, head) = (fixed.value(), head.value());
        let plain = |tab, row| codec::unseal(tab, key.value(), row).map(<[u8]>::to_vec);
        some.push((id, plain(Tab::Born, fixed)?, plain(Tab::Heads, head)?));
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

/// Removes rows of the tables that nobody needs any more, and the first table that has none; says whether others may be
/// left.
fn remove_tables(txn: &WriteTransaction, rows: usize) -> Result<bool> {
    let there: Vec<String> =
        txn.list_tables().map_err(failed(OP))?.map(|table| table.name().to_owned()).collect();
    let Some(gone) = GONE.into_iter().find(|gone| there.iter().any(|name| name == gone)) else {
        return Ok(false);
    };
    let gone: Definition = TableDefinition::new(gone);
    let removed = remove(&mut txn.open_table(gone).map_err(failed(OP))?, rows)?;
    if removed < rows {
        txn.delete_table(gone).map_err(failed(OP))?;
    }
    Ok(true)
}

/// Removes rows of counts, and says whether some may be left.
fn remove_counts(txn: &WriteTransaction, rows: usize) -> Result<bool> {
    let mut removed = 0;
    for tab in COUNTS {
        let mut table = txn.open_table(tab.definition()).map_err(failed(OP))?;
        removed += remove(&mut table, rows - removed)?;
    }
    Ok(removed == rows)
}

/// Removes the first rows of a table, at most so many, and returns how many there were.
fn remove(table: &mut Table<'_, &[u8], &[u8]>, rows: usize) -> Result<usize> {
    for removed in 0..rows {
        if table.pop_first().map_err(failed(OP))?.is_none() {
            return Ok(removed);
        }
    }
    Ok(rows)
}

/// Counts the jobs of each queue, those that are out of sight apart.
fn count(db: &Database) -> Result<Vec<Counted>> {
    let txn = db.begin_read().map_err(failed(OP))?;
    let open = |tab: Tab| txn.open_table(tab.definition()).map_err(failed(OP));
    let (mut seen, mut apart) = (QueueTally::default(), QueueTally::default());
    let (born, heads, mut slots) = (open(Tab::Born)?, open(Tab::Heads)?, BTreeSet::new());
    for row in open(Tab::Slots)?.iter().map_err(failed(OP))? {
        let (key, row) = row.map_err(failed(OP))?;
        let moving = codec::slot(codec::unseal(Tab::Slots, key.value(), row.value())?)?;
        slots.extend(key::slot_of(key.value()).filter(|_| moving.phase.hides()));
    }
    let mut names = codec::Names::default();
    for row in born.iter().map_err(failed(OP))? {
        let (key, row) = row.map_err(failed(OP))?;
        let (key, id) = (key.value(), key::last_id(key.value()).ok_or_else(|| corrupt(OP, "a short key"))?);
        let job = match heads.get(key).map_err(failed(OP))? {
            Some(head) => codec::shown(id, codec::unseal(Tab::Heads, key, head.value())?, &mut names),
            None => codec::newborn_shown(id, codec::unseal(Tab::Born, key, row.value())?, &mut names),
        };
        let job = job?.summary;
        let tally = if slots.contains(&id.slot()) { &mut apart } else { &mut seen };
        tally.moved(&job.tenant, &job.queue, None, Some(job.state));
    }
    let mut counted = Vec::new();
    for (tenant, queue, of) in seen.iter() {
        let key = key::tenant_text(tenant, queue.as_str());
        counted.push((Tab::Counts, key, codec::counts_row(tenant, queue, of)?));
    }
    for (tenant, queue, of) in apart.iter() {
        let key = key::apart(tenant.slot(), tenant, queue);
        counted.push((Tab::Apart, key, codec::counts_row(tenant, queue, of)?));
    }
    Ok(counted)
}

/// Writes rows of counts; with the last of them nothing is under way any more.
fn write_counts(txn: &WriteTransaction, some: &[Counted], is_last: bool) -> Result<()> {
    let open = |tab: Tab| txn.open_table(tab.definition()).map_err(failed(OP));
    let (mut counts, mut apart) = (open(Tab::Counts)?, open(Tab::Apart)?);
    for (tab, key, row) in some {
        put(if *tab == Tab::Apart { &mut apart } else { &mut counts }, *tab, key, row)?;
    }
    if is_last {
        open(Tab::Meta)?.remove(META_MIGRATED).map_err(failed(OP))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hodei_core::Tenant;
    use hodei_core::job::{JobSpec, NewJob};
    use hodei_core::store::{JobStore, QueueQuery, Relocate, Scope, SubmitOptions};

    use super::*;
    use crate::RedbStore;

    /// Makes a file one of schema 5 again, but for what it counted.
    fn of_schema_5(path: &std::path::Path) {
        let db = Database::open(path).unwrap();
        let txn = db.begin_write().unwrap();
        for tab in COUNTS {
            txn.delete_table(tab.definition()).unwrap();
        }
        let mut meta = txn.open_table(Tab::Meta.definition()).unwrap();
        put(&mut meta, Tab::Meta, META_SCHEMA, &codec::number_row(5).unwrap()).unwrap();
        drop(meta);
        txn.commit().unwrap();
    }

    #[tokio::test]
    async fn what_schema_5_counted_by_tenant_is_counted_by_queue() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("jobs.redb"), folder.path().join("other.redb"));
        let tenants = ["a", "b"].map(|name| Tenant::new(name).unwrap());
        let slot = tenants[1].slot();
        let all = QueueQuery::new();
        let (whole, rows) = {
            let store = RedbStore::open(&path).unwrap();
            for (tenant, queue) in [(0, "x"), (0, "y"), (0, "y"), (1, "x"), (1, "z")] {
                let spec = JobSpec::command(["true"]).queue(queue).build().unwrap();
                let job = NewJob::of(tenants[tenant].clone(), spec);
                let id = job.id;
                store.submit(vec![job], SubmitOptions::each()).await.unwrap();
                if queue == "z" {
                    store.request_cancel(&Scope::All, vec![id]).await.unwrap();
                }
            }
            store.seal_slot(slot, 1).await.unwrap();
            let rows = store.export_slot(slot, 1, None, 10).await.unwrap().rows;
            (store.queue_counts(&Scope::All, all.clone()).await.unwrap(), rows)
        };
        assert_eq!(whole.len(), 4);
        of_schema_5(&path);
        let store = RedbStore::open(&path).unwrap();
        assert_eq!(store.queue_counts(&Scope::All, all.clone()).await.unwrap(), whole);
        assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
        {
            let arriving = RedbStore::open(&other).unwrap();
            arriving.import_slot(slot, 1, rows).await.unwrap();
        }
        of_schema_5(&other);
        let arriving = RedbStore::open(&other).unwrap();
        assert_eq!(arriving.queue_counts(&Scope::All, all.clone()).await.unwrap(), [], "out of sight");
        arriving.open_slot(slot, 1).await.unwrap();
        assert_eq!(arriving.queue_counts(&Scope::All, all).await.unwrap(), whole[2..]);
        assert_eq!(arriving.verify_indexes().await.unwrap(), Vec::<String>::new());
    }

    /// Says how many tables there are in the file.
    fn tables(store: &RedbStore) -> usize {
        store.inner().db.begin_read().unwrap().list_tables().unwrap().count()
    }

    #[tokio::test]
    async fn a_migration_that_was_interrupted_anywhere_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.redb");
        for (schema, rows, file, at_least) in [
            (1, 6, &include_bytes!("../tests/golden/store-schema-1.redb")[..], 15),
            (2, 1, include_bytes!("../tests/golden/store-schema-2.redb"), 5),
        ] {
            let mut before = None;
            for steps in 0.. {
                std::fs::write(&path, file).unwrap();
                let db = Database::open(&path).unwrap();
                let mut next = Next::Jobs;
                // The process dies after so many steps.
                let over = (0..steps).any(|_| !next.step(&db, rows).unwrap());
                drop(db);
                let store = RedbStore::builder(&path).migrate_jobs(3).open().unwrap();
                let wrong = JobStore::verify_indexes(&store).await.unwrap();
                assert_eq!(wrong, Vec::<String>::new(), "schema {schema}, after {steps} steps");
                let counts = store.queue_counts(&Scope::All, QueueQuery::new()).await.unwrap();
                assert_eq!(*before.get_or_insert_with(|| counts.clone()), counts);
                assert_eq!(tables(&store), Tab::ALL.len());
                if over {
                    assert!(steps > at_least, "schema {schema}: {steps} steps");
                    break;
                }
            }
        }
    }
}
