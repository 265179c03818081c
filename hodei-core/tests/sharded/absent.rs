//! A shard is absent when the others open, and joins later.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use hodei_core::job::Lease;
use hodei_core::store::*;
use hodei_core::testkit::fault::{Fault, Faults, Faulty};
use hodei_core::{Clock, Error, ErrorKind, JobId, Result, Tenant};

use crate::world::{
    LIFE, Shards, add, changes, claiming, ended, ids, job, listed, name, owner, pick, telling, tenant_in,
    versions_in_order,
};

/// Opens the shards but for one.
async fn open_without(shards: &Shards, absent: usize) -> Result<ShardedStore> {
    let place = |(n, store): (usize, &Arc<Faulty<MemoryStore>>)| match n == absent {
        true => Err(Error::new(ErrorKind::Io, "file.open").with("path", "gone")),
        false => Ok(Arc::clone(store) as Arc<dyn Shard>),
    };
    ShardedStore::open_present(shards.stores.iter().enumerate().map(place).collect()).await
}

fn shard(shards: &Shards, n: usize) -> Arc<dyn Shard> {
    Arc::<Faulty<MemoryStore>>::clone(&shards.stores[n])
}

fn fails_for<T: std::fmt::Debug>(shard: &'static str, answer: Result<T>) {
    let error = answer.expect_err("a shard is absent");
    assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Unavailable, Some(shard)), "{error}");
}

async fn total(store: &ShardedStore, scope: &Scope) -> Result<u64> {
    Ok(store.counts(scope).await?.total())
}

/// Three shards with a job in each of the first two, whose owner has claimed nothing yet.
async fn begun() -> (Shards, [Tenant; 2], Lease) {
    let shards = Shards::new(3);
    let store = shards.open().await;
    let tenants = [0, 1].map(|shard| tenant_in(shard, 3, 0));
    add(&store, tenants.iter().map(job).collect()).await;
    let owner = store.register(&owner("a"), LIFE).await.expect("register");
    (shards, tenants, owner)
}

#[tokio::test]
async fn what_needs_only_other_shards_goes_on_and_the_rest_once_it_has_joined() {
    for failing in [false, true] {
        let (shards, tenants, owner) = begun().await;
        let store = if failing {
            shards.faults[1].all(Fault::Refused);
            let all = (0..3).map(|n| Ok(shard(&shards, n))).collect();
            ShardedStore::open_present(all).await.expect("it opens")
        } else {
            open_without(&shards, 1).await.expect("it opens")
        };
        assert_eq!(store.absent(), [1]);
        let kind = if failing { ErrorKind::Unavailable } else { ErrorKind::Io };
        assert_eq!(store.failures()[1].as_ref().map(|failure| failure.0), Some(kind));
        let [well, ill] = tenants.clone().map(Scope::Tenant);
        let jobs = [&tenants[0], &tenants[1]].map(job);
        add(&store, vec![jobs[0].clone()]).await;
        fails_for("1", store.submit(vec![jobs[1].clone()], SubmitOptions::each()).await);
        assert_eq!(total(&store, &well).await.expect("counts"), 2);
        fails_for("1", total(&store, &ill).await);
        fails_for("1", total(&store, &Scope::All).await);
        fails_for("1", store.query(&Scope::All, Query::new()).await);
        fails_for("1", store.changes(&Scope::All, None, 9).await);
        fails_for("1", store.changes_end().await);
        let picks = || jobs.iter().map(|job| pick(job, 9)).collect();
        let done = store.exchange(claiming(&owner, picks())).await.expect("the healthy half");
        assert_eq!((done.claimed.len(), done.partial, done.owner_lost), (2, true, false));
        let lanes = store.lanes(&Served::default()).await.expect("lanes");
        assert_eq!(lanes.heads, []);
        shards.faults[1].heal();
        store.join(1, shard(&shards, 1)).await.expect("it fits");
        assert!(store.absent().is_empty() && store.failures().iter().all(Option::is_none));
        assert_eq!(total(&store, &Scope::All).await.expect("counts"), 3);
        add(&store, vec![jobs[1].clone()]).await;
        let done = store.exchange(claiming(&owner, picks())).await.expect("exchange");
        assert_eq!((done.claimed.len(), done.partial, done.owner_lost), (2, false, false));
        assert_eq!(store.verify_indexes().await.expect("verify"), [""; 0]);
        assert!(shards.open().await.absent().is_empty());
    }
}

