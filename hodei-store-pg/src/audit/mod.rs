//! The audit trail in PostgreSQL: rows that are only ever added, each sealed together with all before it.
//!
//! ```text
//!   append ──▶ queue ──▶ one writer, batches ──▶ row n: its texts, link(n) = BLAKE3(link(n - 1), n, texts),
//!                              │                         seal(n) = keyed BLAKE3(n, link(n))
//!                              └── every so many rows ──▶ checkpoint: (count, time, link(count)), signed; keep a copy elsewhere
//! ```
//!
//! The key of the trail, which the database never sees, is the key of the seals and the one that signs. Who can write to the
//! database but has no key cannot change, add, remove or swap a row so that [`PgAudit::verify`] does not name it. What such
//! a one can do is to cut off the end: rows after the last checkpoint unseen, and rows before it unless all checkpoints
//! that name them are gone too. So a checkpoint is worth most where the database cannot reach it.
//!
//! Whoever has the key could write with it, so seals prove the trail to its owner alone. Signatures prove it to anybody: with
//! [`PgAudit::public_key`], [`Checkpoint::is_signed_by`] says that a checkpoint is genuine, and [`PgAudit::verify_public`]
//! that the rows are those that it saw, as links are plain hashes that anybody can follow. What the public key cannot tell
//! are rows behind the last checkpoint, which nobody has signed for.
//!
//! A writer goes on only behind a row that has its seal: with it that row, and by its link each before it, was written with
//! the key. So nobody has a made-up row signed by putting it where the next one goes.
//!
//! Beside the seals stand triggers, which refuse every `UPDATE`, `DELETE` and `TRUNCATE`, even of the owner of the tables;
//! and a role that writes needs `SELECT` and `INSERT` alone.

mod chain;
mod checkpoint;
mod config;
mod hex;
mod public;
mod schema;
mod sink;
mod verify;
mod writer;

pub use checkpoint::Checkpoint;
pub use config::PgAuditBuilder;
pub use public::AuditPublicKey;
pub use sink::PgAudit;
pub use verify::{AuditReport, Finding};
