//! What is too large, damaged, gone or set back: it is said of the one that it is about, and the others go on.

use std::path::Path;

use hodei_core::job::{Finish, NewJob, Output, Parent, Requires, SpecLimits, State};
use hodei_core::store::{
    Applied, Consistency, Exchange, JobStore, Move, Relocate, Retention, Scope, Shard, SubmitOptions,
    Transition,
};
use hodei_core::{ErrorKind, JobId};
use redb::{Database, TableDefinition};

use crate::env::{Env, claim, done, job, job_of, owner, report, spec, submit, tenant, term};

type Rows<'n> = TableDefinition<'n, &'static [u8], &'static [u8]>;

/// Changes a row of a file that nobody has open; removes it where nothing is put in its place.
pub(crate) fn damage(file: &Path, table: &str, id: JobId, put: Option<&[u8]>) {
    let database = Database::open(file).expect("the file is sound");
    let write = database.begin_write().expect("the file is sound");
    {
        let table: Rows<'_> = TableDefinition::new(table);
        let mut rows = write.open_table(table).expect("the file is sound");
        match put {
            Some(row) => drop(rows.insert(&id.as_bytes()[..], row).expect("the file is sound")),
            None => drop(rows.remove(&id.as_bytes()[..]).expect("the file is sound")),
        }
    }
    write.commit().expect("the file is sound");
}

/// A job that its limits let through and no row takes.
fn large() -> NewJob {
    let value = "x".repeat(120 << 10);
    let large = (0..150).fold(spec(), |spec, n| spec.env(format!("NAME_{n}"), value.clone()));
    let mut limits = SpecLimits::default();
    limits.env_bytes = usize::MAX;
    NewJob::new(large.build_within(&limits).expect("within its limits"))
}

