//! The audit trail in PostgreSQL: rows that are only ever added, each sealed together with all before it.
//!
//! ```text
//!   append ──▶ queue ──▶ one writer, batches ──▶ row n: its texts, link(n) = keyed BLAKE3(link(n - 1), n, texts)
//!                              │
//!                              └── every so many rows ──▶ checkpoint: (count, link(count)), sealed; keep a copy elsewhere
//! ```
//!
//! The links and the seals are made with keys derived from one that the database never sees. Who can write to the
//! database but has no key cannot change, add, remove or swap a row so that [`PgAudit::verify`] does not name it. What such
//! a one can do is to cut off the end: rows after the last checkpoint unseen, and rows before it unless all checkpoints
//! that name them are gone too. So a checkpoint is worth most where the database cannot reach it.
//!
//! Whoever verifies needs the key and could write with it: the seals prove the trail to its owner, not to a third party.
//! Beside the seals stand triggers, which refuse every `UPDATE`, `DELETE` and `TRUNCATE`, even of the owner of the tables;
//! and a role that writes needs `SELECT` and `INSERT` alone.

mod chain;
mod checkpoint;
mod config;
mod schema;
mod sink;
mod verify;
mod writer;

pub use checkpoint::Checkpoint;
pub use config::PgAuditBuilder;
pub use sink::PgAudit;
pub use verify::{AuditReport, Finding};
