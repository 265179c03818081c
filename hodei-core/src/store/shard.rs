//! What a store must offer beside its verbs to stand under a [`ShardedStore`](super::ShardedStore).

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::coordination::Term;
use super::policy::{Limit, QueuePolicy, Schedule};
use super::port::Store;
use super::query::Cursor;
use super::rate::Spent;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, Name, Slot, Tenant};
use crate::job::{Job, Lease};
use crate::time::Timestamp;

/// After how long it makes sense to repeat a write to a slot that is on the move: 50 ms.
pub const SLOT_RETRY: Duration = Duration::from_millis(50);

/// A small named value that a store keeps for whoever stands above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How often it was written; the first time makes it 1.
    pub version: u64,
    /// What was written last.
    pub value: Bytes,
}

/// A store that can be a shard.
///
/// The first shard is the home: it keeps the map of slots, and it alone gives out incarnations and terms. The others
/// adopt them, so that each can fence leases and terms inside its own transactions.
///
/// # Cancel safety
///
/// A dropped write may have happened, whole; repeating it does no harm. Reads may be dropped at any point.
#[async_trait]
pub trait Shard: Store {
    /// Reads a note.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn note(&self, name: &Name) -> Result<Option<Note>>;

    /// Writes a note if its version is still `expected`, 0 for one that is not there; says whether it did.
    ///
    /// # Behavior
    ///
    /// As durable as everything else that the store acknowledges. A note is small: a map of slots is some
    /// 8 KiB, and 4 MiB when every slot has been everywhere.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn put_note(&self, name: &Name, expected: u64, value: Bytes) -> Result<bool>;

    /// Returns how long an owner still lives if nobody beats for it; nothing when it is dead.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn owner_life(&self, owner: &Lease) -> Result<Option<Duration>>;

    /// Enters an owner that the home has registered, under the home's incarnation; says whether it lives here now.
    ///
    /// # Behavior
    ///
    /// A life that has ended here stays ended, and an incarnation never falls: both are `false`, and change nothing.
    /// An owner that lives here already is prolonged. Incarnations given out here later are higher.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn adopt_owner(&self, owner: &Lease, ttl: Duration) -> Result<bool>;

    /// Returns how long a term still lasts if nobody keeps it; nothing when it is over.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn term_life(&self, term: &Term) -> Result<Option<Duration>>;

    /// Enters a term that the home has given out, or prolongs it; `false`, and nothing changed, when a later one is
    /// known here.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn adopt_term(&self, term: &Term, ttl: Duration) -> Result<bool>;

    /// Returns how slots move to and from this store; nothing when they cannot.
    fn relocate(&self) -> Option<&dyn Relocate>;
}

/// How a slot, all jobs and policies of its tenants, leaves one shard and comes to another.
///
/// A slot is open in a store that was never told otherwise. It leaves by `seal`, `export` and `close`, and it comes by
/// `import` and `open`. Every verb names the number of the move, which rises from move to move of a slot; a number
/// lower than the last one seen is refused as [`ErrorKind::Conflict`], and each verb can be repeated under its own.
///
/// | slot is | told by | reads | writes |
/// |---|---|---|---|
/// | open | `open_slot` | as ever | as ever |
/// | leaving | `seal_slot` | as ever | refused |
/// | arriving | `import_slot` | refused | refused |
/// | gone | `close_slot` | refused | refused |
///
/// *Refused* is [`slot_closed`], decided inside the transaction of the verb: for a transition it is
/// [`Applied::Unavailable`](super::Applied::Unavailable), for every other verb that names the slot, by the id of a job or
/// by a tenant, the error, and nothing of the batch happened. Verbs that name no slot pass over what is refused: lanes
/// of a slot that is not open are not shown, picks of them are not granted, its jobs are not reaped or pruned, and
/// rows of a slot that is arriving or gone are in no list and in no count. Recorded changes are the exception: they stay
/// in the log in which they were written, readable in any scope, because cursors that are out in the world point there.
///
/// What is said here is as durable as everything else that the store acknowledges.
///
/// # Cancel safety
///
/// A dropped write may have happened, whole; repeating it does no harm. Reads may be dropped at any point.
#[async_trait]
pub trait Relocate: Send + Sync + std::fmt::Debug {
    /// Seals an open slot: from now on its rows do not change, and the sinks were told of every change that they made.
    /// Returns the store's time.
    ///
    /// # Errors
    ///
    /// `Conflict`: the slot is neither open nor leaving by this move, or the number is lower than the last.
    async fn seal_slot(&self, slot: Slot, number: u64) -> Result<Timestamp>;

