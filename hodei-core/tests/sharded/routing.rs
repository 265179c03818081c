//! Where things go.

use std::sync::Arc;

use hodei_core::store::*;
use hodei_core::testkit::fault::{Fault, Faults, Faulty};
use hodei_core::{Error, ErrorKind, JobId, Slot, Tenant};

use crate::world::{Shards, add, job, name, owner, tenant_in};

#[tokio::test]
async fn slots_are_spread_and_jobs_are_where_their_slot_is() {
    let shards = Shards::new(3);
    let store = shards.open().await;
    let tenants: Vec<Tenant> = (0..90).map(|n| Tenant::new(format!("t{n}")).expect("a name")).collect();
    add(&store, tenants.iter().map(job).collect()).await;
    let mut counts = Vec::new();
    for shard in &shards.stores {
        counts.push(shard.counts(&Scope::All).await.expect("counts").total());
    }
    assert_eq!(counts.iter().sum::<u64>(), 90);
    assert!(counts.iter().all(|count| (15..=45).contains(count)), "{counts:?}");
    for tenant in &tenants {
        let here = shards.stores[store.shard_of(tenant)].counts(&Scope::Tenant(tenant.clone())).await;
        assert_eq!(here.expect("counts").total(), 1);
    }
    assert_eq!(store.verify_indexes().await.expect("verify"), [""; 0]);
    assert!(store.stats().rows_written >= 90);
}

#[tokio::test]
async fn a_job_in_the_wrong_shard_is_found() {
    let shards = Shards::new(2);
    let store = shards.open().await;
    let stray = job(&tenant_in(0, 2, 0));
    let wrong = &shards.stores[1];
    wrong.submit(vec![stray.clone()], SubmitOptions::each()).await.expect("the shard takes it");
    let policy = QueuePolicy { tenant: stray.tenant.clone(), queue: name("q"), paused: false, weight: 1 };
    wrong.set_queue(policy).await.expect("the shard takes it");
    let found = store.verify_indexes().await.expect("verify");
    let job = format!("shard 1: job {} belongs to another shard", stray.id);
    assert_eq!(found, [job, format!("shard 1: a policy of {} belongs to another shard", stray.tenant)]);
}

#[tokio::test]
async fn shards_keep_their_places() {
    let shards = Shards::new(3);
    shards.open().await;
    let mixed = |places: &[usize]| {
        places.iter().map(|n| Arc::clone(&shards.stores[*n]) as Arc<dyn Shard>).collect::<Vec<_>>()
    };
    let fresh: Arc<dyn Shard> = Arc::new(MemoryStore::new());
    for wrong in [mixed(&[]), mixed(&[0, 1]), mixed(&[0, 2, 1]), mixed(&[1, 0, 2])] {
        let error = ShardedStore::open(wrong).await.expect_err("they are not in their places");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    let replaced = [mixed(&[0, 1]), vec![Arc::clone(&fresh)]].concat();
    let error = ShardedStore::open(replaced).await.expect_err("an empty store is no shard");
    assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Config, Some("2")));
    assert_eq!(error.context("mark"), Some("none"));
    let gone = Error::new(ErrorKind::Io, "file.open");
    let store = mixed(&[0, 1]).into_iter().map(Ok).chain([Err(gone)]).collect();
    let store = ShardedStore::open_present(store).await.expect("it opens");
    let error = store.join(2, Arc::clone(&fresh)).await.expect_err("nor when it comes later");
    assert_eq!((error.kind(), error.context("mark")), (ErrorKind::Config, Some("none")));
    assert_eq!(store.give_up(1).await.expect_err("it is there").kind(), ErrorKind::Conflict);
    assert_eq!(store.give_up(3).await.expect_err("there is none").kind(), ErrorKind::Invalid);
    store.give_up(2).await.expect("it is lost");
    store.join(2, Arc::clone(&fresh)).await.expect("an empty store takes the place of one that is lost");
    let replaced = [mixed(&[0, 1]), vec![Arc::clone(&fresh)]].concat();
    ShardedStore::open(replaced).await.expect("it is the shard now");
    let error = ShardedStore::open(mixed(&[0, 1, 2])).await.expect_err("that one was given up");
    assert_eq!((error.context("shard"), error.context("mark")), (Some("2"), Some("another")));
    let twice = [mixed(&[0, 1]), vec![Arc::clone(&fresh), Arc::clone(&fresh)]].concat();
    let error = ShardedStore::open(twice).await.expect_err("that one is marked as the third");
    assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Config, Some("3")));
}

