//! Records that are added.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hodei_core::ErrorKind;
use hodei_core::security::AuditSink;
use hodei_store_pg::PgAudit;
use hodei_test_servers::{Postgres, Proxy, Server};

use super::world::{KEY, Trail, open, record, records};

#[tokio::test]
async fn records_come_in_order_and_whole() {
    let trail = Trail::new().await;
    assert!(trail.verify(&[]).await.is_sound(), "an empty trail");
    trail.audit.append(vec![]).await.unwrap();
    trail.audit.append(records(3)).await.unwrap();
    trail.audit.append(vec![record(4)]).await.unwrap();
    let rows = trail
        .sql("SELECT seq, at, tenant, actor, action, subject FROM hodei_audit.record ORDER BY 1")
        .unwrap();
    let expected: Vec<String> = (1..=4)
        .map(|n| {
            let tenant = if n % 2 == 0 { "" } else { "default" };
            format!("{n}|{}|{tenant}|actor {n}|job.cancel|job {n}", 1_750_000_000_000_000_i64 + n)
        })
        .collect();
    assert_eq!(rows.lines().collect::<Vec<_>>(), expected);
    let report = trail.verify(&[]).await;
    assert!(report.is_sound());
    assert_eq!((report.rows, report.signed, report.checkpoints), (4, 0, 0));
}

#[tokio::test]
async fn a_checkpoint_is_written_after_every_so_many_rows_and_when_it_is_asked_for() {
    let trail = Trail::new().await;
    for n in 1..=25 {
        trail.audit.append(vec![record(n)]).await.unwrap();
    }
    trail.audit.append(records(50)).await.unwrap();
    let asked = trail.audit.checkpoint().await.unwrap();
    let again = trail.audit.checkpoint().await.unwrap();
    assert_eq!((asked.count(), again.count()), (75, 75));
    assert_eq!(
        trail.sql("SELECT string_agg(count::text, ' ' ORDER BY count) FROM hodei_audit.checkpoint").unwrap(),
        "10 20 75"
    );
    let report = trail.verify(&[asked, again.to_string().parse().unwrap()]).await;
    assert!(report.is_sound(), "{report}");
    assert_eq!((report.rows, report.checkpoints), (75, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_on_many_nodes_write_one_trail() {
    let trail = Trail::new().await;
    let nodes =
        [trail.audit.clone(), open(&trail.database.url(), KEY).await, open(&trail.database.url(), KEY).await];
    let began = Instant::now();
    let tasks = (0..24).map(|task| {
        let node = nodes[task % 3].clone();
        tokio::spawn(async move {
            for n in 0..20 {
                // The two of a call stay neighbours.
                node.append(vec![record(task * 1_000 + n), record(task * 1_000 + n)]).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    println!("960 records of 24 tasks on 3 nodes in {:?}", began.elapsed());
    let report = trail.verify(&[]).await;
    assert!(report.is_sound() && report.rows == 960, "{report}");
    let rows = trail.sql("SELECT subject FROM hodei_audit.record ORDER BY seq").unwrap();
    let mut last = BTreeMap::new();
    for pair in rows.lines().collect::<Vec<_>>().chunks(2) {
        assert_eq!(pair[0], pair[1], "a call is not torn");
        let number: usize = pair[0].trim_start_matches("job ").parse().unwrap();
        assert!(
            last.insert(number / 1_000, number).is_none_or(|before| before < number),
            "order of a caller"
        );
    }
}

/// How many records a long trail has; `HODEI_AUDIT_RECORDS` sets another number.
const LONG: usize = 3_000;

#[tokio::test]
async fn a_long_trail_is_written_and_verified() {
    let length = std::env::var("HODEI_AUDIT_RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(LONG);
    let trail = Trail::new().await;
    let (all, began) = (records(1_000), Instant::now());
    for _ in 0..length / all.len() {
        trail.audit.append(all.clone()).await.unwrap();
    }
    let (written, began) = (began.elapsed(), Instant::now());
    let report = trail.verify(&[]).await;
    let verified = began.elapsed();
    let rate = |time: Duration| report.rows as f64 / time.as_secs_f64();
    println!(
        "{report}: written in batches of 1,000 in {written:?} ({:.0}/s), verified in {verified:?} ({:.0}/s)",
        rate(written),
        rate(verified)
    );
    assert!(report.is_sound() && report.checkpoints == report.rows / 1_000);
}

/// Appends until it is taken.
async fn again(audit: &PgAudit, n: usize) {
    let taken = async {
        while audit.append(vec![record(n)]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), taken).await.expect("the server is well");
}

#[tokio::test]
async fn a_reply_that_was_lost_leaves_a_sound_trail() {
    let trail = Trail::new().await;
    let proxy = Proxy::start(Postgres::shared().unwrap().address()).unwrap();
    let audit = open(&trail.database.url_at(proxy.address()), KEY).await;
    audit.append(vec![record(1)]).await.unwrap();
    proxy.cut_before(b"COMMIT\0");
    let error = audit.append(vec![record(2)]).await.unwrap_err();
    assert_eq!((error.kind(), proxy.cuts()), (ErrorKind::Indeterminate, 1));
    // Who says it again is understood, and it may stand twice.
    again(&audit, 2).await;
    let report = trail.verify(&[]).await;
    assert!(report.is_sound() && report.rows == 3, "{report}");
}

#[tokio::test]
async fn a_trail_lives_through_a_restart_of_the_server() {
    let postgres = Postgres::start().unwrap();
    let database = postgres.database().unwrap();
    let audit = open(&database.url(), KEY).await;
    audit.append(records(3)).await.unwrap();
    for end in [Server::stop_fast, Server::stop_immediate, Server::kill9] {
        end(&postgres);
        let error = audit.append(vec![record(4)]).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        postgres.restart().unwrap();
        again(&audit, 4).await;
    }
    let report = audit.verify(&[]).await.unwrap();
    assert!(report.is_sound() && report.rows == 6, "{report}");
}

#[tokio::test]
async fn what_waits_is_written_before_the_end() {
    let trail = Trail::new().await;
    let adding = (1..=50).map(|n| {
        let audit = trail.audit.clone();
        tokio::spawn(async move { audit.append(vec![record(n)]).await })
    });
    let adding: Vec<_> = adding.collect();
    tokio::task::yield_now().await;
    trail.audit.close().await;
    trail.audit.close().await;
    let mut added = 0;
    for one in adding {
        match one.await.unwrap() {
            Ok(()) => added += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
    }
    assert_eq!(trail.sql("SELECT count(*) FROM hodei_audit.record").unwrap(), added.to_string());
    assert_eq!(trail.audit.checkpoint().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn limits_of_zero_and_addresses_that_are_none_are_refused() {
    let builder = |url: &str| PgAudit::builder(url, KEY);
    let wrong = [
        builder("no url"),
        builder("postgres://x").queue(0),
        builder("postgres://x").batch_max(0),
        builder("postgres://x").checkpoint_every(0),
    ];
    for builder in wrong {
        assert_eq!(builder.connect().await.unwrap_err().kind(), ErrorKind::Config);
    }
    assert!(!format!("{:?}", builder("postgres://u:hunter2@x")).contains("hunter2"));
}
