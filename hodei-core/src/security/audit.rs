//! The port of the audit trail: who did what, when, to what.

use std::fmt;

use async_trait::async_trait;

use crate::error::{Error, Fault, Result};
use crate::id::{Name, Tenant};
use crate::time::Timestamp;

/// The longest actor and subject, in bytes.
pub const AUDIT_NAME_MAX: usize = 512;
/// The longest detail, in bytes.
pub const AUDIT_DETAIL_MAX: usize = 16 * 1024;

/// Something that somebody did, or was refused to do.
///
/// It is written down as it is: whoever makes one masks secrets first.
///
/// ```
/// use hodei_core::security::AuditRecord;
/// use hodei_core::{Name, Timestamp};
///
/// let record = AuditRecord::new(Timestamp::EPOCH, "ana@example.org", Name::literal("job.cancel"))
///     .subject("job 0197-4a")
///     .detail("asked for by its owner")
///     .build()?;
/// assert_eq!(record.actor(), "ana@example.org");
/// # Ok::<(), hodei_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    at: Timestamp,
    tenant: Option<Tenant>,
    actor: String,
    action: Name,
    subject: String,
    detail: String,
}

/// Sets up an [`AuditRecord`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct AuditRecordBuilder(AuditRecord);

impl AuditRecord {
    /// Begins a record: when it was done, by whom, and what.
    #[expect(clippy::new_ret_no_self, reason = "its texts are checked once all are there")]
    pub fn new(at: Timestamp, actor: impl Into<String>, action: Name) -> AuditRecordBuilder {
        let (subject, detail) = (String::new(), String::new());
        AuditRecordBuilder(Self { at, tenant: None, actor: actor.into(), action, subject, detail })
    }

    /// Returns when it was done, by the clock of whoever wrote it down.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// Returns whose it is; nothing where it concerns the whole system.
    #[must_use]
    pub const fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// Returns who did it.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// Returns what was done.
    #[must_use]
    pub const fn action(&self) -> &Name {
        &self.action
    }

    /// Returns what it was done to.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns what else is to be known.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl AuditRecordBuilder {
    /// Says whose it is. Default: the whole system's.
    pub fn tenant(mut self, tenant: Tenant) -> Self {
        self.0.tenant = Some(tenant);
        self
    }

    /// Says what it was done to. Default: nothing.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.0.subject = subject.into();
        self
    }

    /// Says what else is to be known. Default: nothing.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = detail.into();
        self
    }

    /// Makes the record.
    ///
    /// # Errors
    ///
    /// `Invalid` for an empty actor, for a text that holds a NUL, and for one that is longer than [`AUDIT_NAME_MAX`] or
    /// [`AUDIT_DETAIL_MAX`].
    pub fn build(self) -> Result<AuditRecord> {
        let record = self.0;
        let mut faults = Vec::new();
        if record.actor.is_empty() {
            faults.push(Fault::new("actor", "empty"));
        }
        let texts = [
            ("actor", &record.actor, AUDIT_NAME_MAX),
            ("subject", &record.subject, AUDIT_NAME_MAX),
            ("detail", &record.detail, AUDIT_DETAIL_MAX),
        ];
        for (field, text, max) in texts {
            if text.len() > max {
                faults.push(Fault::new(field, "too_long").limit(max as u64));
            }
            if text.contains('\0') {
                faults.push(Fault::new(field, "nul"));
            }
        }
        if faults.is_empty() { Ok(record) } else { Err(Error::invalid("audit.record", faults)) }
    }
}

/// Where records go that nobody may change afterwards.
#[async_trait]
pub trait AuditSink: Send + Sync + fmt::Debug {
    /// Adds records, in order, after all that were added before: all of them or none. When it returns they are durable.
    ///
    /// # Errors
    ///
    /// Those of where they go. After `Indeterminate` they may be there or not; who appends them again may find them twice,
    /// which a trail bears better than a gap.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped may have added the records or not.
    async fn append(&self, records: Vec<AuditRecord>) -> Result<()>;
}

const _: fn(&dyn AuditSink) = |_| ();

/// Keeps no trail.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAudit;

#[async_trait]
impl AuditSink for NoAudit {
    async fn append(&self, _records: Vec<AuditRecord>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(actor: &str, subject: &str, detail: &str) -> Vec<String> {
        let record = AuditRecord::new(Timestamp::EPOCH, actor, Name::literal("a"));
        match record.subject(subject).detail(detail).build() {
            Ok(_) => Vec::new(),
            Err(error) => error.faults().iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_record_is_checked_where_it_is_made() {
        let long = "x".repeat(AUDIT_DETAIL_MAX + 1);
        assert_eq!(faults("a", "", &long[1..]), Vec::<String>::new());
        assert_eq!(faults("", "", ""), ["actor: empty"]);
        assert_eq!(faults("a\0", "s\0", "d\0"), ["actor: nul", "subject: nul", "detail: nul"]);
        assert_eq!(
            faults(&long[..=AUDIT_NAME_MAX], "", &long),
            ["actor: too_long (limit 512)", "detail: too_long (limit 16384)"]
        );
    }
}
