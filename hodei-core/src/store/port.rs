//! The port of the jobs themselves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::cache_stats::CacheStats;
use super::change::{Change, ChangePage};
use super::coordination::{Coordination, Term};
use super::exchange::{Claimed, Exchange, Exchanged};
use super::feed::{ChangeSink, Feed};
use super::lane::{Before, Lane, Lanes, Served};
use super::policy::{Fired, Policies};
use super::query::{Counts, Cursor, Page, Query, Scope, SummaryStream};
use super::queue_counts::{QueueCounts, QueueQuery};
use super::wakeup::Wakeups;
use crate::error::Result;
use crate::id::{JobId, Name, Tenant};
use crate::job::{Job, Lease, NewJob, Output, State};
use crate::time::Timestamp;

/// How a batch is submitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubmitOptions {
    /// All or nothing: when one job is a conflict or is refused, none is stored. For pipelines.
    pub atomic: bool,
}

impl SubmitOptions {
    /// Each job for itself.
    #[must_use]
    pub const fn each() -> Self {
        Self { atomic: false }
    }

    /// All or nothing.
    #[must_use]
    pub const fn atomic() -> Self {
        Self { atomic: true }
    }
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Submitted {
    /// It is stored.
    New(JobId),
    /// The same submission was stored before, under this id.
    Existing(JobId),
    /// Another submission has its id or its unique key: the job of this id.
    Conflict(JobId),
    /// It was not stored.
    Refused(Refusal),
}

impl Submitted {
    /// Returns the id of the stored job that answers to this submission.
    #[must_use]
    pub const fn stored(&self) -> Option<JobId> {
        match self {
            Self::New(id) | Self::Existing(id) => Some(*id),
            Self::Conflict(_) | Self::Refused(_) => None,
        }
    }
}

/// The replies of a write, and every change that it committed, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<R> {
    /// One reply per item asked for, in order.
    pub replies: Vec<R>,
    /// What it changed, be it recorded or not; the sinks were told the same.
    pub changes: Vec<Change>,
}

impl<R> Default for Committed<R> {
    fn default() -> Self {
        Self { replies: Vec::new(), changes: Vec::new() }
    }
}

/// Why a submission was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// It breaks a rule of [`NewJob::check`].
    Invalid,
    /// One of its parents is no job of its tenant: neither stored nor taken earlier in the batch.
    UnknownParent(JobId),
    /// Another job of an atomic batch was not taken.
    Together,
    /// The tenant has as many unsettled jobs as it may. The bound of the whole store is no refusal but the error
    /// `Full`.
    TooMany,
}

/// What became of a request to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelReply {
    /// It is cancelled.
    Cancelled,
    /// It runs; its owner will stop it.
    Requested,
    /// It had ended before.
    AlreadyTerminal,
    /// There is no such job in scope.
    NotFound,
}

/// What became of a request to send a job round again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Redriven {
    /// It waits for a worker again.
    Done,
    /// It is neither failed nor cancelled.
    NotTerminal,
    /// It succeeded; that is not undone.
    Succeeded,
    /// Others of its sequence that were submitted after it have not ended.
    OutOfTurn,
    /// It failed or was cancelled, which freed its unique key, and another job has that by now: the job of this id.
    KeyTaken(JobId),
    /// There is no such job in scope.
    NotFound,
}

/// What a reaping did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Every change that it committed.
    pub changes: Vec<Change>,
    /// Whether it stopped at the limit with work left.
    pub more: bool,
    /// Whether the caller's term is over; nothing was done.
    pub term_lost: bool,
    /// Whether a part of the store did not answer: nobody tells whether it committed, and what.
    pub partial: bool,
}

/// What to keep of terminal jobs and of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long a terminal job is kept, and with it its keys; at least [`Retention::KEYS_MIN`].
    pub jobs: Duration,
    /// How long a failed job is kept, where that is another time: the dead letter may be looked at later.
    pub failed: Option<Duration>,
    /// How many terminal jobs of a tenant are kept in each state. Beyond it the oldest go first, though none before
    /// [`Retention::KEYS_MIN`].
    pub most: u64,
    /// How many changes are kept.
    pub changes: u64,
}

