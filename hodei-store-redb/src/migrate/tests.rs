//! Files of older schemas: interrupted anywhere, and in use meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::job::{Finish, JobSpec, Lease, NewJob, Output, State};
use hodei_core::store::{
    Exchange, JobStore, Lane, Move, Pick, QueueQuery, QueueTally, Relocate, Retention, Scope, SubmitOptions,
    Transition,
};
use hodei_core::{Clock as _, ManualClock, Name, OwnerId, Tenant, Timestamp};

use redb::ReadableTableMetadata as _;

use super::*;
use crate::inner::{Committed, Inner};
use crate::older::as_schema_5;
use crate::rows::Rows as _;
use crate::sync::lock;
use crate::txn::{self, Room, Work, count_some};
use crate::verify::contradictions;
use crate::{RedbStore, RedbStoreBuilder};

/// Opens a file as a store does, but for its threads: nothing is counted unless it is asked for.
fn inner(path: &Path, clock: &Arc<ManualClock>) -> Inner {
    let clock: Arc<ManualClock> = Arc::clone(clock);
    let config: RedbStoreBuilder = RedbStore::builder(path).migrate_jobs(3).clock(clock);
    Inner::open(config).unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000)))
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
    as_schema_5(&path).unwrap();
    let store = RedbStore::builder(&path).migrate_jobs(2).open().unwrap();
    assert_eq!(store.queue_counts(&Scope::All, all.clone()).await.unwrap(), whole);
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    {
        let arriving = RedbStore::open(&other).unwrap();
        arriving.import_slot(slot, 1, rows).await.unwrap();
    }
    as_schema_5(&other).unwrap();
    let arriving = RedbStore::builder(&other).migrate_jobs(1).open().unwrap();
    assert_eq!(arriving.queue_counts(&Scope::All, all.clone()).await.unwrap(), [], "out of sight");
    arriving.open_slot(slot, 1).await.unwrap();
    assert_eq!(arriving.queue_counts(&Scope::All, all).await.unwrap(), whole[2..]);
    assert_eq!(arriving.verify_indexes().await.unwrap(), Vec::<String>::new());
}

/// Whatever waits for the counting to be over does so by itself: nobody has counted before.
#[tokio::test]
async fn whoever_moves_a_slot_finds_it_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.redb");
    let tenant = Tenant::new("b").unwrap();
    {
        let store = RedbStore::open(&path).unwrap();
        let job = || NewJob::of(tenant.clone(), JobSpec::command(["true"]).build().unwrap());
        store.submit((0..500).map(|_| job()).collect(), SubmitOptions::each()).await.unwrap();
        store.seal_slot(tenant.slot(), 1).await.unwrap();
    }
    as_schema_5(&path).unwrap();
    let store = RedbStore::builder(&path).migrate_jobs(1).open().unwrap();
    while store.close_slot(tenant.slot(), 1, 100).await.unwrap() {}
    assert_eq!(store.counts(&Scope::All).await.unwrap().total(), 0);
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
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
        (1, 6, &include_bytes!("../../tests/golden/store-schema-1.redb")[..], 15),
        (2, 1, include_bytes!("../../tests/golden/store-schema-2.redb"), 5),
    ] {
        let mut before = None;
        for steps in 0.. {
            std::fs::write(&path, file).unwrap();
            // The process dies after so many transactions.
            let over = {
                let db = Database::open(&path).unwrap();
                let mut left = steps;
                let mut more = true;
                if left > 0 {
                    begin(&db).unwrap();
                    left -= 1;
                }
                while left > 0 && more {
                    more = step(&db, rows).unwrap();
                    left -= 1;
                }
                drop(db);
                let mut over = false;
                if left > 0 {
                    let inner = inner(&path, &clock());
                    over = (0..left).any(|_| !inner.alone(|work| count_some(work, rows)).unwrap());
                }
                over
            };
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

/// Were a page that is empty taken for the end, a file with every job in its old rows would be noted as rewritten, and
/// nobody could open it any more.
#[test]
fn a_migration_ends_where_no_job_is_left_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.redb");
    std::fs::write(&path, include_bytes!("../../tests/golden/store-schema-1.redb")).unwrap();
    let db = Database::open(&path).unwrap();
    begin(&db).unwrap();
    let old = db.begin_read().unwrap().open_table(SPECS).unwrap().len().unwrap();
    let mut steps = 0;
    while step(&db, 0).unwrap() {
        steps += 1;
    }
    let born = db.begin_read().unwrap().open_table(Tab::Born.definition()).unwrap().len().unwrap();
    assert_eq!((steps, born), (old, old), "one at a time");
}

/// Returns how many rows of a file have the checksum of schema 1, which does not cover their place.
fn unbound(db: &Database) -> usize {
    let txn = db.begin_read().unwrap();
    let mut unbound = 0;
    for tab in Tab::ALL {
        for row in txn.open_table(tab.definition()).unwrap().iter().unwrap() {
            let (key, row) = row.unwrap();
            unbound += usize::from(!codec::opened(*tab, key.value(), row.value()).unwrap().1);
        }
    }
    unbound
}

#[test]
fn every_row_of_schema_1_gets_a_checksum_that_covers_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.redb");
    for rows in [1, 3, 1_000] {
        std::fs::write(&path, include_bytes!("../../tests/golden/store-schema-1.redb")).unwrap();
        let db = Database::open(&path).unwrap();
        begin(&db).unwrap();
        // One that was interrupted half-way through a table.
        bind(&db, Tab::Unique, 1).unwrap();
        assert!(unbound(&db) > 20, "{}", unbound(&db));
        migrate(&db, rows).unwrap();
        assert_eq!(unbound(&db), 0);
    }
}

