//! One who owns the database and has no key changes the trail: `verify` names the first row that is wrong.

use hodei_core::ErrorKind;
use hodei_core::security::AuditSink;
use hodei_store_pg::Finding;

use super::world::{Trail, open, record, records};

/// Writes 25 rows with checkpoints at 10 and 20, tampers with them, and returns what is found.
async fn after(sql: &str) -> (u64, Option<Finding>) {
    let trail = Trail::new().await;
    for count in [10, 10, 5] {
        trail.audit.append(records(count)).await.expect("the server answers");
    }
    let sound = trail.verify(&[]).await;
    assert!(sound.is_sound() && sound.rows == 25 && sound.checkpoints == 2, "{sound}");
    trail.tamper(sql);
    let report = trail.verify(&[]).await;
    (report.rows, report.finding)
}

#[tokio::test]
async fn a_change_of_any_column_is_found() {
    for change in [
        "at = at + 1",
        "tenant = 'other'",
        "tenant = NULL",
        "actor = 'somebody else'",
        "action = 'job.redrive'",
        "subject = ''",
        "detail = detail || ' '",
        "link = set_byte(link, 31, get_byte(link, 31) # 1)",
        "seal = set_byte(seal, 31, get_byte(seal, 31) # 1)",
        "actor = actor || action, action = ''",
    ] {
        let found = after(&format!("UPDATE hodei_audit.record SET {change} WHERE seq = 7")).await;
        assert_eq!(found, (6, Some(Finding::Altered { row: 7 })), "{change}");
    }
}

#[tokio::test]
async fn a_row_that_was_removed_is_found() {
    for (before, row) in [(0, 1), (6, 7), (9, 10), (23, 24)] {
        let found = after(&format!("DELETE FROM hodei_audit.record WHERE seq = {row}")).await;
        assert_eq!(found, (before, Some(Finding::Missing { row })));
    }
}

#[tokio::test]
async fn rows_that_close_the_gap_of_a_removed_one_are_found() {
    let found = after(
        "DELETE FROM hodei_audit.record WHERE seq = 7;
         UPDATE hodei_audit.record SET seq = seq - 1 WHERE seq > 7",
    )
    .await;
    assert_eq!(found, (6, Some(Finding::Altered { row: 7 })));
}

#[tokio::test]
async fn a_row_that_was_made_up_is_found() {
    let copy = |seq: &str, from: i64| {
        format!(
            "INSERT INTO hodei_audit.record
             SELECT {seq}, at, tenant, 'mallory', action, subject, detail, link, seal FROM hodei_audit.record
             WHERE seq = {from}"
        )
    };
    for (seq, from, rows) in [("0", 1, 0), ("-5", 1, 0), ("-9223372036854775808", 1, 0), ("26", 25, 25)] {
        let found = after(&copy(seq, from)).await;
        assert_eq!(found, (rows, Some(Finding::Altered { row: seq.parse().unwrap() })));
    }
    // A second row of one number: one of the two is not what was written, and what comes after is not looked at.
    assert!(matches!(after(&copy("7", 7)).await.1, Some(Finding::Altered { row: 7 })));
    let pushed = format!("UPDATE hodei_audit.record SET seq = seq + 1 WHERE seq >= 7; {}", copy("7", 6));
    assert_eq!(after(&pushed).await, (6, Some(Finding::Altered { row: 7 })));
}

#[tokio::test]
async fn rows_that_changed_places_are_found() {
    let swapped = "UPDATE hodei_audit.record SET seq = CASE seq WHEN 7 THEN 8 ELSE 7 END WHERE seq IN (7, 8)";
    assert_eq!(after(swapped).await, (6, Some(Finding::Altered { row: 7 })));
}

#[tokio::test]
async fn an_end_that_was_cut_off_before_a_checkpoint_is_found() {
    let found = after("DELETE FROM hodei_audit.record WHERE seq > 14").await;
    assert_eq!(found, (14, Some(Finding::CutOff { row: 15, checkpoint: 20 })));
    let found = after("DELETE FROM hodei_audit.record").await;
    assert_eq!(found, (0, Some(Finding::CutOff { row: 1, checkpoint: 10 })));
}