impl Retention {
    /// How long keys are kept at least: 24 h.
    pub const KEYS_MIN: Duration = Duration::from_secs(24 * 3_600);

    /// Returns how long a job is kept that ended in a state.
    #[must_use]
    pub fn age(&self, state: State) -> Duration {
        let age = if state == State::Failed { self.failed.unwrap_or(self.jobs) } else { self.jobs };
        age.max(Self::KEYS_MIN)
    }
}

impl Default for Retention {
    /// Seven days of jobs, however many, and ten million changes.
    fn default() -> Self {
        Self { jobs: Duration::from_secs(7 * 24 * 3_600), failed: None, most: u64::MAX, changes: 10_000_000 }
    }
}

/// What a pruning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many jobs were removed.
    pub jobs: u64,
    /// Which they were and whose, for those who keep something of them elsewhere: their logs.
    pub gone: Vec<(Tenant, JobId)>,
    /// How many changes were removed.
    pub changes: u64,
    /// Whether it stopped at the limit with work left.
    pub more: bool,
    /// Whether the caller's term is over; nothing was done.
    pub term_lost: bool,
    /// Whether a part of the store did not answer: nobody tells whether it committed, and what.
    pub partial: bool,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// As of the last commit.
    #[default]
    Latest,
    /// At most this old.
    Cached(Duration),
}

/// What a store can promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether an acknowledged write survives the death of the process and a power cut.
    pub durable: bool,
    /// Whether only one process can hold it: whoever opens it knows that all earlier owners are dead.
    pub exclusive: bool,
    /// Whether tenants share a transaction and one order of changes. Where they do not, an atomic batch is of one
    /// tenant (another is `Invalid`, `jobs: several_tenants`), the change log is in the order of the commits tenant by
    /// tenant, and the bound of the store and that of the changes kept hold for each of its shards.
    pub spans_tenants: bool,
    /// Whether it holds a limit of the whole store, [`LimitOf::All`](super::LimitOf::All).
    pub limits_all: bool,
    /// Whether limits may have a [`Rate`](super::Rate).
    pub rates: bool,
}

/// What a store has done since it was opened. Budgets are held by counting, not by timing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Transactions committed.
    pub commits: u64,
    /// Commits that were synced to disk.
    pub syncs: u64,
    /// Rows written or removed, index rows included.
    pub rows_written: u64,
    /// Rows read by point or range.
    pub rows_read: u64,
    /// Bytes of the rows written.
    pub bytes_written: u64,
    /// What the cache before it has done, the outermost where there are several; nothing where there is none.
    /// [`CacheStats::hit_ratio`] and [`CacheStats::staleness`] are read from it.
    pub cache: Option<CacheStats>,
}

/// The jobs of a store.
///
/// A crash before a write returns may have kept it or not, always whole; a crash after it returned `Ok` keeps it
/// where [`Capabilities::durable`] says so. Every write can therefore be repeated, and a repetition is told apart.
///
/// # Cancel safety
///
/// A dropped write is as one before whose reply the node crashed: it may have happened, whole, and is to be repeated.
/// Reads may be dropped at any point.
#[async_trait]
pub trait JobStore: Send + Sync + fmt::Debug {
    /// Returns what the store can promise.
    fn capabilities(&self) -> Capabilities;

    /// Returns what it has done since it was opened.
    fn stats(&self) -> StoreStats;