#[tokio::test]
async fn a_spawned_job_that_no_row_takes_is_left_out_and_the_end_stands() {
    let env = Env::new();
    let store = env.open();
    submit(&store, vec![job(), job()]).await;
    let node = owner(&store, "node").await;
    let held = claim(&store, &node, 2).await;
    let small = job();
    let finish = Finish { spawn: vec![large(), small.clone()], ..Finish::succeeded(Output::none()) };
    let spawns = (held[0].job.id, held[0].job.epoch, Move::Finished(Box::new(finish)));
    let plain = (held[1].job.id, held[1].job.epoch, done());
    let transitions = [spawns, plain].map(|(job, epoch, step)| Transition { job, epoch, step }).to_vec();
    let exchange = Exchange { owner: node, transitions, picks: Vec::new() };
    let applied = store.exchange(exchange).await.expect("the batch is carried out").applied;
    assert_eq!(applied, [Applied::Done, Applied::Done]);
    let counts = store.counts(&Scope::All).await.unwrap();
    assert_eq!((counts.of(State::Succeeded), counts.of(State::Pending), counts.total()), (2, 1, 3));
    let error = store.submit(vec![large()], SubmitOptions::each()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[tokio::test]
async fn a_job_whose_input_is_damaged_holds_up_no_claim_of_its_lane() {
    let env = Env::new();
    let (parent, other) = (job(), job());
    let child = job().after([Parent { id: parent.id, requires: Requires::Ended }]);
    {
        let store = env.open();
        submit(&store, vec![parent.clone()]).await;
        let node = owner(&store, "node").await;
        let held = claim(&store, &node, 1).await;
        let finish = Finish::succeeded(Output::Inline(b"7"[..].to_vec().into()));
        let step = Move::Finished(Box::new(finish));
        assert_eq!(report(&store, &node, (parent.id, held[0].job.epoch), step).await, Applied::Done);
        submit(&store, vec![child.clone(), other.clone()]).await;
    }
    damage(&env.path(), "ends", parent.id, Some(b"something else"));
    let store = env.open();
    let node = owner(&store, "node").await;
    let claimed = claim(&store, &node, 9).await;
    assert_eq!(claimed.iter().map(|of| of.job.id).collect::<Vec<_>>(), [other.id]);
    let waits = store.get_many(&Scope::All, vec![child.id], Consistency::Latest).await.unwrap();
    assert_eq!(waits[0].as_ref().map(|job| job.state), Some(State::Pending), "nothing was done with it");
    let read = store.get_many(&Scope::All, vec![parent.id], Consistency::Latest).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt, "whoever asks is told");
    assert_eq!(report(&store, &node, (other.id, claimed[0].job.epoch), done()).await, Applied::Done);
}

#[tokio::test]
async fn a_job_that_is_damaged_holds_up_no_report_of_others() {
    let env = Env::new();
    let (ended, held, node) = {
        let store = env.open();
        // Each in a row of its own of those that name what is open: what has ended is not read when the file opens.
        submit(&store, vec![job()]).await;
        submit(&store, vec![job()]).await;
        let node = owner(&store, "node").await;
        let held = claim(&store, &node, 2).await;
        let of = |n: usize| (held[n].job.id, held[n].job.epoch);
        assert_eq!(report(&store, &node, of(0), done()).await, Applied::Done);
        (of(0), of(1), node)
    };
    damage(&env.path(), "heads", ended.0, Some(b"something else"));
    let store = env.open();
    let transitions = [ended, held].map(|(job, epoch)| Transition { job, epoch, step: done() }).to_vec();
    let exchange = Exchange { owner: node, transitions, picks: Vec::new() };
    let applied = store.exchange(exchange).await.expect("the batch is carried out").applied;
    assert_eq!(applied, [Applied::Unavailable, Applied::Done]);
}

#[tokio::test]
async fn a_job_that_went_and_came_again_under_its_id_is_claimed_as_it_is_now() {
    let env = Env::new();
    let store = env.builder().recent_jobs(4).open().unwrap();
    let first = job();
    let id = submit(&store, vec![first.clone()]).await[0];
    store.request_cancel(&Scope::All, vec![id]).await.unwrap();
    env.clock.advance(2 * Retention::KEYS_MIN);
    let node = owner(&store, "node").await;
    let duty = term(&store, "maintain", &node).await;
    let keep = Retention { jobs: Retention::KEYS_MIN, changes: u64::MAX, ..Retention::default() };
    assert_eq!(store.prune(&duty, keep, 10).await.unwrap().jobs, 1);
    let second = NewJob { id, ..job_of(&first.tenant, spec().name("another")) };
    // So many at once that none of them is remembered.
    let others = (0..9).map(|_| job());
    submit(&store, [second.clone()].into_iter().chain(others).collect()).await;
    let claimed = claim(&store, &node, 10).await;
    let of = claimed.iter().find(|of| of.job.id == id).expect("it is claimed");
    assert_eq!(of.job.spec, second.spec);
    for of in claimed.iter().map(|of| (of.job.id, of.job.epoch)) {
        assert_eq!(report(&store, &node, of, done()).await, Applied::Done);
    }
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    drop(store);
    env.open();
}

#[tokio::test]
async fn a_cursor_of_a_log_that_was_set_back_has_expired() {
    let env = Env::new();
    let store = env.open();
    submit(&store, vec![job(), job()]).await;
    let copy = env.dir.path().join("copy.redb");
    store.backup(&copy).await.unwrap();
    let at_copy = store.changes_end().await.unwrap();
    submit(&store, vec![job()]).await;
    let later = store.changes_end().await.unwrap();
    assert!(store.changes(&Scope::All, Some(later.clone()), 9).await.unwrap().changes.is_empty());
    let copy = hodei_store_redb::RedbStore::open(&copy).unwrap();
    assert!(copy.changes(&Scope::All, Some(at_copy), 9).await.unwrap().changes.is_empty());
    let error = copy.changes(&Scope::All, Some(later), 9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CursorExpired);
}

#[tokio::test]
async fn a_slot_does_not_leave_without_all_of_its_jobs() {
    let env = Env::new();
    let acme = tenant("acme");
    let id = {
        let store = env.open();
        let ids = submit(&store, vec![job_of(&acme, spec()), job_of(&acme, spec())]).await;
        store.request_cancel(&Scope::All, vec![ids[0]]).await.unwrap();
        ids[0]
    };
    damage(&env.path(), "born", id, None);
    let store = env.open();
    store.seal_slot(acme.slot(), 1).await.unwrap();
    let error = store.export_slot(acme.slot(), 1, None, 9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_shard_is_not_written_as_lines() {
    let env = Env::new();
    let store = env.open();
    store.put_note(&hodei_core::Name::literal("map"), 0, b"x"[..].to_vec().into()).await.unwrap();
    assert_eq!(store.export(Vec::new()).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_job_that_waits_again_and_lost_its_row_is_missed_when_the_file_opens() {
    let env = Env::new();
    let (again, other) = (job(), job());
    {
        let store = env.open();
        submit(&store, vec![again.clone()]).await;
        submit(&store, vec![other.clone()]).await;
        let node = owner(&store, "node").await;
        for of in claim(&store, &node, 2).await {
            let step = if of.job.id == again.id { Move::Returned } else { done() };
            assert_eq!(report(&store, &node, (of.job.id, of.job.epoch), step).await, Applied::Done);
        }
    }
    let whole = std::fs::read(env.path()).unwrap();
    drop(env.open());
    damage(&env.path(), "heads", again.id, None);
    let error = env.builder().open().unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Corrupt,
        "else it would be claimed under an epoch that was given out"
    );
    // A file of before this was counted is taken as it is, and is counted from then on.
    std::fs::write(env.path(), whole).unwrap();
    forget_meta(&env.path(), "moved");
    drop(env.open());
    damage(&env.path(), "heads", again.id, None);
    assert_eq!(env.builder().open().unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Removes a number that the file keeps of itself.
fn forget_meta(file: &Path, name: &str) {
    let database = Database::open(file).expect("the file is sound");
    let write = database.begin_write().expect("the file is sound");
    {
        let meta: Rows<'_> = TableDefinition::new("meta");
        let mut meta = write.open_table(meta).expect("the file is sound");
        meta.remove(name.as_bytes()).expect("the file is sound").expect("it is there");
    }
    write.commit().expect("the file is sound");
}

#[tokio::test]
async fn a_blocked_job_that_lost_its_row_is_missed_when_the_file_opens() {
    let env = Env::new();
    let parents = [job(), job()];
    let needs = |parent: &NewJob| Parent { id: parent.id, requires: Requires::Ended };
    let child = job().after(parents.iter().map(needs));
    {
        let store = env.open();
        submit(&store, parents.to_vec()).await;
        submit(&store, vec![child.clone()]).await;
        store.request_cancel(&Scope::All, vec![parents[0].id]).await.unwrap();
    }
    damage(&env.path(), "heads", child.id, None);
    assert_eq!(env.builder().open().unwrap_err().kind(), ErrorKind::Corrupt, "it waits for one, not for two");
}

#[tokio::test]
async fn dead_owners_that_hold_something_keep_no_others() {
    let env = Env::new();
    let store = env.open();
    for name in ["a", "b", "c"] {
        submit(&store, vec![job()]).await;
        let node = owner(&store, name).await;
        assert_eq!(claim(&store, &node, 1).await.len(), 1);
    }
    let idle = owner(&store, "d").await;
    env.clock.advance(2 * crate::env::TTL);
    let node = owner(&store, "node").await;
    let duty = term(&store, "maintain", &node).await;
    let written = store.stats().rows_written;
    store.prune(&duty, Retention::default(), 2).await.unwrap();
    assert_eq!(store.stats().rows_written - written, 1, "the row of the one that holds nothing");
    assert_eq!(store.owner_life(&idle).await.unwrap(), None);
}