#[tokio::test]
async fn the_error_tells_why_the_shard_is_absent() {
    let (shards, tenants, _) = begun().await;
    let store = open_without(&shards, 1).await.expect("it opens");
    let scope = Scope::Tenant(tenants[1].clone());
    let error = total(&store, &scope).await.expect_err("it is absent");
    assert_eq!(error.context("absent"), Some("file.open: input/output error, path=gone"));
    assert!(error.is_retryable() && !is_slot_closed(&error));
    fails_for("1", store.set_limit(Limit::tenant(tenants[1].clone(), 1)).await);
    fails_for("1", store.leases_of(&store.register(&owner("b"), LIFE).await.expect("register")).await);
}

#[tokio::test]
async fn whoever_wants_every_shard_gets_the_error_of_the_absent_one() {
    let shards = Shards::new(2);
    let error = open_without(&shards, 1).await.expect_err("nobody has seen it yet");
    assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Io, Some("1")));
    assert_eq!(shards.stores[0].note(&name("hodei.shard.map")).await.expect("note"), None, "nothing begun");
    let store = shards.open().await;
    assert_eq!(store.shard_of(&tenant_in(1, 2, 0)), 1);
    let error = open_without(&shards, 0).await.expect_err("the map is there");
    assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Io, Some("0")));
    shards.faults[1].all(Fault::Refused);
    fails_for("1", shards.try_open().await);
}

#[tokio::test]
async fn a_store_that_is_not_the_shard_of_its_place_is_refused_and_the_place_stays_free() {
    let (shards, tenants, _) = begun().await;
    let store = open_without(&shards, 1).await.expect("it opens");
    let other = Shards::new(2);
    other.open().await;
    let strange: Arc<dyn Shard> = Arc::new(MemoryStore::new());
    strange.submit(vec![job(&tenants[1])], SubmitOptions::each()).await.expect("it is in use");
    let less: Arc<dyn Shard> = Arc::new(Faulty::new(MemoryStore::new(), Faults::new()).shared());
    for (wrong, key) in [
        (shard(&other, 1), "mark"),
        (shard(&shards, 2), "mark"),
        (shard(&shards, 0), "mark"),
        (strange, "holds"),
        (less, "offers"),
    ] {
        let error = store.join(1, wrong).await.expect_err("it does not fit");
        assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Config, Some("1")), "{error}");
        assert!(error.context(key).is_some(), "{error}");
        assert_eq!(store.absent(), [1]);
        fails_for("1", total(&store, &Scope::Tenant(tenants[1].clone())).await);
    }
    shards.faults[1].all(Fault::Refused);
    fails_for("1", store.join(1, shard(&shards, 1)).await);
    shards.faults[1].heal();
    shards.faults[0].all(Fault::Refused);
    fails_for("0", store.join(1, shard(&shards, 1)).await);
    assert_eq!(store.absent(), [1]);
    shards.faults[0].heal();
    store.join(1, shard(&shards, 1)).await.expect("it fits");
    for (place, kind) in [
        (1, ErrorKind::Conflict),
        (0, ErrorKind::Conflict),
        (2, ErrorKind::Conflict),
        (3, ErrorKind::Invalid),
    ] {
        let error = store.join(place, shard(&shards, 1)).await.expect_err("there is no free place");
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[tokio::test]
async fn at_the_opening_a_store_that_does_not_fit_is_refused_whoever_is_absent() {
    let (shards, _, _) = begun().await;
    let other = Shards::new(2);
    other.open().await;
    let gone = || Err(Error::new(ErrorKind::Locked, "file.open"));
    let strange: Arc<dyn Shard> = Arc::new(MemoryStore::new());
    strange.submit(vec![job(&Tenant::default())], SubmitOptions::each()).await.expect("it is in use");
    for wrong in [shard(&other, 1), shard(&shards, 1), strange] {
        let places = vec![Ok(shard(&shards, 0)), gone(), Ok(wrong)];
        let error = ShardedStore::open_present(places).await.expect_err("it does not fit");
        assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Config, Some("2")), "{error}");
    }
    let fewer = vec![Ok(shard(&shards, 0)), gone()];
    let error = ShardedStore::open_present(fewer).await.expect_err("the third is not even named");
    assert_eq!(error.context("shards_of_map"), Some("3"));
}