    /// Stores jobs. An `Ok` is the acknowledgement: a durable store has synced them.
    ///
    /// # Behavior
    ///
    /// One reply per job, in order. Parents may stand earlier in the same batch; one that was refused there is no
    /// parent. A job with the id of a stored one, or else with the unique key that one holds
    /// ([`Job::held_key`](crate::job::Job::held_key)), is `Existing` when their fingerprints
    /// are equal, else `Conflict`; jobs earlier in the batch count as stored, and as waiting. A job is told at once of the parents
    /// that have settled already.
    ///
    /// A job of a sequence ([`JobSpec::sequence`](crate::job::JobSpec::sequence)) has its turn behind the one of its tenant
    /// that was stored last, which becomes a parent of its record, by [`rules::admit_behind`](crate::job::rules::admit_behind).
    /// It is told of that one's end when that one has had its own turn.
    ///
    /// An atomic batch is stored whole or not at all. Where one job is a conflict or is refused, those that would have
    /// been new are [`Refusal::Together`] and the others keep their replies; `Existing` spoils nothing.
    ///
    /// Two bounds are held here, and only here: that of a tenant's unsettled jobs refuses job by job
    /// ([`Refusal::TooMany`]); that of the store, over all jobs kept, fails the batch (`Full`). What a run spawns and
    /// what a schedule fires counts against both and is stopped by neither, so that no end of a run is lost for want
    /// of room.
    ///
    /// # Errors
    ///
    /// `Full`: the new jobs of the batch have no room, and none of it is stored. `Unavailable`, `Indeterminate`:
    /// nothing is known to be stored. Submit the same jobs again, after `Full` when something was pruned.
    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>>;

    /// Returns the heads of the lanes with ready work.
    ///
    /// # Behavior
    ///
    /// Jobs whose deadline has passed stay in their lanes, counted but not claimed, until they are reaped.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn lanes(&self, served: &Served) -> Result<Lanes>;

