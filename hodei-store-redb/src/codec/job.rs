//! The rows of a job: what it was born with, and what moves.

use std::sync::{Arc, LazyLock};

use hodei_core::job::{
    Cause, Command, Epoch, Fingerprint, Held, Job, JobSpec, Lease, Outcome, Output, Parent, Payload,
    Priority, RequestClass, Resources, Settled, SpecParts, State,
};
use hodei_core::store::Lane;
use hodei_core::text::{TextMap, Texts};
use hodei_core::{JobId, Name, OwnerId, PipelineId, Result, Tenant, Timestamp};

use super::envelope::{append_second, decode_second};
use super::row::{BornRow, HeadRow, marks, marks_of};
use super::spec::work;
use super::value::{Names, cause, priority, requires_of, shared, state, texts, time};

/// What of a job moves, and what lists show of it. Its record has no spec, no parents and no end: the rules need none.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The record.
    pub(crate) job: Job,
    /// What people call the job.
    pub(crate) name: Name,
    /// Where it waits.
    pub(crate) queue: Name,
    /// How urgent it is.
    pub(crate) priority: Priority,
    /// What it asks of a worker.
    pub(crate) class: RequestClass,
    /// The limits it counts against.
    pub(crate) limit_keys: Texts,
    /// The row of [`Tab::Open`](crate::table::Tab::Open) that names it while it is open.
    pub(crate) batch: u64,
    /// Whether other jobs may wait for it.
    pub(crate) has_children: bool,
    /// In which states it holds its unique key, if it has one.
    pub(crate) key: Held,
    /// Whether there is a row of how its last run ended.
    pub(crate) has_end: bool,
}

/// What never changes of a job.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    /// What is to be done.
    pub(crate) spec: Arc<JobSpec>,
    /// What had to settle first.
    pub(crate) parents: Arc<[Parent]>,
    /// The key that no other job has.
    pub(crate) unique: Option<Arc<str>>,
    /// The fingerprint of its submission.
    pub(crate) fingerprint: Fingerprint,
}

/// What stands in a record for a spec that was not read.
static UNREAD: LazyLock<Arc<JobSpec>> = LazyLock::new(|| {
    let name = Name::literal("unread");
    let parts = SpecParts {
        name: name.clone(),
        queue: name,
        payload: Payload::Command(Command::default()),
        resources: Resources::none(),
        priority: Priority::DEFAULT,
        timeout: None,
        retry: None,
        labels: TextMap::default(),
        limit_keys: Texts::default(),
    };
    Arc::new(JobSpec::restore(parts, RequestClass::from_number(0), Fingerprint::default()))
});

static NO_PARENTS: LazyLock<Arc<[Parent]>> = LazyLock::new(|| Arc::from([]));

impl Head {
    /// Takes the head of a full record.
    pub(crate) fn of(job: Job, batch: u64) -> Self {
        Self {
            name: job.spec.name().clone(),
            queue: job.spec.queue().clone(),
            priority: job.spec.priority(),
            class: job.spec.class(),
            limit_keys: job.spec.limit_keys().clone(),
            batch,
            has_children: false,
            key: job.unique.as_deref().map(Held::of).unwrap_or_default(),
            has_end: false,
            job,
        }
    }

    /// Puts the full record together.
    pub(crate) fn full(mut self, fixed: Fixed, settled: Option<Arc<Settled>>) -> Job {
        self.job.spec = fixed.spec;
        self.job.parents = fixed.parents;
        self.job.unique = fixed.unique;
        self.job.fingerprint = fixed.fingerprint;
        self.job.settled = settled;
        self.job
    }

    /// Takes out what never changes of a record that is full.
    pub(crate) fn take_fixed(&mut self) -> Fixed {
        let job = &mut self.job;
        Fixed {
            spec: std::mem::replace(&mut job.spec, Arc::clone(&UNREAD)),
            parents: std::mem::replace(&mut job.parents, Arc::clone(&NO_PARENTS)),
            unique: job.unique.take(),
            fingerprint: job.fingerprint,
        }
    }

    /// Returns the full record.
    pub(crate) fn with(&self, fixed: Fixed, settled: Option<Arc<Settled>>) -> Job {
        let mut job = self.job.clone();
        job.spec = fixed.spec;
        job.parents = fixed.parents;
        job.unique = fixed.unique;
        job.fingerprint = fixed.fingerprint;
        job.settled = settled;
        job
    }

    /// Says whether nothing has happened to the job since it was submitted without parents: what it was born with then
    /// says everything.
    pub(crate) fn is_newborn(&self) -> bool {
        let job = &self.job;
        job.state == State::Pending && job.version == 1 && job.parents.is_empty() && !self.has_children
    }

    /// Says whether the job holds its unique key, if it has one.
    pub(crate) fn holds_key(&self) -> bool {
        self.key.by(&self.job)
    }