#[tokio::test]
async fn a_new_shard_is_noted_when_it_joins() {
    let mut shards = Shards::new(2);
    shards.open().await;
    shards.stores.push(Arc::new(Faulty::new(MemoryStore::new(), Faults::new())));
    let store = open_without(&shards, 2).await.expect("it opens");
    let tenant = tenant_in(0, 2, 0);
    let [id] = add(&store, vec![job(&tenant)]).await[..] else { panic!("one job") };
    fails_for("2", store.move_slot(tenant.slot(), 2).await);
    let narrow = || ShardedStore::open(vec![shard(&shards, 0), shard(&shards, 1)]);
    let without = narrow().await.expect("nobody has seen the third");
    store.join(2, shard(&shards, 2)).await.expect("it fits");
    store.move_slot(tenant.slot(), 2).await.expect("it moves");
    assert_eq!(total(&store, &Scope::All).await.expect("counts"), 1);
    assert_eq!(narrow().await.expect_err("it is known now").kind(), ErrorKind::Config);
    // A process that has no place for the third shard knows of its own map at most.
    let error = without.request_cancel(&Scope::All, vec![id]).await.expect_err("the slot is gone");
    assert_eq!((error.kind(), error.context("shards_of_map")), (ErrorKind::Config, Some("3")));
}

#[tokio::test]
async fn slots_move_neither_to_an_absent_shard_nor_from_it() {
    let (shards, tenants, _) = begun().await;
    let store = open_without(&shards, 1).await.expect("it opens");
    fails_for("1", store.move_slot(tenants[0].slot(), 1).await);
    fails_for("1", store.move_slot(tenants[1].slot(), 0).await);
    assert_eq!(store.resume_moves().await.expect("nothing has begun"), 0);
    add(&store, vec![job(&tenants[0])]).await;
    store.move_slot(tenants[0].slot(), 2).await.expect("the others can");
    store.join(1, shard(&shards, 1)).await.expect("it fits");
    store.move_slot(tenants[1].slot(), 0).await.expect("it moves");
    assert_eq!(total(&store, &Scope::All).await.expect("counts"), 3);
}

/// Leaves two moves half done from shard 0: one to shard 1, one to shard 2.
async fn moving(shards: &Shards) -> [Tenant; 2] {
    let store = shards.open().await;
    let tenants = [0, 1].map(|n| tenant_in(0, 3, n));
    add(&store, tenants.iter().map(job).collect()).await;
    for (tenant, to) in tenants.iter().zip([1, 2]) {
        shards.faults[to].all(Fault::Refused);
        fails_for(["", "1", "2"][to], store.move_slot(tenant.slot(), to).await);
        shards.faults[to].heal();
    }
    tenants
}

#[tokio::test]
async fn a_move_to_an_absent_shard_waits_alone_and_can_be_given_up() {
    let shards = Shards::new(3);
    let tenants = moving(&shards).await;
    let store = open_without(&shards, 1).await.expect("it opens");
    fails_for("1", store.resume_moves().await);
    assert_eq!(store.shard_of(&tenants[1]), 2, "the other move is over");
    let sealed = store.submit(vec![job(&tenants[0])], SubmitOptions::each()).await;
    assert!(is_slot_closed(&sealed.expect_err("its slot is leaving")));
    store.give_up_move(tenants[0].slot()).await.expect("the target is not needed");
    add(&store, vec![job(&tenants[0])]).await;
    store.join(1, shard(&shards, 1)).await.expect("it fits");
    assert_eq!(store.resume_moves().await.expect("nothing is left"), 0);
    store.move_slot(tenants[0].slot(), 1).await.expect("it moves anew");
    assert_eq!(total(&store, &Scope::Tenant(tenants[0].clone())).await.expect("counts"), 2);
    assert_eq!(store.verify_indexes().await.expect("verify"), [""; 0]);
}

#[tokio::test]
async fn a_move_to_an_absent_shard_goes_on_once_it_has_joined() {
    let shards = Shards::new(3);
    let tenants = moving(&shards).await;
    let store = open_without(&shards, 1).await.expect("it opens");
    store.join(1, shard(&shards, 1)).await.expect("it fits");
    assert_eq!(store.resume_moves().await.expect("both"), 2);
    assert_eq!([0, 1].map(|n| store.shard_of(&tenants[n])), [1, 2]);
    assert_eq!(total(&store, &Scope::All).await.expect("counts"), 2);
}