#[tokio::test]
async fn a_new_shard_has_nothing_until_a_slot_moves_to_it() {
    let mut shards = Shards::new(2);
    let store = shards.open().await;
    let tenant = tenant_in(1, 2, 0);
    let id = add(&store, vec![job(&tenant)]).await[0];
    let before = store.changes_end().await.expect("changes_end");
    shards.stores.push(Arc::new(Faulty::new(MemoryStore::new(), Faults::new())));
    let wider = shards.open().await;
    assert_eq!(wider.shard_of(&tenant), 1);
    wider.move_slot(tenant.slot(), 2).await.expect("it moves");
    wider.request_cancel(&Scope::All, vec![id]).await.expect("cancel");
    let page =
        wider.changes(&Scope::All, Some(before), 10).await.expect("the cursor of two shards still holds");
    assert_eq!(page.changes.len(), 1);
    assert_eq!(shards.stores[2].counts(&Scope::All).await.expect("counts").total(), 1);
}

#[tokio::test]
async fn the_home_gives_out_incarnations_and_all_shards_know_them() {
    let shards = Shards::new(3);
    let store = shards.open().await;
    let ttl = crate::world::LIFE;
    let first = store.register(&owner("a"), ttl).await.expect("register");
    let other = store.register(&owner("b"), ttl).await.expect("register");
    for shard in &shards.stores {
        for lease in [&first, &other] {
            assert_eq!(shard.owner_life(lease).await.expect("owner_life"), Some(ttl));
        }
    }
    let term = store.take_term(&name("d"), &first, ttl).await.expect("take").expect("nobody leads");
    for shard in &shards.stores {
        assert_eq!(shard.term_life(&term).await.expect("term_life"), Some(ttl));
    }
    store.retire(&first).await.expect("retire");
    for shard in &shards.stores {
        assert_eq!(shard.owner_life(&first).await.expect("owner_life"), None);
        assert_eq!(shard.term_life(&term).await.expect("term_life"), None);
    }
    // What was given out by the home is never given out again by anybody.
    let local = shards.stores[2].register(&owner("c"), ttl).await.expect("register");
    assert!(local.incarnation > other.incarnation);
}

#[tokio::test]
async fn what_is_adopted_never_goes_back() {
    let store = MemoryStore::new();
    let ttl = crate::world::LIFE;
    let lease = |incarnation| hodei_core::job::Lease { owner: owner("a"), incarnation };
    assert!(store.adopt_owner(&lease(5), ttl).await.expect("adopt"));
    assert!(store.adopt_owner(&lease(5), ttl).await.expect("adopt"), "again");
    assert!(!store.adopt_owner(&lease(4), ttl).await.expect("adopt"));
    store.retire(&lease(5)).await.expect("retire");
    assert!(!store.adopt_owner(&lease(5), ttl).await.expect("adopt"), "what has ended stays so");
    let term = |number, holder| Term { duty: name("d"), number, holder: lease(holder) };
    assert!(store.adopt_term(&term(3, 5), ttl).await.expect("adopt"));
    assert!(!store.adopt_term(&term(2, 5), ttl).await.expect("adopt"), "an older one");
    assert!(!store.adopt_term(&term(3, 6), ttl).await.expect("adopt"), "another of that number");
    assert!(store.adopt_term(&term(4, 6), ttl).await.expect("adopt"));
}

