//! Lists and logs over several shards.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::job::{JobSpec, NewJob};
use hodei_core::store::*;
use hodei_core::{ErrorKind, JobId, Name, Tenant};

use crate::world::{Shards, add, changes, job, listed, tenant_in, versions_in_order};

/// Jobs of many tenants, several of the same microsecond, in the order of (created at, id).
async fn populated(shards: &Shards, store: &ShardedStore) -> Vec<JobId> {
    let mut all = Vec::new();
    for round in 0..12 {
        let jobs = (0..9).map(|n| job(&tenant_in(n % 3, 3, round % 5))).collect();
        let mut ids = add(store, jobs).await;
        ids.sort_unstable();
        all.extend(ids);
        shards.tick();
    }
    all
}

#[tokio::test]
async fn pages_of_any_size_and_streams_are_one_list_in_order() {
    let shards = Shards::new(3);
    let store = shards.open().await;
    let oldest = populated(&shards, &store).await;
    let newest: Vec<JobId> = oldest.iter().rev().copied().collect();
    for limit in [1, 2, 7, 16, 50, 108, 1_000] {
        for (query, expected) in [(Query::new(), &newest), (Query::new().oldest_first(), &oldest)] {
            let query = query.limit(limit);
            assert_eq!(listed(&store, &Scope::All, query.clone()).await.expect("query"), *expected);
            let mut stream = store.stream(&Scope::All, query);
            let mut streamed = Vec::new();
            while let Some(batch) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
                streamed.extend(batch.expect("stream").iter().map(|job| job.id));
            }
            assert_eq!(streamed, *expected, "{limit} at a time");
        }
    }
}

#[tokio::test]
async fn a_page_does_not_read_every_shard_to_its_end() {
    let shards = Shards::new(3);
    let store = shards.open().await;
    populated(&shards, &store).await;
    let before: u64 = shards.faults.iter().map(hodei_core::testkit::fault::Faults::calls).sum();
    store.query(&Scope::All, Query::new().limit(6)).await.expect("query");
    let after: u64 = shards.faults.iter().map(hodei_core::testkit::fault::Faults::calls).sum();
    assert_eq!(after - before, 4, "one page of each shard, and the version of the map");
    let tenant = tenant_in(1, 3, 0);
    store.query(&Scope::Tenant(tenant), Query::new().limit(6)).await.expect("query");
    let last: u64 = shards.faults.iter().map(hodei_core::testkit::fault::Faults::calls).sum();
    assert_eq!(last - after, 1, "a tenant is in one shard");
}

#[tokio::test]
async fn a_list_has_each_job_once_while_slots_move_between_its_pages() {
    for limit in [1, 3, 10] {
        for order in [Query::new(), Query::new().oldest_first()] {
            let shards = Shards::new(3);
            let store = shards.open().await;
            let mut expected = populated(&shards, &store).await;
            expected.sort_unstable();
            let (mut query, mut found, mut turn) = (order.clone().limit(limit), Vec::new(), 0);
            loop {
                let page = store.query(&Scope::All, query.clone()).await.expect("query");
                found.extend(page.jobs.iter().map(|job| job.id));
                let Some(next) = page.next else { break };
                query.after = Some(next);
                let tenant = tenant_in(turn % 3, 3, turn % 5);
                store.move_slot(tenant.slot(), (turn / 2) % 3).await.expect("it moves");
                turn += 1;
            }
            found.sort_unstable();
            assert_eq!(found, expected, "{limit} at a time, {order:?}");
        }
    }
}

#[tokio::test]
async fn a_filtered_list_has_what_moves_to_a_shard_that_was_read_far_ahead() {
    for order in [Query::new(), Query::new().oldest_first()] {
        let shards = Shards::new(2);
        let store = shards.open().await;
        let (moves, far) = (tenant_in(0, 2, 1), tenant_in(1, 2, 0));
        let other = Arc::new(JobSpec::command(["true"]).name("other").build().expect("a valid spec"));
        // In the order of the list: one, one that will move, more than a shard looks at for a page, and one behind.
        let listed_jobs = [job(&tenant_in(0, 2, 0)), job(&moves), job(&far)];
        let expected: Vec<JobId> = listed_jobs.iter().map(|job| job.id).collect();
        let mut batches = listed_jobs.map(|job| vec![job]).to_vec();
        let others = (0..25_000).map(|_| NewJob::of(far.clone(), Arc::clone(&other)));
        batches.insert(2, others.collect());
        if order.order == Order::NewestFirst {
            batches.reverse();
        }
        for batch in batches {
            add(&store, batch).await;
            shards.tick();
        }
        let query = order.limit(1).name(Name::literal("job"));
        let first = store.query(&Scope::All, query.clone()).await.expect("query");
        assert_eq!(first.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), expected[..1]);
        store.move_slot(moves.slot(), 1).await.expect("it moves");
        let query = query.after(first.next.expect("more"));
        assert_eq!(listed(&store, &Scope::All, query).await.expect("query"), expected[1..]);
    }
}