/// A slot has left the absent shard by another process, and that shard is lost and was replaced by an empty store: by the
/// map of before, the slot would be empty.
#[tokio::test]
async fn the_map_is_read_again_before_a_shard_answers() {
    let (shards, tenants, _) = begun().await;
    let late = open_without(&shards, 1).await.expect("it opens");
    shards.open().await.move_slot(tenants[1].slot(), 0).await.expect("it moves");
    let scope = Scope::Tenant(tenants[1].clone());
    late.give_up(1).await.expect("it is lost");
    late.join(1, Arc::new(MemoryStore::new())).await.expect("an empty store takes its place");
    assert_eq!(total(&late, &scope).await.expect("counts"), 1);
}

#[tokio::test]
async fn a_late_shard_learns_of_the_term_and_fences_earlier_ones() {
    let (shards, tenants, lost) = begun().await;
    let full = shards.open().await;
    let picks = tenants.iter().map(|tenant| pick(&job(tenant), 1)).collect();
    assert_eq!(full.exchange(claiming(&lost, picks)).await.expect("exchange").claimed.len(), 2);
    let leader = full.register(&owner("leader"), 9 * LIFE).await.expect("register");
    let old = full.take_term(&name("d"), &leader, LIFE).await.expect("take").expect("nobody leads");
    let store = open_without(&shards, 1).await.expect("it opens");
    shards.clock.advance(2 * LIFE);
    let term = store.take_term(&name("d"), &leader, 9 * LIFE).await.expect("take").expect("it is over");
    let reaped = store.reap(&term, 3, 9).await.expect("the healthy half");
    assert_eq!((reaped.changes.len(), reaped.more, reaped.partial), (1, true, true));
    fails_for("1", store.prune(&term, Retention::default(), 9).await);
    store.join(1, shard(&shards, 1)).await.expect("it fits");
    let reaped = store.reap(&term, 3, 9).await.expect("reap");
    assert_eq!((reaped.changes.len(), reaped.more, reaped.partial), (1, false, false));
    assert!(store.reap(&old, 3, 9).await.expect("reap").term_lost);
    assert!(!shards.stores[1].adopt_term(&old, LIFE).await.expect("adopt"), "a later one is known");
}

#[tokio::test]
async fn cursors_hold_the_place_of_an_absent_shard() {
    let (shards, tenants, _) = begun().await;
    let full = shards.open().await;
    let (first, end) = changes(&full, &Scope::All, None, 9).await.expect("changes");
    let page = full.query(&Scope::All, Query::new().oldest_first().limit(1)).await.expect("query");
    shards.tick();
    let store = open_without(&shards, 1).await.expect("it opens");
    let here = add(&store, vec![job(&tenants[0])]).await;
    let there = add(&full, vec![job(&tenants[1])]).await;
    fails_for("1", store.changes(&Scope::All, Some(end.clone()), 9).await);
    let well = Scope::Tenant(tenants[0].clone());
    let of_well: Vec<JobId> = changes(&store, &well, Some(end.clone()), 9)
        .await
        .expect("changes")
        .0
        .iter()
        .map(|c| c.job)
        .collect();
    assert_eq!(of_well, here);
    store.join(1, shard(&shards, 1)).await.expect("it fits");
    let (rest, _) = changes(&store, &Scope::All, Some(end), 9).await.expect("changes");
    let mut told: Vec<JobId> = rest.iter().map(|change| change.job).collect();
    told.sort_unstable();
    let mut added = [here, there].concat();
    added.sort_unstable();
    assert_eq!(told, added);
    versions_in_order(&[first, rest].concat());
    let query = Query::new().oldest_first().after(page.next.expect("there is more"));
    assert_eq!(listed(&store, &Scope::All, query).await.expect("query").len(), 3);
}

