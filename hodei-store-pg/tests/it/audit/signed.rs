//! Who has the public key can tell what is genuine, and can forge nothing with it.

use hodei_core::ErrorKind;
use hodei_core::security::AuditSink;
use hodei_store_pg::{AuditPublicKey, Checkpoint, Finding, PgAudit};
use hodei_test_servers::Postgres;

use super::world::{KEY, Trail, open, record, records};

/// A trail of 25 rows with checkpoints at 10 and 20, and one at 25 that was kept.
async fn kept() -> (Trail, Checkpoint) {
    let trail = Trail::new().await;
    for count in [10, 10, 5] {
        trail.audit.append(records(count)).await.expect("the server answers");
    }
    let line = trail.audit.checkpoint().await.expect("the server answers").to_string();
    (trail, line.parse().expect("a checkpoint"))
}

#[tokio::test]
async fn a_checkpoint_is_told_by_the_public_key_alone() {
    let (trail, kept) = kept().await;
    let key: AuditPublicKey = trail.audit.public_key().to_string().parse().unwrap();
    assert!(kept.is_signed_by(&key));
    assert_eq!(PgAudit::builder("postgres://nowhere", KEY).public_key(), key);
    let other = PgAudit::builder("postgres://nowhere", [1; 32]).public_key();
    assert!(!kept.is_signed_by(&other));
    let of_before = kept.to_string().replacen("hodei-audit-2", "hodei-audit-1", 1);
    assert_eq!(of_before.parse::<Checkpoint>().unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn rows_are_held_to_signatures_by_the_public_key_alone() {
    let (trail, kept) = kept().await;
    trail.audit.append(records(3)).await.unwrap();
    let report = trail.verify_public(&[kept]).await;
    assert!(report.is_sound(), "{report}");
    assert_eq!((report.rows, report.signed, report.checkpoints), (28, 25, 4));
    // One who may only read is enough.
    let role = format!("auditor_{}", trail.database.name());
    let grants = "CREATE ROLE # LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA hodei_audit TO #;
         GRANT SELECT ON ALL TABLES IN SCHEMA hodei_audit TO #";
    trail.sql(&grants.replace('#', &role)).unwrap();
    let url = trail.database.url_as(&role, "p");
    let report = PgAudit::verify_public(&url, &trail.audit.public_key(), &[kept]).await.unwrap();
    assert!(report.is_sound() && report.signed == 25, "{report}");
}

#[tokio::test]
async fn where_there_is_no_trail_nothing_is_made_and_nothing_sound() {
    let database = Postgres::shared().unwrap().database().unwrap();
    let key = PgAudit::builder(database.url(), KEY).public_key();
    for _ in 0..2 {
        let error = PgAudit::verify_public(&database.url(), &key, &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    let error = PgAudit::verify_public("no url", &key, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn without_the_key_a_change_is_found_by_row_or_by_the_checkpoint_that_it_spoils() {
    for (sql, finding) in [
        ("UPDATE hodei_audit.record SET actor = 'x' WHERE seq = 7", Finding::Altered { row: 7 }),
        ("DELETE FROM hodei_audit.record WHERE seq = 7", Finding::Missing { row: 7 }),
        ("UPDATE hodei_audit.record SET seq = 15 - seq WHERE seq IN (7, 8)", Finding::Altered { row: 7 }),
        ("DELETE FROM hodei_audit.record WHERE seq > 14", Finding::CutOff { row: 15, checkpoint: 20 }),
        (
            "UPDATE hodei_audit.checkpoint SET at = at + 1 WHERE count = 20",
            Finding::ForgedCheckpoint { checkpoint: 20 },
        ),
    ] {
        let (trail, _) = kept().await;
        trail.tamper(sql);
        assert_eq!(trail.verify_public(&[]).await.finding, Some(finding), "{sql}");
    }
}

/// Whoever has the public key, a checkpoint, and may do everything in the database makes nobody believe anything against a
/// checkpoint that was kept: neither who has the key of the trail nor who has the public one.
#[tokio::test]
async fn nothing_that_is_done_to_the_database_goes_with_a_checkpoint_that_was_kept() {
    let away = "DELETE FROM hodei_audit.checkpoint WHERE count > 10";
    let anew: [(&str, usize, Vec<_>); 6] = [
        ("the row is left out", 14, records(25)[14..].to_vec()),
        ("another stands for it", 14, [vec![record(99)], records(25)[14..].to_vec()].concat()),
        ("one is put in", 14, records(12)),
        ("all of it is another", 1, records(25)),
        ("a shorter one", 20, records(2)),
        ("a longer one", 20, records(20)),
    ];
    for (what, first, rows) in anew {
        let (trail, kept) = kept().await;
        trail.tamper(if first == 1 { "DELETE FROM hodei_audit.checkpoint" } else { away });
        trail.write_anew(first, &rows);
        let last = first + rows.len() - 1;
        let expected = if last < 25 {
            Finding::CutOff { row: i64::try_from(last).unwrap() + 1, checkpoint: 25 }
        } else {
            Finding::Rewritten { row: 25 }
        };
        // The links go with each other, and nobody who has no key and kept nothing can tell.
        let alone = trail.verify_public(&[]).await;
        assert!(alone.is_sound() && alone.signed <= 10, "{what}: {alone}");
        assert_eq!(trail.verify_public(&[kept]).await.finding, Some(expected), "{what}");
        let row = i64::try_from(first).unwrap();
        assert_eq!(trail.verify(&[kept]).await.finding, Some(Finding::Altered { row }), "{what}");
    }
}

#[tokio::test]
async fn rows_that_were_rolled_back_and_grew_again_are_found() {
    let (trail, kept) = kept().await;
    trail.tamper(
        "CREATE TABLE of_before AS TABLE hodei_audit.record;
         DELETE FROM hodei_audit.record WHERE seq > 14; DELETE FROM hodei_audit.checkpoint WHERE count > 14",
    );
    // The trail itself goes on behind what is left, and signs for it.
    trail.audit.append(records(16)).await.unwrap();
    let forked = trail.audit.checkpoint().await.unwrap();
    assert!(forked.is_signed_by(&trail.audit.public_key()) && forked.count() == 30);
    for report in [trail.verify(&[kept]).await, trail.verify_public(&[kept]).await] {
        assert_eq!(report.finding, Some(Finding::Rewritten { row: 25 }));
    }
    // What was there before is put back: then it is the other checkpoint that tells.
    trail.tamper(
        "TRUNCATE hodei_audit.record, hodei_audit.checkpoint; INSERT INTO hodei_audit.record TABLE of_before",
    );
    assert!(trail.verify(&[kept]).await.is_sound());
    for report in [trail.verify(&[kept, forked]).await, trail.verify_public(&[kept, forked]).await] {
        assert_eq!(report.finding, Some(Finding::CutOff { row: 26, checkpoint: 30 }));
    }
}

#[tokio::test]
async fn a_trail_of_another_key_is_not_this_one() {
    let (trail, kept) = kept().await;
    let key = trail.audit.public_key();
    trail.tamper("TRUNCATE hodei_audit.record, hodei_audit.checkpoint");
    let other = open(&trail.database.url(), [1; 32]).await;
    other.append(records(25)).await.unwrap();
    assert!(other.verify(&[]).await.unwrap().is_sound());
    let report = trail.verify_public(&[]).await;
    assert_eq!(report.finding, Some(Finding::ForgedCheckpoint { checkpoint: 25 }));
    // Without its checkpoints it is the same rows with the same links: only seals tell, and what they say was not said.
    trail.tamper("DELETE FROM hodei_audit.checkpoint");
    assert_eq!(trail.verify(&[]).await.finding, Some(Finding::Altered { row: 1 }));
    // A checkpoint of the other is worth nothing with this key, whichever rows it counts.
    let forged = other.checkpoint().await.unwrap();
    assert!(!forged.is_signed_by(&key));
    for report in [trail.verify_public(&[forged]).await, trail.verify_public(&[kept, forged]).await] {
        assert_eq!(report.finding, Some(Finding::ForgedCheckpoint { checkpoint: 25 }));
    }
}
