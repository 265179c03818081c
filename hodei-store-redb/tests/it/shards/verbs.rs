//! The verbs of a move, on one file that is closed and opened again between them.

use hodei_core::job::State;
use hodei_core::store::*;
use hodei_core::{ErrorKind, JobId, Name, Result, Slot};
use hodei_store_redb::RedbStore;

use super::world::{seen, tenant_in};
use crate::env::{Env, claim, done, job_of, owner, report, spec, submit};

async fn well(store: &RedbStore) {
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

fn conflict(result: Result<()>) {
    assert_eq!(result.expect_err("it is late, or out of order").kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_file_refuses_the_verbs_of_a_late_mover() {
    let (env, tenant) = (Env::new(), tenant_in(0, 1, 0));
    let (slot, own) = (tenant.slot(), Scope::Tenant(tenant.clone()));
    let mut store = env.open();
    submit(&store, vec![job_of(&tenant, spec())]).await;
    conflict(store.close_slot(slot, 1, 9).await.map(drop));
    conflict(store.export_slot(slot, 1, None, 9).await.map(drop));
    conflict(store.import_slot(slot, 1, Vec::new()).await);
    store.seal_slot(slot, 5).await.expect("seal");
    let commits = store.stats().commits;
    store.seal_slot(slot, 5).await.expect("again");
    assert_eq!(store.stats().commits, commits, "what is so already is not written");
    let again = |store: &mut RedbStore| {
        // The old one closes first.
        let old = std::mem::replace(store, Env::new().open());
        drop(old);
        *store = env.open();
    };
    again(&mut store);
    conflict(store.seal_slot(slot, 6).await.map(drop));
    conflict(store.export_slot(slot, 4, None, 9).await.map(drop));
    assert_eq!(store.export_slot(slot, 5, None, 0).await.expect_err("no limit").kind(), ErrorKind::Invalid);
    let foreign = Some(Cursor::from_bytes(b"x".to_vec()));
    let error = store.export_slot(slot, 5, foreign, 9).await.expect_err("of another list");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let rows = store.export_slot(slot, 5, None, 9).await.expect("export").rows;
    conflict(store.open_slot(slot, 4).await);
    assert!(!store.close_slot(slot, 5, 9).await.expect("close"));
    again(&mut store);
    conflict(store.open_slot(slot, 5).await);
    conflict(store.import_slot(slot, 4, rows.clone()).await);
    store.import_slot(slot, 7, rows.clone()).await.expect("it comes back");
    again(&mut store);
    let other = Slot::new(slot.number() ^ 1).expect("a slot");
    let error = store.import_slot(other, 7, rows.clone()).await.expect_err("rows of another slot");
    assert_eq!(error.faults()[0].code, "wrong_slot");
    assert_eq!(store.counts(&Scope::All).await.expect("counts").total(), 0, "out of sight");
    assert!(is_slot_closed(&store.counts(&own).await.expect_err("refused")));
    well(&store).await;
    store.open_slot(slot, 7).await.expect("open");
    store.open_slot(slot, 7).await.expect("again");
    conflict(store.import_slot(slot, 7, rows).await);
    again(&mut store);
    assert_eq!(store.counts(&own).await.expect("counts").total(), 1);
    well(&store).await;
}

/// A slot that leaves is cleared a little at a time, whatever comes between.
#[tokio::test]
async fn a_slot_is_cleared_in_steps_and_nobody_else_is_touched() {
    let env = Env::new();
    let (leaves, stays) = (tenant_in(0, 2, 0), tenant_in(1, 2, 0));
    let mut store = env.open();
    // Side by side, so that they share the rows that name what is open.
    let both = || [&leaves, &stays].into_iter().cycle();
    submit(&store, both().take(300).map(|tenant| job_of(tenant, spec())).collect()).await;
    let node = owner(&store, "node").await;
    for of in claim(&store, &node, 60).await.into_iter().take(80) {
        assert_eq!(report(&store, &node, (of.job.id, of.job.epoch), done()).await, Applied::Done);
    }
    let kept = Scope::Tenant(stays.clone());
    let before = store.counts(&kept).await.expect("counts");
    store.seal_slot(leaves.slot(), 1).await.expect("seal");
    assert_eq!(store.counts(&Scope::All).await.expect("counts").total(), 300, "it is still read");
    let mut steps = 0;
    while store.close_slot(leaves.slot(), 1, 20).await.expect("close") {
        steps += 1;
        assert_eq!(store.counts(&Scope::All).await.expect("counts"), before, "nobody sees what is left");
        assert!(seen(&store).await.expect("reads go on").jobs.iter().all(|job| job.tenant == stays));
        let heads = store.lanes(&Served::default()).await.expect("lanes").heads;
        assert!(heads.iter().all(|head| head.lane.tenant == stays));
        well(&store).await;
        if steps % 3 == 0 {
            drop(store);
            store = env.open();
        }
    }
    assert!(steps >= 4, "{steps} steps");
    let node = owner(&store, "node").await;
    // What a dead process held is not to be had before it is reaped.
    let open = usize::try_from(before.of(State::Pending)).expect("few");
    let held = claim(&store, &node, 1_000).await;
    assert_eq!(held.len(), open);
    let ended = held.iter().map(|of| (of.job.id, of.job.epoch)).collect::<Vec<_>>();
    for of in ended {
        assert_eq!(report(&store, &node, of, done()).await, Applied::Done);
    }
    well(&store).await;
}

/// All that the file has of its own ends between the first rows of a slot and the others, and nothing says any more how
/// far its rows had come.
#[tokio::test]
async fn a_slot_that_comes_in_two_lives_of_a_file_is_seen() {
    let (from, to, tenant) = (Env::new(), Env::new(), tenant_in(0, 2, 0));
    let source = from.open();
    let limit = Limit::key(tenant.clone(), Name::literal("key"), 9);
    source.set_limit(limit).await.expect("set_limit");
    submit(&source, (0..3).map(|_| job_of(&tenant, spec())).collect()).await;
    source.seal_slot(tenant.slot(), 1).await.expect("seal");
    let rows = source.export_slot(tenant.slot(), 1, None, 1_000).await.expect("export").rows;
    let (jobs, settings): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| matches!(row, SlotRow::Job { .. }));
    assert_eq!((jobs.len(), settings.len()), (3, 1));
    let target = to.open();
    let node = owner(&target, "node").await;
    for _ in 0..5 {
        submit(&target, vec![job_of(&tenant_in(1, 2, 0), spec())]).await;
        for of in claim(&target, &node, 1).await {
            assert_eq!(report(&target, &node, (of.job.id, of.job.epoch), done()).await, Applied::Done);
        }
    }
    target.import_slot(tenant.slot(), 1, settings).await.expect("import");
    drop(target);
    let target = to.open();
    target.import_slot(tenant.slot(), 1, jobs).await.expect("import");
    target.open_slot(tenant.slot(), 1).await.expect("open");
    well(&target).await;
    let node = owner(&target, "node").await;
    assert_eq!(claim(&target, &node, 9).await.len(), 3);
}

/// Rows of a move that was given up are gone before those of the next one come.
#[tokio::test]
async fn what_an_abandoned_move_has_left_is_forgotten() {
    let (from, to, tenant) = (Env::new(), Env::new(), tenant_in(0, 1, 0));
    let (source, target) = (from.open(), to.open());
    let ids: Vec<JobId> = submit(&source, (0..90).map(|_| job_of(&tenant, spec())).collect()).await;
    source.seal_slot(tenant.slot(), 1).await.expect("seal");
    let all = source.export_slot(tenant.slot(), 1, None, 1_000).await.expect("export").rows;
    target.import_slot(tenant.slot(), 1, all[..70].to_vec()).await.expect("import");
    source.open_slot(tenant.slot(), 2).await.expect("given up");
    source.request_cancel(&Scope::All, ids[..50].to_vec()).await.expect("cancel");
    source.seal_slot(tenant.slot(), 3).await.expect("seal");
    let (mut after, mut moved) = (None, 0);
    loop {
        let batch = source.export_slot(tenant.slot(), 3, after, 17).await.expect("export");
        moved += batch.rows.len();
        target.import_slot(tenant.slot(), 3, batch.rows.clone()).await.expect("import");
        target.import_slot(tenant.slot(), 3, batch.rows).await.expect("once more");
        after = batch.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(moved, 90, "each row once");
    let before = seen(&source).await.expect("it is still read");
    target.open_slot(tenant.slot(), 3).await.expect("open");
    assert_eq!(seen(&target).await.expect("it has come"), before);
    well(&target).await;
    drop(target);
    let target = to.open();
    assert_eq!(seen(&target).await.expect("it stays"), before);
    well(&target).await;
}

#[tokio::test]
async fn a_file_without_room_keeps_nothing_of_a_slot_that_comes() {
    let (from, to, tenant) = (Env::new(), Env::new(), tenant_in(0, 1, 0));
    let source = from.open();
    let target = to.builder().max_jobs(5).open().expect("it opens");
    submit(&source, (0..6).map(|_| job_of(&tenant, spec())).collect()).await;
    source.seal_slot(tenant.slot(), 1).await.expect("seal");
    let rows = source.export_slot(tenant.slot(), 1, None, 9).await.expect("export").rows;
    let error = target.import_slot(tenant.slot(), 1, rows.clone()).await.expect_err("there is no room");
    assert_eq!(error.kind(), ErrorKind::Full);
    target.import_slot(tenant.slot(), 1, rows[..5].to_vec()).await.expect("for five there is");
    let error = target.import_slot(tenant.slot(), 1, rows[5..].to_vec()).await.expect_err("not for six");
    assert_eq!(error.kind(), ErrorKind::Full);
    well(&target).await;
}