#[tokio::test]
async fn a_tenants_list_goes_on_where_it_was_when_its_slot_has_moved() {
    let shards = Shards::new(2);
    let store = shards.open().await;
    let tenant = tenant_in(1, 2, 0);
    let mut ids = add(&store, (0..10).map(|_| job(&tenant)).collect()).await;
    ids.sort_unstable();
    let scope = Scope::Tenant(tenant.clone());
    let query = Query::new().oldest_first().limit(4);
    let first = store.query(&scope, query.clone()).await.expect("query");
    store.move_slot(tenant.slot(), 0).await.expect("it moves");
    let rest = listed(&store, &scope, query.after(first.next.expect("more"))).await.expect("query");
    let all: Vec<JobId> = first.jobs.iter().map(|job| job.id).chain(rest).collect();
    assert_eq!(all, ids);
}

#[tokio::test]
async fn a_log_is_in_order_within_each_job_and_read_once_while_slots_move() {
    for limit in [1, 2, 5, 100] {
        let shards = Shards::new(3);
        let store = shards.open().await;
        let tenant = tenant_in(0, 3, 0);
        let other = tenant_in(1, 3, 0);
        let (mut tail, mut seen) = (None, Vec::new());
        for turn in 0..6 {
            let id = add(&store, vec![job(&tenant), job(&other)]).await;
            shards.tick();
            store.request_cancel(&Scope::All, id.clone()).await.expect("cancel");
            shards.tick();
            store.redrive(&Scope::All, id).await.expect("redrive");
            let page = store.changes(&Scope::All, tail, 2).await.expect("changes");
            seen.extend(page.changes);
            tail = Some(page.next);
            shards.tick();
            store.move_slot(tenant.slot(), (turn + 1) % 3).await.expect("it moves");
            shards.tick();
        }
        seen.extend(changes(&store, &Scope::All, tail, limit).await.expect("changes").0);
        let (whole, end) = changes(&store, &Scope::All, None, limit).await.expect("changes");
        for log in [&seen, &whole] {
            assert_eq!(log.len(), 36);
            versions_in_order(log);
        }
        for tenant in [&tenant, &other] {
            let scope = Scope::Tenant(tenant.clone());
            let (own, own_end) = changes(&store, &scope, None, limit).await.expect("changes");
            assert_eq!(own.len(), 18, "wherever the slot was");
            versions_in_order(&own);
            assert_eq!(own_end, end);
        }
        assert_eq!(end, store.changes_end().await.expect("changes_end"));
    }
}

#[tokio::test]
async fn cursors_of_other_lists_stores_and_makers_are_invalid() {
    let shards = Shards::new(3);
    let store = shards.open().await;
    populated(&shards, &store).await;
    let jobs = store.query(&Scope::All, Query::new().limit(1)).await.expect("query").next.expect("more");
    let log = store.changes(&Scope::All, None, 1).await.expect("changes").next;
    let of_one = shards.stores[0].query(&Scope::All, Query::new().limit(1)).await.expect("query");
    // Well-formed on the outside, with bytes inside that the shard has never given.
    let inside = |cursor: &Cursor| {
        let mut bytes = cursor.as_bytes().to_vec();
        bytes.truncate(bytes.len() - 1);
        Cursor::from_bytes(bytes)
    };
    for cursor in [log.clone(), of_one.next.expect("more"), inside(&jobs)] {
        let error = store.query(&Scope::All, Query::new().after(cursor)).await.expect_err("it is forged");
        assert_eq!((error.kind(), error.faults()[0].code), (ErrorKind::Invalid, "not_of_this_list"));
    }
    for cursor in [jobs, inside(&log)] {
        let error = store.changes(&Scope::All, Some(cursor), 9).await.expect_err("it is forged");
        assert_eq!((error.kind(), error.faults()[0].code), (ErrorKind::Invalid, "not_of_this_list"));
    }
    let mut torn = vec![0xa2, 0, 1, 0, 0, 0, 3];
    torn.extend([1, 2, 3]);
    let error =
        store.changes(&Scope::All, Some(Cursor::from_bytes(torn)), 9).await.expect_err("a shard says so");
    assert_eq!((error.kind(), error.context("shard")), (ErrorKind::Invalid, Some("0")));
    assert!(store.failures().iter().all(Option::is_none), "the caller's fault is no failure of a shard");
}

#[tokio::test]
async fn an_expired_cursor_of_one_shard_is_expired() {
    let shards = Shards::new(2);
    let store = shards.open().await;
    let start = store.changes_end().await.expect("changes_end");
    let here: Tenant = tenant_in(1, 2, 0);
    add(&store, (0..10).map(|_| job(&here)).collect()).await;
    let lease = store.register(&crate::world::owner("a"), Duration::from_secs(60)).await.expect("register");
    let term = store.take_term(&crate::world::name("d"), &lease, Duration::from_secs(60)).await;
    let term = term.expect("take").expect("nobody leads");
    let pruned =
        store.prune(&term, Retention { changes: 4, ..Retention::default() }, 100).await.expect("prune");
    assert_eq!((pruned.changes, pruned.more), (6, false));
    let error = store.changes(&Scope::All, Some(start.clone()), 9).await.expect_err("what followed is gone");
    assert_eq!((error.kind(), error.context("shard")), (ErrorKind::CursorExpired, Some("1")));
    let elsewhere = Scope::Tenant(tenant_in(0, 2, 0));
    assert_eq!(store.changes(&elsewhere, Some(start), 9).await.expect("changes").changes, []);
}
