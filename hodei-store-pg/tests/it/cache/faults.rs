//! A tier that is down, frozen, cut, slow, flushed or poisoned changes no answer, and costs no more than its budget.

use std::time::Duration;

use hodei_core::JobId;
use hodei_test_servers::{Proxy, Redis, Server};

use super::world::{BUDGET, COOL_DOWN, Node, World, tell};

/// What a read may take beyond the budgets of its visits, on a machine that does other things too. Without budgets it would
/// take a minute to find out that nobody answers.
const SLACK: Duration = Duration::from_secs(5);
/// How many jobs the nodes share.
const JOBS: usize = 20;

/// A world whose Redis has the rows of all jobs.
async fn filled(redis: &Redis, url: String) -> (World, Vec<JobId>) {
    let world = World::new(url);
    let mut ids = world.succeed(JOBS).await;
    ids.push(world.add().await);
    let warm = World { store: world.store.clone(), url: redis.url() };
    warm.patient().all(&ids).await;
    (world, ids)
}

/// Reads `times` with nothing in memory: every answer is right and in time. Returns how long the slowest took.
async fn reads(world: &World, node: &Node, ids: &[JobId], times: usize) -> Duration {
    let truth = world.truth(ids).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..times {
        let (answer, took) = node.cold(ids).await;
        assert_eq!(answer, truth);
        // A read makes at most three visits: it asks, removes what it does not believe, and writes.
        assert!(took < 3 * BUDGET + SLACK, "{took:?}");
        slowest = slowest.max(took);
    }
    slowest
}

/// Reads until the tier answers again.
async fn recovers(world: &World, node: &Node, ids: &[JobId]) {
    let before = node.cache.cache_stats().tier_hits;
    for _ in 0..200 {
        reads(world, node, ids, 1).await;
        if node.cache.cache_stats().tier_hits >= before + JOBS as u64 {
            return;
        }
        tokio::time::sleep(COOL_DOWN / 4).await;
    }
    panic!("the tier is not visited again: {:?}", node.cache.cache_stats());
}

#[tokio::test]
async fn a_tier_that_works_spares_the_store() {
    let redis = Redis::start().unwrap();
    let (world, ids) = filled(&redis, redis.url()).await;
    let node = world.patient();
    reads(&world, &node, &ids[..JOBS], 5).await;
    let stats = node.cache.cache_stats();
    assert_eq!((node.calls(), stats.tier_hits, stats.tier_failures), (0, 5 * JOBS as u64, 0));
}

#[tokio::test]
async fn a_killed_redis_is_missed_by_nobody() {
    let redis = Redis::start().unwrap();
    let (world, ids) = filled(&redis, redis.url()).await;
    // One that is sure to leave it alone for the whole test, and one that tries again soon.
    let (sure, node) = (world.sure(), world.node());
    for node in [&sure, &node] {
        reads(&world, node, &ids, 2).await;
    }
    redis.kill9();
    let slowest = reads(&world, &sure, &ids, 30).await;
    reads(&world, &node, &ids, 5).await;
    let stats = sure.cache.cache_stats();
    println!(
        "killed: slowest read {slowest:?}, {} failures, {} skipped",
        stats.tier_failures, stats.tier_skipped
    );
    assert!(stats.tier_failures >= 3 && stats.tier_skipped > 10, "{stats:?}");
    redis.restart().unwrap();
    recovers(&world, &node, &ids).await;
}

#[tokio::test]
async fn a_node_starts_while_redis_is_down() {
    let redis = Redis::start().unwrap();
    let (world, ids) = filled(&redis, redis.url()).await;
    redis.kill9();
    let node = world.node();
    reads(&world, &node, &ids, 10).await;
    redis.restart().unwrap();
    recovers(&world, &node, &ids).await;
}

#[tokio::test]
async fn a_frozen_redis_costs_its_budget_and_then_nothing() {
    let redis = Redis::start().unwrap();
    let (world, ids) = filled(&redis, redis.url()).await;
    // One that is sure to leave it alone for the whole test, and one that tries again soon.
    let (sure, node) = (world.sure(), world.node());
    for node in [&sure, &node] {
        reads(&world, node, &ids, 2).await;
    }
    redis.freeze();
    let slowest = reads(&world, &sure, &ids, 30).await;
    reads(&world, &node, &ids, 5).await;
    let stats = sure.cache.cache_stats();
    println!(
        "frozen: slowest read {slowest:?}, {} failures, {} skipped",
        stats.tier_failures, stats.tier_skipped
    );
    assert!(slowest >= BUDGET && stats.tier_failures >= 3 && stats.tier_skipped > 10, "{stats:?}");
    redis.thaw();
    recovers(&world, &node, &ids).await;
}

