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

    /// What somebody finds who has the public key alone.
    pub(super) async fn verify_public(&self, kept: &[Checkpoint]) -> AuditReport {
        PgAudit::verify_public(&self.database.url(), &self.audit.public_key(), kept)
            .await
            .expect("the server answers")
    }

    /// Makes the links of `records` anew, as the rows from `first` on, behind the row before it: all that can be done without
    /// the key of the trail.
    pub(super) fn write_anew(&self, first: usize, records: &[AuditRecord]) {
        let before = format!("SELECT encode(link, 'hex') FROM hodei_audit.record WHERE seq = {}", first - 1);
        let before = self.sql(&before).expect("the server answers");
        let mut link = if before.is_empty() { "00".repeat(32) } else { before };
        let mut rows = Vec::new();
        for (seq, record) in (first..).zip(records) {
            let mut hasher = blake3::Hasher::new();
            hasher.update(blake3::Hash::from_hex(&link).expect("a link").as_bytes());
            hasher.update(&(seq as u64).to_le_bytes());
            hasher.update(&record.at().as_micros().to_le_bytes());
            hasher.update(&[u8::from(record.tenant().is_some())]);
            let tenant = record.tenant().map_or("", Tenant::as_str);
            let texts = [tenant, record.actor(), record.action().as_str(), record.subject(), record.detail()];
            for text in texts {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
            link = hasher.finalize().to_string();
            let [tenant, actor, action, subject, detail] = texts.map(|text| format!("$x${text}$x$"));
            let tenant = if record.tenant().is_some() { tenant } else { "NULL".to_owned() };
            let at = record.at().as_micros();
            rows.push(format!(
                "INSERT INTO hodei_audit.record VALUES ({seq}, {at}, {tenant}, {actor}, {action}, {subject},
                     {detail}, decode('{link}', 'hex'), decode('{link}', 'hex'));"
            ));
        }
        self.tamper(&format!("DELETE FROM hodei_audit.record WHERE seq >= {first}; {}", rows.concat()));
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