    /// Reads the rows of a sealed slot, about `limit` at a time, each row once.
    ///
    /// # Errors
    ///
    /// `Conflict`: the slot is not leaving by this move. `Invalid`: a limit of 0, a cursor of another list.
    async fn export_slot(
        &self,
        slot: Slot,
        number: u64,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<SlotBatch>;

    /// Keeps rows that come, where no verb sees them yet. Rows that came before by this move are replaced; what an
    /// earlier, abandoned move has left is forgotten.
    ///
    /// # Errors
    ///
    /// `Conflict`: the slot is neither arriving by this move nor gone nor open and empty, or the number is lower than the
    /// last. `Full`: there is no room.
    async fn import_slot(&self, slot: Slot, number: u64, rows: Vec<SlotRow>) -> Result<()>;

    /// Closes a slot that leaves, or gives up one that arrives, and removes its rows, about `limit` at a time; says
    /// whether rows are left. From the first call on they are seen by nobody. With a limit of 0 it need not remove any,
    /// and costs the same however many there are.
    ///
    /// # Errors
    ///
    /// `Conflict`: the slot is open, or the number is lower than the last.
    async fn close_slot(&self, slot: Slot, number: u64, limit: usize) -> Result<bool>;

    /// Opens a slot that arrives, with all its rows at once, or one that was to leave and stays.
    ///
    /// # Behavior
    ///
    /// Records, epochs, versions, keys and edges are as they were; limits count what is leased; what is ready wakes.
    ///
    /// # Errors
    ///
    /// `Conflict`: the slot is gone, or the number is lower than the last.
    async fn open_slot(&self, slot: Slot, number: u64) -> Result<()>;
}

/// Rows of a slot, and where to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotBatch {
    /// The rows.
    pub rows: Vec<SlotRow>,
    /// Where to go on; nothing at the end.
    pub next: Option<Cursor>,
}

/// A row of a slot, whole.
#[derive(Clone, Debug, PartialEq)]
pub enum SlotRow {
    /// A job: its record with all that indexes are made of, its unique key, its lease and its output among it.
    Job {
        /// The record.
        job: Box<Job>,
        /// The edges from its parents that are kept, and whether it was told of each parent's end.
        edges: Vec<(JobId, bool)>,
        /// Whether it is the last of its sequence: the next one has its turn behind it.
        last: bool,
    },
    /// How a queue is served.
    Queue(QueuePolicy),
    /// A limit, with what is spent of its rate. How much of it is used follows from the jobs.
    Limit(Limit, Spent),
    /// A schedule, with the time it fired last.
    Schedule(Schedule),
}

impl SlotRow {
    /// Returns the slot that the row belongs to; none for the limit of a whole store, which stays where it is.
    #[must_use]
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Self::Job { job, .. } => Some(job.id.slot()),
            Self::Queue(row) => Some(row.tenant.slot()),
            Self::Limit(row, _) => row.of.tenant().map(Tenant::slot),
            Self::Schedule(row) => Some(row.tenant.slot()),
        }
    }
}

/// Makes the error of a verb that names a slot which is not open here: `Unavailable`, with the slot as its context.
#[must_use]
pub fn slot_closed(op: &'static str, slot: Slot) -> Error {
    Error::new(ErrorKind::Unavailable, op).with("slot", slot.number()).retry_after(SLOT_RETRY)
}

/// Says whether an error is that of [`slot_closed`].
#[must_use]
pub fn is_slot_closed(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable && error.context("slot").is_some()
}

const _: fn(&dyn Shard) = |_| ();
const _: fn(&dyn Relocate) = |_| ();
