//! The rows. A field is only ever added with a new schema number in the first byte.

use bincode::{BorrowDecode, Decode, Encode};
use hodei_core::Result;
use hodei_core::job::Held;

use crate::error::corrupt;

/// Sixteen bytes of an id or a fingerprint.
pub(super) type Id = [u8; 16];
/// Seconds and nanoseconds.
pub(super) type Wait = (u64, u32);

/// Other jobs may wait for it.
const CHILDREN: u8 = 1;
/// In which states it holds its unique key: none of them where it holds it until it is pruned.
const KEYS: [(Held, u8); 4] =
    [(Held::UntilPruned, 0), (Held::WhileOpen, 2), (Held::UnlessFailed, 4), (Held::WhileWaiting, 6)];

/// Says of a job whether others may wait for it, and in which states it holds its key.
pub(super) fn marks_of(has_children: bool, key: Held) -> u8 {
    let key = KEYS.iter().find(|(held, _)| *held == key).map_or(0, |(_, mark)| *mark);
    if has_children { key | CHILDREN } else { key }
}

/// What is said of a job: whether others may wait for it, and in which states it holds its key.
pub(super) fn marks(marks: u8) -> Result<(bool, Held)> {
    let key = KEYS.iter().find(|(_, mark)| *mark == marks & !CHILDREN).map(|(held, _)| *held);
    Ok((marks & CHILDREN != 0, key.ok_or_else(|| corrupt("row.decode", "unknown marks"))?))
}

/// What moves of a job, of schema 2.
#[derive(Encode, BorrowDecode)]
pub(super) struct HeadRow<'a> {
    pub(super) tenant: &'a str,
    pub(super) name: &'a str,
    pub(super) queue: &'a str,
    pub(super) limit_keys: &'a str,
    pub(super) class: u64,
    pub(super) priority: u8,
    pub(super) pipeline: Option<Id>,
    pub(super) created_at: i64,
    pub(super) deadline: Option<i64>,
    pub(super) state: u8,
    pub(super) cause: u8,
    pub(super) cancel_requested: bool,
    pub(super) version: u32,
    pub(super) attempt: u32,
    pub(super) waits_for: u32,
    pub(super) lost_count: u16,
    pub(super) generation: u16,
    pub(super) epoch: u64,
    pub(super) eligible_at: i64,
    pub(super) moved_at: i64,
    pub(super) started_at: Option<i64>,
    pub(super) lease: Option<(&'a str, u64)>,
    pub(super) batch: u64,
    /// As [`marks_of`] says.
    pub(super) marks: u8,
    pub(super) has_end: bool,
}

/// What a job is born with, of schema 2. What lists show comes first, what is to be done last.
#[derive(Encode, BorrowDecode)]
pub(super) struct BornRow<'a> {
    pub(super) fingerprint: Id,
    pub(super) spec_fingerprint: Id,
    pub(super) batch: u64,
    pub(super) tenant: &'a str,
    pub(super) name: &'a str,
    pub(super) queue: &'a str,
    pub(super) limit_keys: &'a str,
    pub(super) class: u64,
    pub(super) priority: u8,
    pub(super) pipeline: Option<Id>,
    pub(super) created_at: i64,
    pub(super) eligible_at: i64,
    pub(super) deadline: Option<i64>,
    pub(super) unique: Option<&'a str>,
    pub(super) parents: Vec<(Id, u8)>,
    /// A [`WorkRow`], which need not be decoded when the spec is known by its fingerprint.
    pub(super) work: &'a [u8],
}

/// What of a spec no list shows.
#[derive(Encode, BorrowDecode)]
pub(super) struct WorkRow<'a> {
    pub(super) payload: PayloadRow<'a>,
    pub(super) resources: ResourcesRow<'a>,
    pub(super) timeout: Option<Wait>,
    pub(super) retry: Option<RetryRow>,
    pub(super) labels: &'a str,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct SpecRow<'a> {
    pub(super) class: u64,
    pub(super) fingerprint: Id,
    pub(super) name: &'a str,
    pub(super) queue: &'a str,
    pub(super) payload: PayloadRow<'a>,
    pub(super) resources: ResourcesRow<'a>,
    pub(super) priority: u8,
    pub(super) timeout: Option<Wait>,
    pub(super) retry: Option<RetryRow>,
    pub(super) labels: &'a str,
    pub(super) limit_keys: &'a str,
}

#[derive(Encode, BorrowDecode)]
pub(super) enum PayloadRow<'a> {
    Handler { kind: &'a str, version: u16, encoding: u8, args: &'a [u8] },
    Command { argv: &'a str, env: &'a str, more: Option<MoreRow<'a>> },
}