#[tokio::test]
async fn who_listens_hears_a_late_shard_from_its_first_commit() {
    #[derive(Debug, Default)]
    struct Ear(Mutex<Vec<JobId>>);
    impl ChangeSink for Ear {
        fn committed(&self, changes: &[Change]) {
            self.0.lock().expect("no panic").extend(changes.iter().map(|change| change.job));
        }
    }
    let (shards, tenants, owner) = begun().await;
    let store = open_without(&shards, 1).await.expect("it opens");
    let ear = Arc::new(Ear::default());
    let _feed = store.feed(Arc::<Ear>::clone(&ear));
    let mut wakeups = store.wakeups();
    let mut rings = || wakeups.as_mut().poll_next(&mut Context::from_waker(Waker::noop()));
    assert_eq!(rings(), Poll::Pending);
    store.join(1, shard(&shards, 1)).await.expect("it fits");
    assert_eq!((rings(), rings()), (Poll::Ready(Some(Wakeup)), Poll::Pending), "its jobs are ready");
    let added = add(&store, vec![job(&tenants[1])]).await;
    assert_eq!((rings(), rings()), (Poll::Ready(Some(Wakeup)), Poll::Pending));
    assert_eq!(*ear.0.lock().expect("no panic"), added);
    let picks = vec![pick(&job(&tenants[1]), 9)];
    let held = store.exchange(claiming(&owner, picks)).await.expect("exchange").claimed;
    assert_eq!(ids(&held).len(), 2);
    let told = store.exchange(telling(&owner, held.iter().map(ended).collect())).await.expect("exchange");
    assert_eq!(told.applied, [Applied::Done; 2]);
    assert_eq!(ear.0.lock().expect("no panic").len(), 5);
}

#[tokio::test]
async fn whoever_waits_for_an_absent_shard_does_not_keep_the_others() {
    let (shards, ..) = begun().await;
    let store = open_without(&shards, 1).await.expect("it opens");
    let held = Arc::strong_count(&shards.stores[0]);
    let wakeups = store.wakeups();
    drop(store);
    assert_eq!(Arc::strong_count(&shards.stores[0]), held - 1);
    drop(wakeups);
    assert_eq!(shards.clock.now(), shards.stores[0].now().await.expect("it lives"));
}

/// What was recorded of a tenant stays where it was recorded, and its slot has left.
#[tokio::test]
async fn the_log_of_a_tenant_needs_every_shard_that_its_slot_has_left_and_nothing_else_does() {
    let (shards, tenants, owner) = begun().await;
    let store = shards.open().await;
    let [other, moved] = &tenants;
    let own = Scope::Tenant(moved.clone());
    shards.tick();
    store.move_slot(moved.slot(), 2).await.expect("it moves");
    shards.tick();
    let second = add(&store, vec![job(moved)]).await[0];
    let (whole, end) = changes(&store, &own, None, 9).await.expect("changes");
    assert_eq!(whole.len(), 2);
    drop(store);

    let store = open_without(&shards, 1).await.expect("it opens");
    shards.tick();
    let third = add(&store, vec![job(moved)]).await[0];
    for after in [None, Some(end)] {
        fails_for("1", store.changes(&own, after, 9).await);
    }
    let others = store.changes(&Scope::Tenant(other.clone()), None, 9).await.expect("changes");
    assert_eq!(others.changes.len(), 1);
    assert_eq!(total(&store, &own).await.expect("counts"), 3);
    let claimed =
        store.exchange(claiming(&owner, vec![pick(&job(moved), 9)])).await.expect("exchange").claimed;
    assert_eq!(claimed.len(), 3);
    let ends = claimed.iter().map(ended).collect();
    let applied = store.exchange(telling(&owner, ends)).await.expect("exchange").applied;
    assert!(applied.iter().all(|applied| matches!(applied, Applied::Done)), "{applied:?}");

    store.join(1, shard(&shards, 1)).await.expect("it joins");
    let (whole, _) = changes(&store, &own, None, 9).await.expect("changes");
    versions_in_order(&whole);
    drop(store);

    // Once it is given up the log begins with what the next shard has.
    let store = open_without(&shards, 1).await.expect("it opens");
    store.give_up(1).await.expect("give_up");
    fails_for("1", store.changes(&own, None, 9).await);
    store.join(1, shard(&Shards::new(2), 1)).await.expect("an empty store joins");
    let (left, _) = changes(&store, &own, None, 9).await.expect("changes");
    let submitted: Vec<JobId> =
        left.iter().filter(|change| change.version == 1).map(|change| change.job).collect();
    assert_eq!(submitted, [second, third]);
    assert_eq!(left.len() + 1, whole.len());
}