/// Holds what is counted to the jobs, and what is in memory to what a process would find that opens the file now.
fn hold(inner: &Inner, clock: &ManualClock) {
    let found = Committed::read(&inner.db, &inner.stats, &inner.specs, clock.now()).unwrap();
    let (mut queues, mut uncounted) = (QueueTally::default(), std::collections::BTreeMap::new());
    inner
        .alone(|work| {
            let counting = work.look(|index| index.counting);
            for id in work.ids(Tab::Born, &[])? {
                let head = work.head(id)?.unwrap();
                if counting.is_some_and(|counting| counting.has(id)) {
                    let of: &mut hodei_core::store::Counts =
                        uncounted.entry(head.job.tenant.clone()).or_default();
                    of.moved(None, Some(head.job.state));
                } else {
                    queues.moved(&head.job.tenant, &head.queue, None, Some(head.job.state));
                }
            }
            Ok(())
        })
        .unwrap();
    for index in [&found.index, &lock(&inner.committed).index] {
        assert_eq!(index.queues, queues);
        assert_eq!(index.uncounted, uncounted);
        assert_eq!(index.counting, found.index.counting);
        assert_eq!(index.counts, found.index.counts);
    }
}

fn job(queue: &str) -> NewJob {
    NewJob::new(JobSpec::command(["true"]).queue(queue).build().unwrap())
}

fn submit(work: &mut Work<'_, '_>, queue: &str) -> Result<()> {
    txn::submit(work, &[job(queue), job(queue)], SubmitOptions::each(), Room::UNBOUNDED).map(|_| ())
}

/// Claims a job of a queue, and says that one has succeeded and one has to be tried again.
fn exchange(
    work: &mut Work<'_, '_>,
    owner: &Lease,
    queue: &str,
    transitions: Vec<Transition>,
) -> Result<Vec<Transition>> {
    let lanes: Vec<Lane> =
        work.look(|index| index.lanes.keys().filter(|lane| lane.queue.as_str() == queue).cloned().collect());
    let picks = lanes
        .into_iter()
        .map(|lane| Pick {
            lane,
            floor: hodei_core::job::Priority::MIN,
            ceiling: hodei_core::job::Priority::MAX,
            n: 2,
        })
        .collect();
    let done = txn::exchange(work, &Exchange { owner: owner.clone(), transitions, picks })?;
    let end = |claimed: &hodei_core::store::Claimed| Transition {
        job: claimed.job.id,
        epoch: claimed.job.epoch,
        step: Move::Finished(Box::new(Finish::succeeded(Output::none()))),
    };
    Ok(done.claimed.iter().map(end).collect())
}

