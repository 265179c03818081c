//! What the tier promises of its rows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hodei_core::store::{CacheTier, TierRow};
use hodei_core::{ErrorKind, JobId, Tenant};
use hodei_store_pg::RedisTier;
use hodei_test_servers::{Redis, Server};

use super::world::{shared_tier, tell};

const HOUR: Duration = Duration::from_secs(3_600);

fn key(n: u64) -> JobId {
    JobId::from_parts(n, Tenant::default().slot(), 0)
}

fn row(n: u64, version: u32, ttl: Duration) -> TierRow {
    TierRow { key: key(n), version, bytes: Bytes::from(format!("{n} in {version}")), ttl }
}

async fn seen(tier: &RedisTier, n: u64) -> Option<String> {
    let rows = tier.get_many(&[key(n)]).await.expect("Redis answers");
    rows[0].as_ref().map(|bytes| String::from_utf8(bytes.to_vec()).expect("a row of these tests"))
}

#[tokio::test]
async fn rows_come_back_in_order_and_the_newest_version_stays() {
    let tier = shared_tier();
    assert_eq!(tier.get_many(&[]).await.unwrap(), Vec::<Option<Bytes>>::new());
    tier.put_many(vec![]).await.unwrap();
    tier.remove_many(&[]).await.unwrap();
    tier.put_many(vec![row(1, 300, HOUR), row(3, 1, HOUR)]).await.unwrap();
    tier.put_many(vec![row(1, 255, HOUR), row(3, 2, HOUR)]).await.unwrap();
    let rows = tier.get_many(&[key(3), key(2), key(1)]).await.unwrap();
    assert_eq!(rows, [Some("3 in 2".into()), None, Some("1 in 300".into())]);
    tier.put_many(vec![row(1, 300, HOUR), row(1, u32::MAX, HOUR)]).await.unwrap();
    assert_eq!(seen(&tier, 1).await.unwrap(), format!("1 in {}", u32::MAX));
    tier.remove_many(&[key(1), key(2)]).await.unwrap();
    assert_eq!((seen(&tier, 1).await, seen(&tier, 3).await.as_deref()), (None, Some("3 in 2")));
}

#[tokio::test]
async fn of_writers_that_race_the_newest_wins() {
    let tier = Arc::new(shared_tier());
    let writers = (0..8_u32).map(|writer| {
        let tier = Arc::clone(&tier);
        tokio::spawn(async move {
            // Each in another order, and one of them with the newest version early on.
            for n in 0..50_u32 {
                tier.put_many(vec![row(1, (n * 37 + writer * 11) % 400, HOUR)]).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let newest = (0..8_u32).flat_map(|w| (0..50_u32).map(move |n| (n * 37 + w * 11) % 400)).max().unwrap();
    assert_eq!(seen(&tier, 1).await.unwrap(), format!("1 in {newest}"));
}

#[tokio::test]
async fn a_row_goes_when_its_time_is_over() {
    let tier = shared_tier();
    tier.put_many(vec![row(1, 2, Duration::from_millis(30)), row(2, 2, Duration::MAX)]).await.unwrap();
    let gone = async {
        while seen(&tier, 1).await.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("its time is over");
    assert!(seen(&tier, 2).await.is_some());
    tier.put_many(vec![row(1, 1, HOUR)]).await.unwrap();
    assert_eq!(seen(&tier, 1).await.unwrap(), "1 in 1");
}

#[tokio::test]
async fn what_is_no_row_hides_no_other_and_is_overwritten() {
    let redis = Redis::start().unwrap();
    let tier = RedisTier::builder(redis.url()).prefix("p:").row_max(100).open().unwrap();
    tier.put_many((1..=4).map(|n| row(n, 9, HOUR)).collect()).await.unwrap();
    let keys: Vec<String> = (1..=4).map(|n| format!("p:{}", key(n))).collect();
    let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    let long = vec![0xff; 1 << 20];
    tell(
        &redis,
        &[
            &[b"DEL", keys[0], keys[2]],
            &[b"LPUSH", keys[0], b"a list"],
            &[b"SET", keys[1], &long],
            &[b"SET", keys[2], b"abc"],
        ],
    );
    let rows = tier.get_many(&[1, 2, 3, 4].map(key)).await.unwrap();
    assert_eq!(rows[0].as_deref(), Some(b"".as_slice()), "of another type");
    assert_eq!(rows[1].as_deref(), Some(&long[..100]), "no more than a row may have");
    assert_eq!(rows[2].as_deref(), Some(b"".as_slice()), "too short");
    assert_eq!(rows[3].as_deref(), Some(b"4 in 9".as_slice()));
    tier.put_many(vec![row(1, 1, HOUR), row(2, 1, HOUR), row(3, 1, HOUR)]).await.unwrap();
    assert_eq!(seen(&tier, 1).await.unwrap(), "1 in 1");
    let rows = tier.get_many(&[key(2)]).await.unwrap();
    assert_eq!(rows[0].as_deref(), Some(&long[..100]), "its version is the newest until somebody removes it");
    assert_eq!(seen(&tier, 3).await.unwrap(), "3 in 1");
}

#[tokio::test]
async fn a_visit_that_was_given_up_leaves_no_answer_for_another() {
    let redis = Redis::start().unwrap();
    let tier = RedisTier::builder(redis.url()).open().unwrap();
    tier.put_many((1..=50).map(|n| row(n, 1, HOUR)).collect()).await.unwrap();
    redis.freeze();
    for n in 1..=20 {
        let (keys, soon) = ([key(n)], Duration::from_millis(1));
        assert!(tokio::time::timeout(soon, tier.get_many(&keys)).await.is_err());
    }
    redis.thaw();
    for n in (1..=50).rev() {
        assert_eq!(seen(&tier, n).await.unwrap(), format!("{n} in 1"));
    }
}

#[tokio::test]
async fn a_script_that_was_forgotten_is_told_again() {
    let redis = Redis::start().unwrap();
    let tier = RedisTier::builder(redis.url()).open().unwrap();
    tier.put_many(vec![row(1, 1, HOUR)]).await.unwrap();
    tell(&redis, &[&[b"SCRIPT", b"FLUSH"]]);
    tier.put_many(vec![row(1, 2, HOUR)]).await.unwrap();
    assert_eq!(seen(&tier, 1).await.unwrap(), "1 in 2");
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_and_no_password_is_shown() {
    for url in ["", "postgres://localhost", "rediss://localhost", "redis://"] {
        let error = RedisTier::builder(url).open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
    }
    let builder = RedisTier::builder("redis://:hunter2@127.0.0.1:1/");
    let shown = format!("{builder:?} {:?}", builder.clone().open().unwrap());
    let error = builder.open().unwrap().get_many(&[key(1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "nobody listens there");
    assert!(!format!("{shown} {error} {error:?}").contains("hunter2"));
}

#[test]
fn a_tier_outside_of_a_runtime_is_refused() {
    let error = RedisTier::builder("redis://127.0.0.1").open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}
