//! A trail in a database of its own, and one who can write to that database but has no key.

use std::time::Duration;

use hodei_core::security::AuditRecord;
use hodei_core::{Name, Tenant, Timestamp};
use hodei_store_pg::{AuditReport, Checkpoint, PgAudit};
use hodei_test_servers::{Database, Postgres};

pub(super) const KEY: [u8; 32] = [9; 32];

pub(super) struct Trail {
    pub(super) audit: PgAudit,
    pub(super) database: Database,
    postgres: &'static Postgres,
}

impl Trail {
    /// A trail that writes a checkpoint after every ten rows.
    pub(super) async fn new() -> Self {
        let postgres = Postgres::shared().expect("PostgreSQL starts");
        let database = postgres.database().expect("a database");
        let audit = open(&database.url(), KEY).await;
        Self { audit, database, postgres }
    }

    /// Runs SQL past the trail, as the owner of everything.
    pub(super) fn sql(&self, sql: &str) -> Result<String, String> {
        self.postgres.sql(self.database.name(), sql).map_err(|error| error.to_string())
    }

    /// Runs SQL as one who can switch off triggers and checks.
    pub(super) fn tamper(&self, sql: &str) {
        let checks = "ALTER TABLE hodei_audit.record DROP CONSTRAINT IF EXISTS record_pkey;
             SET session_replication_role = replica;";
        self.sql(&format!("{checks} {sql}")).expect("whoever owns the tables can do this");
    }

    pub(super) async fn verify(&self, kept: &[Checkpoint]) -> AuditReport {
        self.audit.verify(kept).await.expect("the server answers")
    }
}

pub(super) async fn open(url: &str, key: [u8; 32]) -> PgAudit {
    PgAudit::builder(url, key).checkpoint_every(10).connect().await.expect("the trail opens")
}

pub(super) fn record(n: usize) -> AuditRecord {
    let at = Timestamp::from_micros(1_750_000_000_000_000).saturating_add(Duration::from_micros(n as u64));
    let record = AuditRecord::new(at, format!("actor {n}"), Name::literal("job.cancel"));
    let record = record.subject(format!("job {n}")).detail("ñ | ' \\ \n");
    let record = if n.is_multiple_of(2) { record } else { record.tenant(Tenant::default()) };
    record.build().expect("a valid record")
}

pub(super) fn records(count: usize) -> Vec<AuditRecord> {
    (1..=count).map(record).collect()
}