#[tokio::test]
async fn a_map_is_written_by_one_at_a_time() {
    let store = MemoryStore::new();
    let note = name("n");
    assert_eq!(store.note(&note).await.expect("note"), None);
    let put = |expected, text: &'static str| store.put_note(&note, expected, text.into());
    assert!(put(0, "a").await.expect("put") && !put(0, "b").await.expect("put"));
    assert!(put(1, "c").await.expect("put"));
    let kept = store.note(&note).await.expect("note");
    assert_eq!(kept, Some(Note { version: 2, value: "c".into() }));
}

#[tokio::test]
async fn a_map_that_is_damaged_is_not_taken() {
    let shards = Shards::new(2);
    shards.open().await;
    let (home, map) = (&shards.stores[0], name("hodei.shard.map"));
    let version = home.note(&map).await.expect("note").expect("there is a map").version;
    assert!(home.put_note(&map, version, "nonsense".into()).await.expect("put"));
    assert_eq!(shards.try_open().await.expect_err("it is damaged").kind(), ErrorKind::Corrupt);
    shards.faults[1].all(Fault::Refused);
    let fresh = Shards::new(2);
    fresh.faults[1].all(Fault::Refused);
    let error = fresh.try_open().await.expect_err("a shard is down");
    assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Unavailable, Some("1")));
    assert!(Slot::new(4_096).is_none() && Slot::new(4_095) == Some(Slot::MAX));
}

#[tokio::test]
async fn a_store_that_was_in_use_alone_can_be_the_home_and_keeps_what_it_has() {
    let shards = Shards::new(2);
    let of_both = [tenant_in(0, 2, 0), tenant_in(1, 2, 0)].map(|tenant| job(&tenant));
    let ids: Vec<JobId> = of_both.iter().map(|job| job.id).collect();
    shards.stores[0].submit(of_both.to_vec(), SubmitOptions::each()).await.expect("it was in use");
    let store = shards.open().await;
    let found = store.get_many(&Scope::All, ids.clone(), Consistency::Latest).await.expect("get_many");
    assert!(found.iter().all(Option::is_some), "nothing is hidden");
    let again = store.submit(of_both.to_vec(), SubmitOptions::each()).await.expect("submit").replies;
    assert_eq!(again, ids.iter().map(|id| Submitted::Existing(*id)).collect::<Vec<_>>());
    store.move_slot(of_both[1].tenant.slot(), 1).await.expect("a slot can move");
    assert_eq!(store.verify_indexes().await.expect("verify"), Vec::<String>::new());
}

#[tokio::test]
async fn a_limit_of_all_is_for_one_shard_alone() {
    let shards = Shards::new(2);
    let alone = ShardedStore::open(vec![Arc::clone(&shards.stores[0]) as Arc<dyn Shard>]).await.expect("one");
    assert!(alone.capabilities().limits_all);
    alone.set_limit(Limit::all(3)).await.expect("one shard sees everything");
    assert_eq!(alone.limits(&Scope::All).await.expect("limits")[0].limit, Limit::all(3));
    let error = shards.try_open().await.expect_err("nobody could hold it");
    assert_eq!((error.kind(), error.context("holds")), (ErrorKind::Config, Some("a limit of all")));
    assert!(alone.remove_limit(&LimitOf::All).await.expect("remove_limit"));
    let both = shards.open().await;
    assert!(!both.capabilities().limits_all);
    let error = both.set_limit(Limit::all(3)).await.expect_err("nobody could hold it");
    assert_eq!((error.kind(), error.context("shards")), (ErrorKind::Config, Some("2")));
}

#[tokio::test]
async fn a_store_that_holds_jobs_already_is_no_further_shard() {
    let shards = Shards::new(2);
    let stray = job(&tenant_in(0, 2, 0));
    shards.stores[1].submit(vec![stray], SubmitOptions::each()).await.expect("it was in use");
    let error = shards.try_open().await.expect_err("its jobs would be hidden");
    assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Config, Some("1")));
    let alone = Shards::new(1);
    alone.open().await;
    let wider = vec![Arc::clone(&alone.stores[0]) as Arc<dyn Shard>, Arc::clone(&shards.stores[1]) as _];
    assert_eq!(ShardedStore::open(wider).await.expect_err("later as well").kind(), ErrorKind::Config);
}
