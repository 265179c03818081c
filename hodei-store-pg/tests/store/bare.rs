//! Where no history is kept nothing is left of a job that has ended.

use hodei_core::job::{Failure, FailureClass, Finish, NewJob, Output, Parent, Requires, State};
use hodei_core::store::{
    Applied, ChangeLog, Consistency, Coordination, Counts, JobStore, Limit, Move, Policies, Retention, Scope,
    SubmitOptions, Submitted, Transition,
};
use hodei_core::{JobId, Name, Tenant};
use hodei_store_pg::PgStore;
use hodei_test_servers::Database;

use crate::env::{TTL, burn, claim, database, done, exchange, job, owner, spec, sql, submit};

async fn bare(database: &Database) -> PgStore {
    PgStore::builder(database.url()).history(false).connect().await.expect("the store opens")
}

/// How many rows there are of jobs, in whatever place, and of what leads to them.
fn rows(database: &Database) -> String {
    sql(
        database,
        "SELECT (SELECT count(*) FROM hodei.job) || ' ' || (SELECT count(*) FROM hodei.done) || ' '
             || (SELECT count(*) FROM hodei.edge) || ' ' || (SELECT count(*) FROM hodei.unique_key) || ' '
             || (SELECT count(*) FROM hodei.checkpoint)",
    )
}

