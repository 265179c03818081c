//! What the database itself refuses.

use hodei_core::ErrorKind;
use hodei_core::security::AuditSink;
use hodei_store_pg::PgAudit;

use super::world::{KEY, Trail, open, record, records};

#[tokio::test]
async fn nobody_changes_a_row_not_even_the_owner() {
    let trail = Trail::new().await;
    trail.audit.append(records(10)).await.unwrap();
    for table in ["record", "checkpoint"] {
        for sql in ["UPDATE hodei_audit.# SET at = 0", "DELETE FROM hodei_audit.#", "TRUNCATE hodei_audit.#"]
        {
            let error = trail.sql(&sql.replace('#', table)).unwrap_err();
            assert!(error.contains("only ever added to"), "{sql}: {error}");
        }
    }
    let report = trail.verify(&[]).await;
    assert!(report.is_sound() && report.rows == 10 && report.checkpoints == 1, "{report}");
}

#[tokio::test]
async fn a_role_that_writes_needs_no_more_than_to_read_and_to_add() {
    let trail = Trail::new().await;
    let role = format!("writer_{}", trail.database.name());
    let grants = "CREATE ROLE # LOGIN PASSWORD 'p';
         GRANT USAGE ON SCHEMA hodei_audit TO #;
         GRANT SELECT, INSERT ON hodei_audit.record, hodei_audit.checkpoint TO #;
         GRANT SELECT ON hodei_audit.step TO #";
    trail.sql(&grants.replace('#', &role)).unwrap();
    let writer = open(&trail.database.url_as(&role, "p"), KEY).await;
    writer.append(records(12)).await.unwrap();
    assert_eq!(writer.checkpoint().await.unwrap().count(), 12);
    assert!(writer.verify(&[]).await.unwrap().is_sound());
    for sql in [
        "UPDATE hodei_audit.record SET at = 0",
        "DELETE FROM hodei_audit.record",
        "TRUNCATE hodei_audit.checkpoint",
        "ALTER TABLE hodei_audit.record DISABLE TRIGGER ALL",
        "DROP TABLE hodei_audit.record",
        "SET session_replication_role = replica",
    ] {
        let error = trail.sql(&format!("SET ROLE {role}; {sql}")).unwrap_err();
        assert!(error.contains("permission denied") || error.contains("must be owner"), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_stranger_may_not_even_read() {
    let trail = Trail::new().await;
    trail.audit.append(vec![record(1)]).await.unwrap();
    let role = format!("stranger_{}", trail.database.name());
    trail.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'p'")).unwrap();
    let opened = PgAudit::builder(trail.database.url_as(&role, "p"), KEY).connect().await;
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn tables_of_another_version_are_left_alone() {
    let trail = Trail::new().await;
    for (step, kind) in [(1, ErrorKind::Corrupt), (3, ErrorKind::SchemaTooNew)] {
        trail.sql(&format!("UPDATE hodei_audit.step SET version = {step}")).unwrap();
        let opened = PgAudit::builder(trail.database.url(), KEY).connect().await;
        assert_eq!(opened.unwrap_err().kind(), kind);
        let key = trail.audit.public_key();
        let read = PgAudit::verify_public(&trail.database.url(), &key, &[]).await;
        assert_eq!(read.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn nodes_that_start_together_make_one_trail() {
    let database = hodei_test_servers::Postgres::shared().unwrap().database().unwrap();
    let nodes = (0..6).map(|_| {
        let url = database.url();
        tokio::spawn(async move { open(&url, KEY).await.append(vec![record(1)]).await })
    });
    for node in nodes.collect::<Vec<_>>() {
        node.await.unwrap().unwrap();
    }
    let report = open(&database.url(), KEY).await.verify(&[]).await.unwrap();
    assert!(report.is_sound() && report.rows == 6, "{report}");
}
