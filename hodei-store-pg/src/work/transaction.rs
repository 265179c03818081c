//! What a transaction knows and has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use hodei_core::job::{Job, Lease, State};
use hodei_core::store::Change;
use hodei_core::{JobId, Result, Tenant, Timestamp};
use sqlx::postgres::PgConnection;

use super::edges::Edges;
use crate::inner::Inner;
use crate::names::LaneRow;
use crate::pool::{At, Conn};
use crate::tell::Segment;

/// What is done in a transaction. It may be done again from its beginning, in another transaction.
#[async_trait]
pub(crate) trait Verb: Send {
    type Reply: Send;

    /// Does what must be outside of the transaction, before each of its tries: lanes are made here, whose numbers are
    /// remembered whatever becomes of the transaction.
    async fn prepare(&mut self, inner: &Inner, conn: &mut Conn) -> Result<()> {
        let (_, _) = (inner, conn);
        Ok(())
    }

    /// The tenant behind whose wall it is done.
    fn tenant(&self) -> Option<&Tenant> {
        None
    }

    /// Does it.
    async fn run(&mut self, work: &mut Work<'_>) -> Result<Self::Reply>;
}

/// A transaction under way.
#[derive(Debug)]
pub(crate) struct Work<'c> {
    pub(super) inner: Arc<Inner>,
    /// Where it is made.
    pub(crate) at: At,
    pub(crate) conn: &'c mut PgConnection,
    /// Who is written down for its changes: this process, which tells its sinks of them itself, or nobody.
    pub(super) node: i64,
    pub(crate) now: Timestamp,
    pub(super) entries: HashMap<JobId, Entry>,
    /// The rows of owners to whom leases are handed, held until the end.
    pub(super) holders: HashMap<Lease, i32>,
    /// Ids of which there is no job.
    pub(super) missing: HashSet<JobId>,
    /// Who waits for whom.
    pub(super) edges: Edges,
    /// The last job of each sequence whose row is held; nothing where there is none.
    pub(super) sequences: BTreeMap<(Tenant, String), Option<JobId>>,
    /// The sequences whose last job is another one now, or that have none.
    pub(super) lined_up: BTreeSet<(Tenant, String)>,
    /// Jobs that ended before their turn, where no history is kept.
    pub(super) early: HashSet<JobId>,
    pub(super) changes: Vec<(i32, Change)>,
    /// What was committed in it, in the order of the log.
    pub(crate) segments: Vec<Segment>,
    /// Whether it made work ready, or somebody must look at something.
    pub(crate) readied: bool,
    pub(crate) rows: u64,
}

/// A job that the transaction holds.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) job: Job,
    pub(super) lane: Arc<LaneRow>,
    /// Where it was before; nothing for a new one.
    pub(super) before: Option<Place>,
    /// Who holds it.
    pub(super) holder: Option<i32>,
    pub(super) changed: bool,
}

/// Where a job was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) state: State,
    pub(super) delayed: bool,
    /// Whether nothing had happened to it since it was submitted.
    pub(super) fresh: bool,
    /// Whether it held its unique key.
    pub(super) keyed: bool,
}

impl Place {
    /// Where a job is that is read or was written.
    pub(super) fn of(job: &Job, delayed: bool) -> Self {
        Self { state: job.state, delayed, fresh: job.version == 1, keyed: job.held_key().is_some() }
    }
}

impl<'c> Work<'c> {
    /// Begins a transaction.
    pub(crate) fn new(inner: Arc<Inner>, at: At, conn: &'c mut PgConnection) -> Self {
        Self {
            node: inner.node,
            inner,
            at,
            conn,
            now: Timestamp::from_micros(0),
            entries: HashMap::new(),
            holders: HashMap::new(),
            missing: HashSet::new(),
            edges: Edges::default(),
            sequences: BTreeMap::new(),
            lined_up: BTreeSet::new(),
            early: HashSet::new(),
            changes: Vec::new(),
            segments: Vec::new(),
            readied: false,
            rows: 0,
        }
    }

    /// Leaves it to the log to tell the sinks: whether the transaction commits is somebody else's affair.
    pub(crate) fn told_by_the_log(mut self) -> Self {
        self.node = 0;
        self
    }

    /// Returns a job that was loaded.
    pub(crate) fn job(&self, id: JobId) -> Option<&Job> {
        self.entries.get(&id).map(|entry| &entry.job)
    }

    /// Returns who holds a job that was loaded.
    pub(crate) fn holder(&self, id: JobId) -> Option<i32> {
        self.entries.get(&id).and_then(|entry| entry.holder)
    }

    /// Lets a rule move a job that was loaded, and keeps the change that the rule returns.
    pub(crate) fn update<R>(
        &mut self,
        id: JobId,
        rule: impl FnOnce(&mut Job) -> (R, Option<Change>),
    ) -> Option<R> {
        let entry = self.entries.get_mut(&id)?;
        let (asked, lease) = (entry.job.cancel_requested, entry.job.lease.clone());
        let waits_for = entry.job.waits_for;
        let (reply, change) = rule(&mut entry.job);
        let job = &entry.job;
        entry.changed |= change.is_some() || job.cancel_requested != asked || job.waits_for != waits_for;
        if job.lease.is_none() {
            // What comes free lets somebody else through.
            let limited = !entry.lane.limits.is_empty() || self.inner.limited.load(Ordering::Relaxed);
            self.readied |= entry.holder.is_some() && limited;
            entry.holder = None;
        } else if job.lease != lease {
            entry.holder = None;
        }
        self.readied |= job.state == State::Pending && change.is_some();
        if let Some(change) = change {
            self.changes.push((entry.lane.tenant_no, change));
        }
        Some(reply)
    }
}