#[tokio::test]
async fn a_black_hole_before_redis_costs_its_budget_and_then_nothing() {
    let redis = Redis::start().unwrap();
    let proxy = Proxy::start(redis.address()).unwrap();
    let (world, ids) = filled(&redis, redis.url_at(proxy.address())).await;
    // One node that has a connection, and one that has none yet.
    let (old, new) = (world.node(), world.node());
    reads(&world, &old, &ids, 2).await;
    proxy.hold();
    for node in [&old, &new] {
        reads(&world, node, &ids, 20).await;
        assert!(node.cache.cache_stats().tier_failures >= 3);
    }
    proxy.release();
    for node in [&old, &new] {
        recovers(&world, node, &ids).await;
    }
}

#[tokio::test]
async fn a_slow_redis_costs_no_more_than_its_budget() {
    let redis = Redis::start().unwrap();
    let proxy = Proxy::start(redis.address()).unwrap();
    let (world, ids) = filled(&redis, redis.url_at(proxy.address())).await;
    let node = world.node();
    reads(&world, &node, &ids, 2).await;
    proxy.delay(2 * BUDGET);
    reads(&world, &node, &ids, 20).await;
    assert!(node.cache.cache_stats().tier_failures >= 3);
    proxy.delay(Duration::ZERO);
    recovers(&world, &node, &ids).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_is_made_anew() {
    let redis = Redis::start().unwrap();
    let proxy = Proxy::start(redis.address()).unwrap();
    let (world, ids) = filled(&redis, redis.url_at(proxy.address())).await;
    let node = world.node();
    for _ in 0..5 {
        recovers(&world, &node, &ids).await;
        proxy.cut();
        reads(&world, &node, &ids, 1).await;
    }
    proxy.refuse();
    reads(&world, &node, &ids, 10).await;
    proxy.admit();
    recovers(&world, &node, &ids).await;
}

#[tokio::test]
async fn a_flushed_redis_is_filled_again() {
    let redis = Redis::start().unwrap();
    let (world, ids) = filled(&redis, redis.url()).await;
    let node = world.patient();
    for _ in 0..5 {
        tell(&redis, &[&[b"FLUSHALL"]]);
        reads(&world, &node, &ids, 1).await;
        let before = node.cache.cache_stats().tier_hits;
        reads(&world, &node, &ids, 1).await;
        assert_eq!(node.cache.cache_stats().tier_hits, before + JOBS as u64);
    }
    assert_eq!(node.cache.cache_stats().tier_failures, 0);
}

#[tokio::test]
async fn a_poisoned_redis_is_not_believed_and_cleaned() {
    let redis = Redis::start().unwrap();
    let (world, ids) = filled(&redis, redis.url()).await;
    let node = world.patient();
    let keys: Vec<String> = ids.iter().map(|id| format!("hodei:{id}")).collect();
    let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    let forged = [&[0xff; 4], b"{\"state\":\"Succeeded\"}".as_slice()].concat();
    let long = vec![b'x'; 8 << 20];
    let poisons: [&[&[&[u8]]]; 5] = [
        &[&[b"SET", keys[0], &forged]],
        &[&[b"COPY", keys[1], keys[0], b"REPLACE"]],
        &[&[b"DEL", keys[0]], &[b"SADD", keys[0], b"a set"]],
        &[&[b"SET", keys[0], b""], &[b"APPEND", keys[0], b"\0"]],
        &[&[b"SET", keys[0], &long]],
    ];
    for (n, poison) in poisons.into_iter().enumerate() {
        tell(&redis, poison);
        let before = node.cache.cache_stats().tier_rejected;
        reads(&world, &node, &ids, 1).await;
        assert_eq!(node.cache.cache_stats().tier_rejected, before + 1, "poison {n}");
        let before = node.cache.cache_stats().tier_hits;
        reads(&world, &node, &ids, 1).await;
        assert_eq!(node.cache.cache_stats().tier_hits, before + JOBS as u64, "poison {n} is gone");
    }
    // The job that has not ended may have a row that somebody made up.
    tell(&redis, &[&[b"COPY", keys[1], keys[JOBS]]]);
    reads(&world, &node, &ids, 2).await;
}
