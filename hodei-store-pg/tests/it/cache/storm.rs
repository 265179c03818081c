//! Several nodes read and write while a Redis between them goes through everything at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hodei_core::store::{JobStore, Scope};
use hodei_test_servers::{Proxy, Redis, Server};

use super::world::{World, tell};

/// How many faults there are; `HODEI_TIER_FAULTS` sets another number.
const FAULTS: u64 = 30;
/// How many nodes there are.
const NODES: usize = 3;

/// Spreads a number: SplitMix64 (Steele, Lea, Flood 2014).
fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Hurts Redis, or lets it be, as `n` says.
fn hurt(redis: &Redis, proxy: &Proxy, n: u64) {
    let scrambled: [&[&[u8]]; 1] = [&[
        b"EVAL",
        b"for i, k in ipairs(redis.call('KEYS', '*')) do \
          if i % 2 == 0 then redis.call('SETRANGE', k, 40 + i, 'poison') else redis.call('DEL', k) end end",
        b"0",
    ]];
    match mixed(n) % 8 {
        0 => redis.kill9(),
        1 => redis.freeze(),
        2 => proxy.hold(),
        3 => proxy.cut(),
        4 => proxy.delay(Duration::from_millis(30)),
        5 => tell(redis, &[&[b"FLUSHALL"]]),
        6 => tell(redis, &scrambled),
        _ => {}
    }
}

/// Ends what [`hurt`] began.
fn heal(redis: &Redis, proxy: &Proxy) {
    redis.thaw();
    redis.restart().expect("Redis starts again");
    proxy.release();
    proxy.delay(Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_faults_changes_no_answer() {
    let faults = std::env::var("HODEI_TIER_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(FAULTS);
    let seed = u64::from(std::process::id());
    println!("seed {seed}, {faults} faults, {NODES} nodes");
    let redis = Redis::start().unwrap();
    let proxy = Proxy::start(redis.address()).unwrap();
    let world = Arc::new(World::new(redis.url_at(proxy.address())));
    let over = Arc::new(AtomicBool::new(false));
    let nodes: Vec<_> = (0..NODES)
        .map(|_| {
            let (world, over) = (Arc::clone(&world), Arc::clone(&over));
            tokio::spawn(async move {
                let node = world.node();
                let (mut reads, mut slowest) = (0_u64, Duration::ZERO);
                while !over.load(Ordering::Relaxed) {
                    let mut ids = world.succeed(2).await;
                    ids.push(world.add().await);
                    node.cold(&ids).await;
                    node.cache.request_cancel(&Scope::All, vec![ids[2]]).await.expect("memory answers");
                    for _ in 0..4 {
                        let began = Instant::now();
                        let answer = node.cold(&ids).await.0;
                        slowest = slowest.max(began.elapsed());
                        assert_eq!(answer, world.truth(&ids).await);
                        reads += 1;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                (reads, slowest, node.cache.cache_stats())
            })
        })
        .collect();
    let hurting = tokio::task::spawn_blocking(move || {
        for n in 0..faults {
            hurt(&redis, &proxy, seed ^ n);
            std::thread::park_timeout(Duration::from_millis(mixed(seed + n) % 120));
            heal(&redis, &proxy);
            std::thread::park_timeout(Duration::from_millis(mixed(seed ^ !n) % 120));
        }
    });
    hurting.await.unwrap();
    over.store(true, Ordering::Relaxed);
    let (mut reads, mut hits, mut noticed, mut slowest) = (0, 0, 0, Duration::ZERO);
    for node in nodes {
        let (its_reads, its_slowest, stats) = node.await.unwrap();
        (reads, hits, slowest) = (reads + its_reads, hits + stats.tier_hits, slowest.max(its_slowest));
        noticed += stats.tier_failures + stats.tier_rejected;
    }
    println!("{reads} reads, 0 wrong, slowest {slowest:?}; {hits} hits, {noticed} failures and rejections");
    assert!(hits > 0 && noticed > 0);
}