    /// Says whether the job waits to be claimed, and has moved before.
    pub(crate) fn waits_again(&self) -> bool {
        self.job.state == State::Pending && !self.is_newborn()
    }

    /// Returns the batch that names it, unless it has ended.
    pub(crate) fn open_batch(&self) -> Option<u64> {
        (!self.job.state.is_terminal()).then_some(self.batch)
    }

    /// Returns the lane in which it waits when it is pending.
    pub(crate) fn lane(&self) -> Lane {
        Lane { tenant: self.job.tenant.clone(), queue: self.queue.clone(), class: self.class }
    }

    /// Says whether that is its lane.
    pub(crate) fn is_in(&self, lane: &Lane) -> bool {
        self.class == lane.class && self.queue == lane.queue && self.job.tenant == lane.tenant
    }

    /// Returns the end that has no row: of a run that succeeded and left nothing behind.
    pub(crate) fn plain_end(&self) -> Option<Arc<Settled>> {
        let plain = |at| Settled { at, outcome: Outcome::Succeeded, output: Output::none(), manifest: None };
        (self.job.state == State::Succeeded).then(|| Arc::new(plain(self.job.moved_at)))
    }

    /// Returns what lists show.
    pub(crate) fn summary(&self) -> hodei_core::job::JobSummary {
        let mut summary = self.job.summary();
        summary.name = self.name.clone();
        summary.queue = self.queue.clone();
        summary.priority = self.priority;
        summary
    }
}

/// Writes what a job is born with; `work` are the bytes of [`work_part`](super::work_part) of its spec.
pub(crate) fn born_row(job: &Job, work: &[u8], batch: u64, into: &mut Vec<u8>) -> Result<()> {
    let parents =
        job.parents.iter().map(|parent| (*parent.id.as_bytes(), parent.requires.number())).collect();
    let row = BornRow {
        fingerprint: *job.fingerprint.as_bytes(),
        spec_fingerprint: *job.spec.fingerprint().as_bytes(),
        batch,
        tenant: job.tenant.as_str(),
        name: job.spec.name().as_str(),
        queue: job.spec.queue().as_str(),
        limit_keys: job.spec.limit_keys().packed(),
        class: job.spec.class().number(),
        priority: job.spec.priority().level(),
        pipeline: job.pipeline.map(|id| *id.as_bytes()),
        created_at: job.created_at.as_micros(),
        eligible_at: job.eligible_at.as_micros(),
        deadline: job.deadline.map(Timestamp::as_micros),
        unique: job.unique.as_deref(),
        parents,
        work,
    };
    into.reserve(work.len() + 192);
    append_second(&row, into)
}

/// Reads the head of a job to which nothing has happened since it was submitted.
pub(crate) fn newborn(id: JobId, bytes: &[u8], names: &mut Names) -> Result<Head> {
    newborn_of(id, &decode_second(bytes)?, names)
}

/// Reads everything of a job to which nothing has happened since it was submitted.
pub(crate) fn born(
    id: JobId,
    bytes: &[u8],
    names: &mut Names,
    known: impl FnOnce(Fingerprint) -> Option<Arc<JobSpec>>,
) -> Result<(Head, Fixed)> {
    let row: BornRow<'_> = decode_second(bytes)?;
    let head = newborn_of(id, &row, names)?;
    Ok((head, fixed_of(row, names, known)?))
}

fn newborn_of(id: JobId, row: &BornRow<'_>, names: &mut Names) -> Result<Head> {
    let waits_for = u32::try_from(row.parents.len()).unwrap_or(u32::MAX);
    let job = Job {
        id,
        tenant: Tenant::from(shared(&mut names.tenant, row.tenant)?),
        spec: Arc::clone(&UNREAD),
        pipeline: row.pipeline.map(PipelineId::from_bytes),
        parents: Arc::clone(&NO_PARENTS),
        unique: None,
        fingerprint: Fingerprint::default(),
        created_at: time(row.created_at),
        deadline: row.deadline.map(time),
        state: if waits_for == 0 { State::Pending } else { State::Blocked },
        cause: Cause::Submitted,
        cancel_requested: false,
        version: 1,
        attempt: 0,
        waits_for,
        lost_count: 0,
        generation: 0,
        epoch: Epoch::default(),
        eligible_at: time(row.eligible_at),
        moved_at: time(row.created_at),
        started_at: None,
        lease: None,
        settled: None,
    };
    Ok(Head {
        job,
        name: shared(&mut names.name, row.name)?,
        queue: shared(&mut names.queue, row.queue)?,
        priority: priority(row.priority)?,
        class: RequestClass::from_number(row.class),
        limit_keys: limit_keys(names, row.limit_keys)?,
        batch: row.batch,
        has_children: false,
        key: row.unique.map(Held::of).unwrap_or_default(),
        has_end: false,
    })
}