/// Jobs come, are claimed, end, go round again and are pruned while a file is being counted, on both sides of the place that
/// the counting has come to; after each commit a process that opened the file would find what is known here.
#[test]
fn a_file_is_used_while_it_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (path, clock) = (folder.path().join("jobs.redb"), clock());
    let queues = ["x", "y", "z"];
    drop(filled(&path, &clock, &queues));
    as_schema_5(&path).unwrap();
    let keep = Retention { jobs: Retention::KEYS_MIN, failed: None, most: u64::MAX, changes: u64::MAX };
    let (mut inner_now, mut ending, mut rounds) = (inner(&path, &clock), Vec::new(), 0);
    hold(&inner_now, &clock);
    let mut owner = register(&inner_now);
    loop {
        let queue = queues[rounds % queues.len()];
        inner_now.alone(|work| submit(work, queue)).unwrap();
        hold(&inner_now, &clock);
        let before = std::mem::take(&mut ending);
        ending = inner_now.alone(|work| exchange(work, &owner, queue, before)).unwrap();
        hold(&inner_now, &clock);
        let ended = ended(&inner_now);
        inner_now
            .alone(|work| txn::redrive(work, &Scope::All, &ended[..ended.len().min(1)]).map(|_| ()))
            .unwrap();
        hold(&inner_now, &clock);
        if rounds % 5 == 2 {
            clock.advance(2 * Retention::KEYS_MIN);
            inner_now
                .alone(|work| {
                    let term =
                        txn::take_term(work, &Name::literal("maintain"), &owner, Duration::from_secs(60))?;
                    txn::prune(work, &term.unwrap(), keep, 2).map(|_| ())
                })
                .unwrap();
            hold(&inner_now, &clock);
        }
        if rounds % 7 == 3 {
            // A process died here.
            drop(inner_now);
            (inner_now, ending) = (inner(&path, &clock), Vec::new());
            owner = register(&inner_now);
            hold(&inner_now, &clock);
        }
        let more = inner_now.alone(|work| count_some(work, 2)).unwrap();
        hold(&inner_now, &clock);
        rounds += 1;
        if !more {
            break;
        }
    }
    assert!(rounds > 20, "{rounds}");
    assert!(lock(&inner_now.committed).index.counting.is_none());
    let wrong = contradictions(&inner_now).unwrap();
    assert_eq!(wrong, Vec::<String>::new());
}

fn register(inner: &Inner) -> Lease {
    let node = OwnerId::new("node").unwrap();
    inner.alone(|work| txn::register(work, &node, Duration::from_secs(30 * 86_400))).unwrap()
}

fn ended(inner: &Inner) -> Vec<JobId> {
    let ids = inner.alone(|work| {
        let mut ids = Vec::new();
        for id in work.ids(Tab::Born, &[])? {
            ids.extend(work.head(id)?.filter(|head| head.job.state == State::Cancelled).map(|_| id));
        }
        Ok(ids)
    });
    ids.unwrap()
}

/// Makes a file with jobs that wait, that run and that have ended, in several queues.
fn filled(path: &Path, clock: &Arc<ManualClock>, queues: &[&str]) -> Inner {
    let inner = inner(path, clock);
    let owner = register(&inner);
    for number in 0..24 {
        let queue = queues[number % queues.len()];
        inner.alone(|work| submit(work, queue)).unwrap();
        if number % 2 == 0 {
            let ends = inner.alone(|work| exchange(work, &owner, queue, Vec::new())).unwrap();
            inner.alone(|work| exchange(work, &owner, "none", ends)).unwrap();
        }
        if number % 5 == 0 {
            let next = job(queue);
            inner
                .alone(|work| {
                    txn::submit(work, std::slice::from_ref(&next), SubmitOptions::each(), Room::UNBOUNDED)?;
                    txn::cancel(work, &Scope::All, &[next.id]).map(|_| ())
                })
                .unwrap();
        }
        clock.advance(Duration::from_secs(1));
    }
    inner
}

/// Of a file that was damaged so that fewer jobs were counted than are there, nothing wrong is told.
#[test]
fn other_jobs_than_were_counted_are_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (path, clock) = (folder.path().join("jobs.redb"), clock());
    drop(filled(&path, &clock, &["x"]));
    as_schema_5(&path).unwrap();
    {
        let db = Database::open(&path).unwrap();
        let txn = db.begin_write().unwrap();
        let mut table = txn.open_table(Tab::Counts.definition()).unwrap();
        let (key, row) = {
            let (key, row) = table.first().unwrap().unwrap();
            (key.value().to_vec(), codec::unseal(Tab::Counts, key.value(), row.value()).unwrap().to_vec())
        };
        let (tenant, counts) = codec::uncounted(&row).unwrap();
        let fewer = State::ALL.map(|state| counts.of(state) - u64::from(state == State::Succeeded));
        let fewer = hodei_core::store::Counts::from_numbers(fewer);
        put(&mut table, Tab::Counts, &key, &codec::uncounted_row(&tenant, &fewer).unwrap()).unwrap();
        drop(table);
        txn.commit().unwrap();
    }
    let inner = inner(&path, &clock);
    let error = loop {
        match inner.alone(|work| count_some(work, 5)) {
            Ok(more) => assert!(more),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), hodei_core::ErrorKind::Corrupt);
}
