//! The audit trail: written by many at once, only ever added to, and every tampering is named with its row.

mod appends;
mod forbidden;
mod signed;
mod tampering;
mod world;
