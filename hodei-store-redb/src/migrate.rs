//! From an older schema to ours, so many jobs per transaction.
//!
//! Schema 1 had a row of each job in ten indexes. Schema 2 keeps those of open jobs in memory, and writes of a job what it
//! was born with and what moves. Schema 3 has tables for slots that move and for notes beside those of schema 2, schema 4
//! one for sequences and one for checkpoints, schema 5 counts the jobs that wait again, and schema 6 counts by queue what
//! those before counted by tenant. The first transaction raises the number of the schema, so that a program that knows only
//! schema 1 refuses the file from then on; each notes the last job that it has rewritten, so that a migration that is
//! interrupted goes on; the last one counts the jobs of each queue and removes the tables that nobody needs any more.

use std::collections::BTreeSet;

use hodei_core::store::QueueTally;
use hodei_core::{JobId, Result};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

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

/// Migrates a file, or goes on with it.
pub(crate) fn migrate(db: &Database, jobs: usize) -> Result<()> {
    while step(db, jobs)? {}
    Ok(())
}

/// Makes one transaction, and says whether others follow.
fn step(db: &Database, jobs: usize) -> Result<bool> {
    let some = some(db, jobs)?;
    let txn = db.begin_write().map_err(failed(OP))?;
    if some.is_empty() {
        finish(&txn)?;
    } else {
        rewrite(&txn, &some)?;
    }
    txn.commit().map_err(failed(OP))?;
    Ok(!some.is_empty())
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
    let mut meta = open(Tab::Meta)?;
    put(&mut meta, Tab::Meta, META_SCHEMA, &codec::number_row(SCHEMA)?)?;
    put(&mut meta, Tab::Meta, META_MIGRATED, &codec::id_row(*last)?)
}

fn put(table: &mut Table<'_, &[u8], &[u8]>, tab: Tab, key: &[u8], row: &[u8]) -> Result<()> {
    let mut sealed = Vec::new();
    codec::seal(tab, key, row, &mut sealed);
    table.insert(key, sealed.as_slice()).map_err(failed(OP))?;
    Ok(())
}

/// Counts the jobs of each queue anew, those that are out of sight apart.
fn count(txn: &WriteTransaction) -> Result<()> {
    let open = |tab: Tab| txn.open_table(tab.definition()).map_err(failed(OP));
    let (mut seen, mut apart) = (QueueTally::default(), QueueTally::default());
    {
        let (born, heads, mut slots) = (open(Tab::Born)?, open(Tab::Heads)?, BTreeSet::new());
        for row in open(Tab::Slots)?.iter().map_err(failed(OP))? {
            let (key, row) = row.map_err(failed(OP))?;
            let moving = codec::slot(codec::unseal(Tab::Slots, key.value(), row.value())?)?;
            slots.extend(key::slot_of(key.value()).filter(|_| moving.phase.hides()));
        }
        let mut names = codec::Names::default();
        for row in born.iter().map_err(failed(OP))? {
            let (key, row) = row.map_err(failed(OP))?;
            let (key, id) =
                (key.value(), key::last_id(key.value()).ok_or_else(|| corrupt(OP, "a short key"))?);
            let job = match heads.get(key).map_err(failed(OP))? {
                Some(head) => codec::shown(id, codec::unseal(Tab::Heads, key, head.value())?, &mut names),
                None => codec::newborn_shown(id, codec::unseal(Tab::Born, key, row.value())?, &mut names),
            };
            let job = job?.summary;
            let tally = if slots.contains(&id.slot()) { &mut apart } else { &mut seen };
            tally.moved(&job.tenant, &job.queue, None, Some(job.state));
        }
    }
    for tab in [Tab::Counts, Tab::Apart] {
        txn.delete_table(tab.definition()).map_err(failed(OP))?;
    }
    let (mut counts, mut of_slots) = (open(Tab::Counts)?, open(Tab::Apart)?);
    for (tenant, queue, of) in seen.iter() {
        let key = key::tenant_text(tenant, queue.as_str());
        put(&mut counts, Tab::Counts, &key, &codec::counts_row(tenant, queue, of)?)?;
    }
    for (tenant, queue, of) in apart.iter() {
        let key = key::apart(tenant.slot(), tenant, queue);
        put(&mut of_slots, Tab::Apart, &key, &codec::counts_row(tenant, queue, of)?)?;
    }
    Ok(())
}

/// Removes the tables that nobody needs any more, makes those that are new, and counts what is there.
fn finish(txn: &WriteTransaction) -> Result<()> {
    for table in GONE {
        let gone: Definition = TableDefinition::new(table);
        txn.delete_table(gone).map_err(failed(OP))?;
    }
    for tab in Tab::ALL {
        txn.open_table(tab.definition()).map_err(failed(OP))?;
    }
    count(txn)?;
    let mut meta = txn.open_table(Tab::Meta.definition()).map_err(failed(OP))?;
    put(&mut meta, Tab::Meta, META_SCHEMA, &codec::number_row(SCHEMA)?)?;
    meta.remove(META_MIGRATED).map_err(failed(OP))?;
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
        for tab in [Tab::Counts, Tab::Apart] {
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

    #[tokio::test]
    async fn a_migration_that_was_interrupted_anywhere_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.redb");
        for steps in 0..10 {
            std::fs::write(&path, include_bytes!("../tests/golden/store-schema-1.redb")).unwrap();
            let db = Database::open(&path).unwrap();
            for _ in 0..steps {
                step(&db, 2).unwrap();
            }
            drop(db);
            let store = RedbStore::open(&path).unwrap();
            let wrong = JobStore::verify_indexes(&store).await.unwrap();
            assert_eq!(wrong, Vec::<String>::new(), "after {steps} steps");
        }
    }
}