    /// Says how many ready jobs come before a job that is ready, in its lane and over all lanes, counting up to `most`.
    ///
    /// # Behavior
    ///
    /// Where the job stands is taken from the record that is given. What is provided counts by the heads of the lanes, and
    /// says that there may be more; a store that keeps its lanes in order counts exactly.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn before(&self, job: &Job, most: u64) -> Result<Before> {
        let (own, level) = (Lane::of(job), job.spec.priority());
        let mut before = Before { more: true, ..Before::default() };
        for head in self.lanes(&Served::default()).await?.heads {
            if head.level > level {
                before.add(head.lane == own, head.depth);
            }
        }
        Ok(before.up_to(most))
    }

    /// Applies transitions, then claims, in one transaction.
    ///
    /// # Behavior
    ///
    /// Settling a job frees its limits, tells its children, and then submits what it spawned, all in the same
    /// transaction. An edge tells its child once: a parent that settles again, after a redrive, tells nobody twice.
    /// A spawned job that would not be new is left out; the end of a run stands whatever it asked for.
    ///
    /// Claims honour pauses and limits exactly, those of the same exchange included, and leave jobs whose deadline has
    /// passed. What they take of rates is written with them. After a lost reply: send the transitions again, and ask [`JobStore::leases_of`] for the claims.
    ///
    /// Where no lane that is picked has limits a store may apply the transitions in one transaction and claim in another
    /// beside it: then what they make ready may be left to the next exchange.
    ///
    /// # Errors
    ///
    /// Only those of the store itself; then nothing was applied, or with `Indeterminate` perhaps everything or a part.
    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged>;

    /// Asks for the end of jobs.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>>;

    /// Returns what an owner holds in this incarnation, by id, dead or alive; for after a lost reply.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>>;

    /// Sends failed and cancelled jobs round again: the dead letter's way back.
    ///
    /// # Behavior
    ///
    /// One reply per job, in order; what an earlier one took is taken. A job takes the unique key again that its end freed,
    /// or stays as it is when another one holds that.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>>;

    /// Takes jobs back from dead owners and fails pending ones whose deadline has passed, at most `limit` in all.
    ///
    /// # Behavior
    ///
    /// That an owner is dead is decided inside the transaction. `lost_max` losses fail a job for good. Children that
    /// are told of an end are not counted. [`Reaped::more`] is exact, but for jobs that only this reap made late (it
    /// released them, or told them of their last parent): they may wait for the next one.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped>;

    /// Submits the job of a schedule for a fire time, exactly once for each pair.
    ///
    /// # Behavior
    ///
    /// Fire times only go forward: one that is not later than the last is `Already`. The job is that of
    /// [`Schedule::job`](super::Schedule::job): where its key is taken, by the same fire time of a schedule that was
    /// removed since or by anybody else, the time counts as fired and the reply is `Already` too.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired>;

    /// Removes what retention no longer keeps: at most `limit` jobs, and changes at least as fast as so many jobs bring
    /// them, which a store that keeps many in a row removes by rows.
    ///
    /// # Behavior
    ///
    /// What one call touches is bounded by `limit`, whatever jobs have for children; what it leaves is
    /// [`Pruned::more`].
    ///
    /// A terminal job goes only when all its children are terminal and it has had its turn in its sequence. What is kept of
    /// such children forgets it: a child that is redriven later is claimed without that parent's output. Rows of dead owners
    /// that hold nothing may go too.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned>;

    /// Reads jobs in full, one reply per id, in order.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn get_many(
        &self,
        scope: &Scope,
        jobs: Vec<JobId>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Job>>>;

    /// Lists jobs, a page at a time.
    ///
    /// # Errors
    ///
    /// `Invalid` for a limit of 0 or above [`Query::LIMIT_MAX`], and for a cursor that no list of jobs has given.
    async fn query(&self, scope: &Scope, query: Query) -> Result<Page>;

    /// Lists all jobs of a query in batches of at most its limit, in bounded memory. After an error it ends.
    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream;

    /// Reads outputs, one reply per id, in order; `None` where the job is unknown or has not succeeded.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>>;

    /// Returns how many jobs are in each state.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn counts(&self, scope: &Scope) -> Result<Counts>;

    /// Returns how many jobs of each queue are in each state, in the order of tenant and queue, a page at a time.
    ///
    /// # Behavior
    ///
    /// As exact as [`JobStore::counts`], which are their sums. A queue that has no job at all has no row. A page of
    /// fewer than the limit is the last.
    ///
    /// # Performance
    ///
    /// No job is looked at: what one queue of a tenant costs, or a page, does not grow with the jobs.
    ///
    /// # Errors
    ///
    /// `Invalid` for a limit of 0 or above [`Query::LIMIT_MAX`].
    async fn queue_counts(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>>;

    /// Reads recorded changes in the order of their commits, at most `limit`; without a cursor from the oldest kept.
    ///
    /// # Behavior
    ///
    /// The order is that of the changes in the replies, and within a job that of its versions.
    ///
    /// # Errors
    ///
    /// `CursorExpired` when retention has removed what would follow; `Invalid` for a limit of 0 and for a cursor that
    /// no list of changes has given.
    async fn changes(&self, scope: &Scope, after: Option<Cursor>, limit: usize) -> Result<ChangePage>;

    /// Returns the cursor that waits for the next change.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn changes_end(&self) -> Result<Cursor>;

    /// Returns a stream that wakes whoever waits for ready work or for cancellations.
    fn wakeups(&self) -> Wakeups;

    /// Tells a sink of every change that is committed from now on, by whomever, until the [`Feed`] is dropped.
    ///
    /// # Behavior
    ///
    /// The order is that of the commits, which is that of the change log; each change is told once, recorded or not,
    /// after it is durable and before its caller is answered. There may be several sinks. What became of a commit that
    /// ended `Indeterminate` is not told: the next version of its jobs shows the gap, and the change log fills it.
    ///
    /// # Performance
    ///
    /// Costs nothing while there is no sink. A sink that takes its time holds up every writer.
    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed;

    /// Compares every index with the rows it is made of, and returns what contradicts; empty when all is well.
    ///
    /// Reads everything: for tests and repairs.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn verify_indexes(&self) -> Result<Vec<String>>;
}

/// Everything that a store is.
pub trait Store: JobStore + Coordination + Policies {}

impl<S: JobStore + Coordination + Policies + ?Sized> Store for S {}

const _: fn(&dyn JobStore) = |_| ();
const _: fn(&dyn Store) = |_| ();