/// Reads what never changes of a job; a spec that is known by its fingerprint is not decoded.
pub(crate) fn fixed(
    bytes: &[u8],
    names: &mut Names,
    known: impl FnOnce(Fingerprint) -> Option<Arc<JobSpec>>,
) -> Result<Fixed> {
    fixed_of(decode_second(bytes)?, names, known)
}

fn fixed_of(
    row: BornRow<'_>,
    names: &mut Names,
    known: impl FnOnce(Fingerprint) -> Option<Arc<JobSpec>>,
) -> Result<Fixed> {
    let spec = match known(Fingerprint::from_bytes(row.spec_fingerprint)) {
        Some(known) => known,
        None => Arc::new(work(&row, names)?),
    };
    let parents: Result<Arc<[Parent]>> = if row.parents.is_empty() {
        Ok(Arc::clone(&NO_PARENTS))
    } else {
        row.parents
            .into_iter()
            .map(|(id, requires)| Ok(Parent { id: JobId::from_bytes(id), requires: requires_of(requires)? }))
            .collect()
    };
    Ok(Fixed {
        spec,
        parents: parents?,
        unique: row.unique.map(Arc::from),
        fingerprint: Fingerprint::from_bytes(row.fingerprint),
    })
}

/// Reads the fingerprint of a job's submission.
pub(crate) fn fingerprint(bytes: &[u8]) -> Result<Fingerprint> {
    decode_second::<BornRow<'_>>(bytes).map(|row| Fingerprint::from_bytes(row.fingerprint))
}

fn limit_keys(names: &mut Names, packed: &str) -> Result<Texts> {
    match &names.limit_keys {
        Some(last) if last.packed() == packed => Ok(last.clone()),
        _ => Ok(names.limit_keys.insert(texts(packed)?).clone()),
    }
}

/// Writes what moves of a job.
pub(crate) fn head_row(head: &Head, into: &mut Vec<u8>) -> Result<()> {
    let job = &head.job;
    let row = HeadRow {
        tenant: job.tenant.as_str(),
        name: head.name.as_str(),
        queue: head.queue.as_str(),
        limit_keys: head.limit_keys.packed(),
        class: head.class.number(),
        priority: head.priority.level(),
        pipeline: job.pipeline.map(|id| *id.as_bytes()),
        created_at: job.created_at.as_micros(),
        deadline: job.deadline.map(Timestamp::as_micros),
        state: job.state as u8,
        cause: job.cause as u8,
        cancel_requested: job.cancel_requested,
        version: job.version,
        attempt: job.attempt,
        waits_for: job.waits_for,
        lost_count: job.lost_count,
        generation: job.generation,
        epoch: job.epoch.number(),
        eligible_at: job.eligible_at.as_micros(),
        moved_at: job.moved_at.as_micros(),
        started_at: job.started_at.map(Timestamp::as_micros),
        lease: job.lease.as_ref().map(|lease| (lease.owner.name().as_str(), lease.incarnation)),
        batch: head.batch,
        marks: marks_of(head.has_children, head.key),
        has_end: head.has_end,
    };
    append_second(&row, into)
}

/// Reads what moves of a job.
pub(crate) fn head(id: JobId, bytes: &[u8], names: &mut Names) -> Result<Head> {
    let row: HeadRow<'_> = decode_second(bytes)?;
    let (has_children, key) = marks(row.marks)?;
    let lease = match row.lease {
        Some((owner, incarnation)) => {
            Some(Lease { owner: OwnerId::from(shared(&mut names.owner, owner)?), incarnation })
        }
        None => None,
    };
    let job = Job {
        id,
        tenant: Tenant::from(shared(&mut names.tenant, row.tenant)?),
        spec: Arc::clone(&UNREAD),
        pipeline: row.pipeline.map(PipelineId::from_bytes),
        parents: Arc::clone(&NO_PARENTS),
        unique: None,
        fingerprint: Fingerprint::default(),
        created_at: time(row.created_at),
        deadline: row.deadline.map(time),
        state: state(row.state)?,
        cause: cause(row.cause)?,
        cancel_requested: row.cancel_requested,
        version: row.version,
        attempt: row.attempt,
        waits_for: row.waits_for,
        lost_count: row.lost_count,
        generation: row.generation,
        epoch: Epoch::from_number(row.epoch),
        eligible_at: time(row.eligible_at),
        moved_at: time(row.moved_at),
        started_at: row.started_at.map(time),
        lease,
        settled: None,
    };
    Ok(Head {
        job,
        name: shared(&mut names.name, row.name)?,
        queue: shared(&mut names.queue, row.queue)?,
        priority: priority(row.priority)?,
        class: RequestClass::from_number(row.class),
        limit_keys: limit_keys(names, row.limit_keys)?,
        batch: row.batch,
        has_children,
        key,
        has_end: row.has_end,
    })
}