async fn audit(store: &PgStore) {
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

#[tokio::test]
async fn ended_jobs_leave_nothing_but_their_changes() {
    let database = database();
    let store = bare(&database).await;
    let worker = owner(&store, "worker").await;
    let limit = Limit::key(Tenant::default(), Name::literal("key"), 3);
    store.set_limit(limit).await.expect("set_limit");
    let limited = || NewJob::new(spec().limited_by("key").build().expect("a valid spec"));
    let keyed = limited().unique("k");
    let ids = submit(&store, vec![keyed.clone(), limited(), limited(), limited(), job()]).await;
    let checkpoints = store.checkpoints();
    let epoch = hodei_core::job::Epoch::from_number(1);
    hodei_core::checkpoint::CheckpointStore::open(&checkpoints, &Tenant::default(), ids[0], epoch)
        .await
        .expect("open");
    let held = claim(&store, &worker, 10).await;
    let mut ids_held: Vec<JobId> = held.iter().map(|held| held.job.id).collect();
    ids_held.sort_unstable();
    let mut expected = vec![ids[0], ids[1], ids[2], ids[4]];
    expected.sort_unstable();
    assert_eq!(ids_held, expected);
    let broken = Finish::failed(Failure::new(FailureClass::Error, "broken"));
    let ends = [Finish::succeeded(Output::none()), broken, Finish::cancelled()];
    let transitions: Vec<Transition> = ends
        .into_iter()
        .zip(&ids)
        .map(|(end, id)| Transition { job: *id, epoch, step: Move::Finished(Box::new(end)) })
        .collect();
    let applied = exchange(&store, &worker, transitions.clone(), Vec::new()).await.applied;
    assert_eq!(applied, [Applied::Done; 3]);
    assert_eq!(rows(&database), "2 0 0 0 0");
    let found = store.get_many(&Scope::All, ids.clone(), Consistency::Latest).await.expect("get_many");
    assert_eq!(found.iter().flatten().count(), 2);
    let counts = store.counts(&Scope::All).await.expect("counts");
    assert_eq!((counts.total(), counts.of(State::Pending), counts.of(State::Scheduled)), (2, 1, 1));
    assert_eq!(claim(&store, &worker, 10).await.len(), 1, "its limit has room again");
    let again = exchange(&store, &worker, transitions, Vec::new()).await.applied;
    assert_eq!(again, [Applied::NotFound; 3]);
    let told = store.changes(&Scope::All, None, 100).await.expect("changes").changes;
    let ended: Vec<State> = told.iter().map(|change| change.to).filter(|to| to.is_terminal()).collect();
    assert_eq!(ended, [State::Succeeded, State::Failed, State::Cancelled]);
    let again = store.submit(vec![keyed], SubmitOptions::each()).await.expect("submit").replies;
    assert!(matches!(again[0], Submitted::New(_)), "its key and its id are free");
    audit(&store).await;
}

#[tokio::test]
async fn a_parent_stays_until_its_last_child_has_ended() {
    let database = database();
    let store = bare(&database).await;
    let worker = owner(&store, "worker").await;
    let parent = submit(&store, vec![job()]).await[0];
    let after = |parent| job().after([Parent { id: parent, requires: Requires::Success }]);
    let (child, other) = (after(parent), after(parent));
    let last = after(child.id);
    store.submit(vec![child.clone(), last, other], SubmitOptions::each()).await.expect("submit");
    let duty = Name::literal("upkeep");
    let term = store.take_term(&duty, &worker, TTL).await.expect("take_term").expect("nobody leads");
    let held = claim(&store, &worker, 10).await;
    exchange(&store, &worker, vec![done(parent, held[0].job.epoch)], Vec::new()).await;
    assert_eq!(store.prune(&term, Retention::default(), 10).await.expect("prune").jobs, 0);
    let children = claim(&store, &worker, 10).await;
    assert!(children.len() == 2 && children.iter().all(|held| held.inputs.len() == 1));
    let ends = children.iter().map(|held| done(held.job.id, held.job.epoch)).collect();
    exchange(&store, &worker, ends, Vec::new()).await;
    assert_eq!(rows(&database), "3 2 2 0 0", "the parents and the last");
    assert_eq!(burn(&store, &worker, 10).await, 1);
    assert_eq!(rows(&database), "2 2 1 0 0");
    audit(&store).await;
    let gone = store.prune(&term, Retention::default(), 10).await.expect("prune").gone;
    assert_eq!(gone.len(), 2);
    assert_eq!(rows(&database), "0 0 0 0 0");
    assert_eq!(store.counts(&Scope::All).await.expect("counts"), Counts::default());
    audit(&store).await;
}

#[tokio::test]
async fn what_ends_by_the_rules_leaves_nothing_either() {
    let database = database();
    let store = bare(&database).await;
    let worker = owner(&store, "worker").await;
    let ids = submit(&store, vec![job(), job().unique("k"), job()]).await;
    let child = job().after([Parent { id: ids[0], requires: Requires::Success }]);
    store.submit(vec![child.clone()], SubmitOptions::each()).await.expect("submit");
    // The child is taken along.
    store.request_cancel(&Scope::All, vec![ids[0], ids[1]]).await.expect("cancel");
    let held = claim(&store, &worker, 10).await;
    assert_eq!(held.len(), 1);
    let finish = Finish { spawn: vec![job()], ..Finish::succeeded(Output::none()) };
    let step = Move::Finished(Box::new(finish));
    let end = Transition { job: ids[2], epoch: held[0].job.epoch, step };
    assert_eq!(exchange(&store, &worker, vec![end], Vec::new()).await.applied, [Applied::Done]);
    assert_eq!(rows(&database), "2 1 0 0 0", "a parent, and what was spawned");
    assert_eq!(burn(&store, &worker, 10).await, 1);
    let duty = Name::literal("upkeep");
    let term = store.take_term(&duty, &worker, TTL).await.expect("take_term").expect("nobody leads");
    assert_eq!(store.prune(&term, Retention::default(), 10).await.expect("prune").jobs, 1);
    assert_eq!(rows(&database), "0 0 0 0 0");
    assert_eq!(store.counts(&Scope::All).await.expect("counts"), Counts::default());
    audit(&store).await;
}

#[tokio::test]
async fn who_ended_before_its_turn_stays_until_that_has_come() {
    let database = database();
    let store = bare(&database).await;
    let worker = owner(&store, "worker").await;
    let next = || NewJob::new(spec().sequence("s").build().expect("a valid spec"));
    let ids = submit(&store, vec![next(), next()]).await;
    let held = claim(&store, &worker, 10).await;
    store.request_cancel(&Scope::All, vec![ids[1]]).await.expect("cancel");
    assert_eq!(rows(&database), "2 1 1 0 0", "whoever comes next is behind it");
    submit(&store, vec![next()]).await;
    assert_eq!(claim(&store, &worker, 10).await.len(), 0);
    let duty = Name::literal("upkeep");
    let term = store.take_term(&duty, &worker, TTL).await.expect("take_term").expect("nobody leads");
    assert_eq!(store.prune(&term, Retention::default(), 10).await.expect("prune").jobs, 0);
    exchange(&store, &worker, vec![done(ids[0], held[0].job.epoch)], Vec::new()).await;
    assert_eq!(burn(&store, &worker, 10).await, 1);
    assert_eq!(store.prune(&term, Retention::default(), 10).await.expect("prune").jobs, 2);
    assert_eq!(rows(&database), "0 0 0 0 0");
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.sequence"), "0");
    audit(&store).await;
}

#[tokio::test]
async fn a_child_that_comes_while_its_parent_ends_is_told() {
    let database = database();
    let store = PgStore::builder(database.url()).history(false).changes(ChangeLog::Off);
    let store = store.connect().await.expect("the store opens");
    let worker = owner(&store, "worker").await;
    for _ in 0..30 {
        let parent = submit(&store, vec![job()]).await[0];
        let held = claim(&store, &worker, 1).await;
        let child = job().after([Parent { id: parent, requires: Requires::Success }]);
        let ending = exchange(&store, &worker, vec![done(parent, held[0].job.epoch)], Vec::new());
        let submitting = store.submit(vec![child], SubmitOptions::each());
        let (ended, submitted) = tokio::join!(ending, submitting);
        assert_eq!(ended.applied, [Applied::Done]);
        let new = matches!(submitted.expect("submit").replies[0], Submitted::New(_));
        assert_eq!(burn(&store, &worker, 10).await, usize::from(new), "it ran, or its parent was unknown");
    }
    audit(&store).await;
}