#[derive(Encode, BorrowDecode)]
pub(super) struct MoreRow<'a> {
    pub(super) secrets: &'a str,
    pub(super) cwd: Option<&'a str>,
    pub(super) image: Option<&'a str>,
    pub(super) outputs: &'a str,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct ResourcesRow<'a> {
    pub(super) cpu_millis: u64,
    pub(super) memory: u64,
    pub(super) gpus: u32,
    pub(super) custom: Vec<(&'a str, u64)>,
}

#[derive(Clone, Copy, Encode, Decode)]
pub(super) enum BackoffRow {
    Fixed(Wait),
    Linear { step: Wait, max: Wait },
    Exponential { base: Wait, max: Wait },
}

#[derive(Encode, Decode)]
pub(super) struct RetryRow {
    pub(super) max_attempts: u32,
    pub(super) backoff: BackoffRow,
    pub(super) jitter: bool,
    /// The class, and the backoff unless it is never retried.
    pub(super) rules: Vec<(u8, Option<BackoffRow>)>,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct EndRow<'a> {
    pub(super) at: i64,
    pub(super) outcome: OutcomeRow<'a>,
    pub(super) output: OutputRow<'a>,
    pub(super) manifest: Option<ManifestRow<'a>>,
}

#[derive(Encode, BorrowDecode)]
pub(super) enum OutcomeRow<'a> {
    Succeeded,
    Failed { class: u8, message: &'a str, exit: Option<ExitRow> },
    Cancelled,
}

#[derive(Encode, Decode)]
pub(super) enum ExitRow {
    Code(i32),
    Signal(i32),
}

#[derive(Encode, BorrowDecode)]
pub(super) enum OutputRow<'a> {
    Inline(&'a [u8]),
    Blob(BlobRow<'a>),
}

#[derive(Encode, BorrowDecode)]
pub(super) struct BlobRow<'a> {
    pub(super) key: &'a str,
    pub(super) len: u64,
    pub(super) digest: [u8; 32],
}

#[derive(Encode, BorrowDecode)]
pub(super) struct ManifestRow<'a> {
    /// Stream, bytes kept, bytes dropped, checksum.
    pub(super) logs: Vec<(u8, u64, u64, u32)>,
    pub(super) artifacts: Vec<(&'a str, BlobRow<'a>)>,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct ChangeRow<'a> {
    pub(super) job: Id,
    pub(super) tenant: &'a str,
    pub(super) pipeline: Option<Id>,
    pub(super) version: u32,
    pub(super) from: Option<u8>,
    pub(super) to: u8,
    pub(super) cause: u8,
    pub(super) attempt: u32,
    pub(super) epoch: u64,
    pub(super) at: i64,
}

/// Changes whose numbers follow one another; the key is the number of the first.
#[derive(Encode, BorrowDecode)]
pub(super) struct ChangesRow<'a> {
    pub(super) changes: Vec<ChangeRow<'a>>,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct CountsRow<'a> {
    pub(super) tenant: &'a str,
    pub(super) queue: &'a str,
    pub(super) counts: [u64; 7],
}

/// The jobs of a tenant that are not counted by queue, as schema 5 counted all of them.
#[derive(Encode, BorrowDecode)]
pub(super) struct UncountedRow<'a> {
    pub(super) tenant: &'a str,
    pub(super) counts: [u64; 7],
}

#[derive(Encode, BorrowDecode)]
pub(super) struct LimitRow<'a> {
    pub(super) tenant: &'a str,
    pub(super) key: &'a str,
    pub(super) max: u32,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct RateRow<'a> {
    pub(super) tenant: &'a str,
    pub(super) key: &'a str,
    pub(super) tokens: u32,
    pub(super) per_secs: u64,
    pub(super) per_nanos: u32,
    pub(super) burst: u32,
    pub(super) full_at_nanos: i64,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct QueueRow<'a> {
    pub(super) tenant: &'a str,
    pub(super) queue: &'a str,
    pub(super) paused: bool,
    pub(super) weight: u32,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct ScheduleRow<'a> {
    pub(super) tenant: &'a str,
    pub(super) name: &'a str,
    pub(super) rule: &'a str,
    pub(super) last_fired: Option<i64>,
    pub(super) spec: SpecRow<'a>,
}

/// What is needed of a parent, and whether the child was told of its end.
#[derive(Encode, Decode)]
pub(super) struct EdgeRow {
    pub(super) requires: u8,
    pub(super) told: bool,
}

/// An owner's row.
#[derive(Clone, Copy, Encode, Decode)]
pub(crate) struct OwnerRow {
    /// Which life of the owner.
    pub(crate) incarnation: u64,
    /// When it ends.
    pub(crate) expires_at: i64,
}

/// A term's row.
#[derive(Encode, BorrowDecode)]
pub(crate) struct TermRow<'a> {
    /// The fencing number.
    pub(crate) number: u64,
    /// Who leads.
    pub(crate) owner: &'a str,
    /// Which life of it.
    pub(crate) incarnation: u64,
    /// When the term ends.
    pub(crate) expires_at: i64,
}