#[tokio::test]
async fn an_end_that_was_cut_off_with_its_checkpoints_is_found_by_one_that_was_kept() {
    let trail = Trail::new().await;
    trail.audit.append(records(25)).await.unwrap();
    let kept = trail.audit.checkpoint().await.unwrap().to_string();
    let cut =
        "DELETE FROM hodei_audit.record WHERE seq > 14; DELETE FROM hodei_audit.checkpoint WHERE count > 14";
    trail.tamper(cut);
    assert!(trail.verify(&[]).await.is_sound(), "the database alone cannot tell");
    let report = trail.verify(&[kept.parse().unwrap()]).await;
    assert_eq!(report.finding, Some(Finding::CutOff { row: 15, checkpoint: 25 }));
    // Life goes on, and the trail grows beyond what was cut off.
    trail.audit.append(records(30)).await.unwrap();
    assert!(trail.verify(&[]).await.is_sound(), "the database alone cannot tell");
    let report = trail.verify(&[kept.parse().unwrap()]).await;
    assert_eq!(report.finding, Some(Finding::Rewritten { row: 25 }));
}

#[tokio::test]
async fn a_checkpoint_that_was_changed_or_made_up_is_found() {
    for change in [
        "count = 19",
        "at = at + 1",
        "head = set_byte(head, 0, get_byte(head, 0) # 1)",
        "signature = set_byte(signature, 0, get_byte(signature, 0) # 1)",
    ] {
        let (_, finding) =
            after(&format!("UPDATE hodei_audit.checkpoint SET {change} WHERE count = 20")).await;
        let checkpoint = if change == "count = 19" { 19 } else { 20 };
        assert_eq!(finding, Some(Finding::ForgedCheckpoint { checkpoint }), "{change}");
    }
    let beyond = "INSERT INTO hodei_audit.checkpoint SELECT 99, at, head, signature FROM hodei_audit.checkpoint WHERE count = 20";
    assert_eq!(after(beyond).await, (25, Some(Finding::ForgedCheckpoint { checkpoint: 99 })));
}

#[tokio::test]
async fn a_trail_that_was_written_anew_without_the_key_is_found() {
    let trail = Trail::new().await;
    trail.audit.append(records(15)).await.unwrap();
    trail.tamper("DELETE FROM hodei_audit.checkpoint");
    trail.write_anew(13, &records(3));
    let report = trail.verify(&[]).await;
    assert_eq!((report.rows, report.finding), (12, Some(Finding::Altered { row: 13 })));
}

#[tokio::test]
async fn nothing_is_written_behind_a_row_of_somebody_else_and_nothing_signed() {
    let trail = Trail::new().await;
    trail.audit.append(records(15)).await.unwrap();
    let stranger = open(&trail.database.url(), [1; 32]).await;
    for refused in [stranger.append(vec![record(1)]).await, stranger.checkpoint().await.map(drop)] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert!(trail.verify(&[]).await.is_sound(), "another key has done nothing");
    let tampered = [
        "UPDATE hodei_audit.record SET seq = 16 WHERE seq = 15",
        "UPDATE hodei_audit.record SET seq = 15, link = set_byte(link, 0, 1) WHERE seq = 16",
        "ALTER TABLE hodei_audit.record DROP CONSTRAINT record_link_check, DROP CONSTRAINT record_seal_check;
         UPDATE hodei_audit.record SET link = '', seal = '' WHERE seq = 15",
    ];
    let rewritten = || trail.write_anew(15, &records(1));
    let tampered = tampered.iter().map(|sql| -> Box<dyn Fn() + '_> { Box::new(|| trail.tamper(sql)) });
    for tamper in std::iter::once::<Box<dyn Fn() + '_>>(Box::new(rewritten)).chain(tampered) {
        tamper();
        let error = trail.audit.append(records(10)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(trail.audit.checkpoint().await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn what_no_column_takes_is_found_where_its_bounds_were_taken_away() {
    for (table, change, expected) in [
        ("record", "link = '\\x00' WHERE seq = 7", Finding::Altered { row: 7 }),
        ("record", "seal = NULL WHERE seq = 7", Finding::Altered { row: 7 }),
        ("record", "actor = NULL WHERE seq = 7", Finding::Altered { row: 7 }),
        ("record", "at = NULL WHERE seq = 1", Finding::Altered { row: 1 }),
        ("checkpoint", "head = '' WHERE count = 10", Finding::ForgedCheckpoint { checkpoint: 10 }),
        ("checkpoint", "signature = '' WHERE count = 10", Finding::ForgedCheckpoint { checkpoint: 10 }),
    ] {
        let bounds = "ALTER TABLE hodei_audit.record ALTER actor DROP NOT NULL, ALTER at DROP NOT NULL,
                 ALTER seal DROP NOT NULL, DROP CONSTRAINT record_link_check;
             ALTER TABLE hodei_audit.checkpoint DROP CONSTRAINT checkpoint_head_check,
                 DROP CONSTRAINT checkpoint_signature_check;";
        let (_, finding) = after(&format!("{bounds} UPDATE hodei_audit.{table} SET {change}")).await;
        assert_eq!(finding, Some(expected), "{change}");
    }
}
