//! From rows to values and back.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use hodei_core::job::{
    ArtifactEntry, Backoff, BlobRef, Cause, Command, CommandMore, Encoding, Epoch, Exit, Failure,
    FailureClass, Fingerprint, Job, JobSpec, Lease, LogEnd, Manifest, Outcome, Output, Parent, Payload,
    Priority, Request, RequestClass, Requires, Resources, RetryPolicy, RetryRule, Runs, Settled, SpecParts,
    State, Stream,
};
use hodei_core::store::{Change, Counts, Lane, Limit, QueuePolicy, Schedule};
use hodei_core::text::{TextMap, Texts};
use hodei_core::{Error, JobId, Name, OwnerId, PipelineId, Result, Tenant, Timestamp};

use super::envelope::{decode, decode_part, encode, encode_part};
use super::row::{
    BackoffRow, BlobRow, ChangeRow, ChangesRow, CountsRow, EdgeRow, EndRow, ExitRow, FixedRow, HeadRow, Id,
    LaneRow, LimitRow, ManifestRow, MoreRow, OutcomeRow, OutputRow, PayloadRow, QueueRow, ResourcesRow,
    RetryRow, ScheduleRow, SpecRow, Wait,
};
use crate::error::corrupt;

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
    /// Whether other jobs may wait for it.
    pub(crate) has_children: bool,
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
    pub(crate) fn of(job: Job) -> Self {
        Self {
            name: job.spec.name().clone(),
            queue: job.spec.queue().clone(),
            priority: job.spec.priority(),
            class: job.spec.class(),
            limit_keys: job.spec.limit_keys().clone(),
            has_children: false,
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

fn bad(what: &'static str) -> impl FnOnce() -> Error {
    move || corrupt("row.decode", what)
}

fn name(text: &str) -> Result<Name> {
    Name::new(text).map_err(|_| corrupt("row.decode", "a bad name"))
}

fn tenant(text: &str) -> Result<Tenant> {
    name(text).map(Tenant::from)
}

fn texts(packed: &str) -> Result<Texts> {
    Texts::from_packed(packed.into()).ok_or_else(bad("a text without an end"))
}

fn map(packed: &str) -> Result<TextMap> {
    TextMap::from_texts(texts(packed)?).ok_or_else(bad("a name without a value"))
}

fn priority(level: u8) -> Result<Priority> {
    Priority::new(level).map_err(|_| corrupt("row.decode", "a bad priority"))
}

fn state(number: u8) -> Result<State> {
    State::from_number(number).ok_or_else(bad("a bad state"))
}

fn cause(number: u8) -> Result<Cause> {
    Cause::from_number(number).ok_or_else(bad("a bad cause"))
}

fn wait(duration: Duration) -> Wait {
    (duration.as_secs(), duration.subsec_nanos())
}

fn duration((secs, nanos): Wait) -> Result<Duration> {
    if nanos < 1_000_000_000 {
        Ok(Duration::new(secs, nanos))
    } else {
        Err(corrupt("row.decode", "a bad duration"))
    }
}

fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

/// Writes what moves of a job.
pub(crate) fn head_row(head: &Head) -> Result<Vec<u8>> {
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
        has_children: head.has_children,
        has_end: head.has_end,
    };
    encode(&row, 160)
}

/// Reads what moves of a job.
pub(crate) fn head(id: JobId, bytes: &[u8]) -> Result<Head> {
    let row: HeadRow<'_> = decode(bytes)?;
    let lease = match row.lease {
        Some((owner, incarnation)) => Some(Lease { owner: OwnerId::from(name(owner)?), incarnation }),
        None => None,
    };
    let job = Job {
        id,
        tenant: tenant(row.tenant)?,
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
        name: name(row.name)?,
        queue: name(row.queue)?,
        priority: priority(row.priority)?,
        class: RequestClass::from_number(row.class),
        limit_keys: texts(row.limit_keys)?,
        has_children: row.has_children,
        has_end: row.has_end,
    })
}

/// Writes what never changes of a job.
pub(crate) fn fixed_row(job: &Job) -> Result<Vec<u8>> {
    let parents =
        job.parents.iter().map(|parent| (*parent.id.as_bytes(), requires_number(parent.requires))).collect();
    let row = FixedRow {
        fingerprint: *job.fingerprint.as_bytes(),
        unique: job.unique.as_deref(),
        parents,
        spec_fingerprint: *job.spec.fingerprint().as_bytes(),
        spec: &encode_part(&spec_row(&job.spec), 768)?,
    };
    encode(&row, 768)
}

/// Reads what never changes of a job; a spec that is known by its fingerprint is not decoded.
pub(crate) fn fixed(bytes: &[u8], known: impl FnOnce(Fingerprint) -> Option<Arc<JobSpec>>) -> Result<Fixed> {
    let row: FixedRow<'_> = decode(bytes)?;
    let parents: Result<Arc<[Parent]>> = if row.parents.is_empty() {
        Ok(Arc::clone(&NO_PARENTS))
    } else {
        row.parents
            .into_iter()
            .map(|(id, requires)| Ok(Parent { id: JobId::from_bytes(id), requires: requires_of(requires)? }))
            .collect()
    };
    let spec = match known(Fingerprint::from_bytes(row.spec_fingerprint)) {
        Some(known) => known,
        None => Arc::new(spec(decode_part(row.spec)?)?),
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
    decode::<FixedRow<'_>>(bytes).map(|row| Fingerprint::from_bytes(row.fingerprint))
}

/// Returns the number of a requirement in a row.
const fn requires_number(requires: Requires) -> u8 {
    match requires {
        Requires::Success => 0,
        Requires::Ended => 1,
    }
}

/// Returns the requirement of a number in a row.
fn requires_of(number: u8) -> Result<Requires> {
    match number {
        0 => Ok(Requires::Success),
        1 => Ok(Requires::Ended),
        _ => Err(corrupt("row.decode", "a bad requirement")),
    }
}

fn spec_row(spec: &JobSpec) -> SpecRow<'_> {
    let parts = spec.parts();
    SpecRow {
        class: spec.class().number(),
        fingerprint: *spec.fingerprint().as_bytes(),
        name: parts.name.as_str(),
        queue: parts.queue.as_str(),
        payload: payload_row(&parts.payload),
        resources: resources_row(&parts.resources),
        priority: parts.priority.level(),
        timeout: parts.timeout.map(wait),
        retry: parts.retry.as_deref().map(retry_row),
        labels: parts.labels.texts().packed(),
        limit_keys: parts.limit_keys.packed(),
    }
}

fn spec(row: SpecRow<'_>) -> Result<JobSpec> {
    let parts = SpecParts {
        name: name(row.name)?,
        queue: name(row.queue)?,
        payload: payload(row.payload)?,
        resources: resources(row.resources)?,
        priority: priority(row.priority)?,
        timeout: row.timeout.map(duration).transpose()?,
        retry: row.retry.map(retry).transpose()?.map(Box::new),
        labels: map(row.labels)?,
        limit_keys: texts(row.limit_keys)?,
    };
    let (class, fingerprint) =
        (RequestClass::from_number(row.class), Fingerprint::from_bytes(row.fingerprint));
    Ok(JobSpec::restore(parts, class, fingerprint))
}

fn payload_row(payload: &Payload) -> PayloadRow<'_> {
    match payload {
        Payload::Handler { kind, version, encoding, args } => {
            PayloadRow::Handler { kind: kind.as_str(), version: *version, encoding: *encoding as u8, args }
        }
        Payload::Command(command) => PayloadRow::Command {
            argv: command.argv.packed(),
            env: command.env.texts().packed(),
            more: command.more.as_deref().map(|more| MoreRow {
                secrets: more.secrets.texts().packed(),
                cwd: more.cwd.as_deref(),
                image: more.image.as_deref(),
                outputs: more.outputs.packed(),
            }),
        },
    }
}

fn payload(row: PayloadRow<'_>) -> Result<Payload> {
    Ok(match row {
        PayloadRow::Handler { kind, version, encoding, args } => Payload::Handler {
            kind: name(kind)?,
            version,
            encoding: match encoding {
                0 => Encoding::Json,
                1 => Encoding::Binary,
                _ => return Err(corrupt("row.decode", "a bad encoding")),
            },
            args: Bytes::copy_from_slice(args),
        },
        PayloadRow::Command { argv, env, more } => Payload::Command(Command {
            argv: texts(argv)?,
            env: map(env)?,
            more: more.as_ref().map(command_more).transpose()?,
        }),
    })
}

fn command_more(row: &MoreRow<'_>) -> Result<Box<CommandMore>> {
    Ok(Box::new(CommandMore {
        secrets: map(row.secrets)?,
        cwd: row.cwd.map(Box::from),
        image: row.image.map(Box::from),
        outputs: texts(row.outputs)?,
    }))
}

fn resources_row(resources: &Resources) -> ResourcesRow<'_> {
    ResourcesRow {
        cpu_millis: resources.cpu_millis,
        memory: resources.memory,
        gpus: resources.gpus,
        custom: resources.customs().map(|(name, amount)| (name.as_str(), amount)).collect(),
    }
}

fn resources(row: ResourcesRow<'_>) -> Result<Resources> {
    let fixed = Resources::none().cpu_millis(row.cpu_millis).memory(row.memory).gpus(row.gpus);
    row.custom.into_iter().try_fold(fixed, |all, (custom, amount)| Ok(all.custom(name(custom)?, amount)))
}

fn backoff_row(backoff: &Backoff) -> BackoffRow {
    match *backoff {
        Backoff::Fixed(time) => BackoffRow::Fixed(wait(time)),
        Backoff::Linear { step, max } => BackoffRow::Linear { step: wait(step), max: wait(max) },
        Backoff::Exponential { base, max } => BackoffRow::Exponential { base: wait(base), max: wait(max) },
    }
}

fn backoff(row: BackoffRow) -> Result<Backoff> {
    Ok(match row {
        BackoffRow::Fixed(time) => Backoff::Fixed(duration(time)?),
        BackoffRow::Linear { step, max } => Backoff::Linear { step: duration(step)?, max: duration(max)? },
        BackoffRow::Exponential { base, max } => {
            Backoff::Exponential { base: duration(base)?, max: duration(max)? }
        }
    })
}

fn retry_row(policy: &RetryPolicy) -> RetryRow {
    let rule = |(class, rule): &(FailureClass, RetryRule)| match rule {
        RetryRule::Never => (*class as u8, None),
        RetryRule::After(backoff) => (*class as u8, Some(backoff_row(backoff))),
    };
    RetryRow {
        max_attempts: policy.max_attempts,
        backoff: backoff_row(&policy.backoff),
        jitter: policy.jitter,
        rules: policy.rules.iter().map(rule).collect(),
    }
}

fn retry(row: RetryRow) -> Result<RetryPolicy> {
    let rule = |(class, row): (u8, Option<BackoffRow>)| {
        let rule = row.map(backoff).transpose()?.map_or(RetryRule::Never, RetryRule::After);
        Ok((failure_class(class)?, rule))
    };
    Ok(RetryPolicy {
        max_attempts: row.max_attempts,
        backoff: backoff(row.backoff)?,
        jitter: row.jitter,
        rules: row.rules.into_iter().map(rule).collect::<Result<_>>()?,
    })
}

fn failure_class(number: u8) -> Result<FailureClass> {
    FailureClass::from_number(number).ok_or_else(bad("a bad class of failure"))
}

/// Writes what the jobs of a lane ask of a worker.
pub(crate) fn lane_row(lane: &Lane, request: &Request) -> Result<Vec<u8>> {
    let row = LaneRow {
        tenant: lane.tenant.as_str(),
        queue: lane.queue.as_str(),
        class: lane.class.number(),
        handler: match &request.runs {
            Runs::Handler(kind) => Some(kind.as_str()),
            Runs::Command => None,
        },
        resources: resources_row(&request.resources),
        limit_keys: request.limit_keys.packed(),
    };
    encode(&row, 128)
}

/// Reads what the jobs of a lane ask of a worker.
pub(crate) fn lane(bytes: &[u8]) -> Result<(Lane, Request)> {
    let row: LaneRow<'_> = decode(bytes)?;
    let lane = Lane {
        tenant: tenant(row.tenant)?,
        queue: name(row.queue)?,
        class: RequestClass::from_number(row.class),
    };
    let runs = row.handler.map(name).transpose()?.map_or(Runs::Command, Runs::Handler);
    Ok((lane, Request { runs, resources: resources(row.resources)?, limit_keys: texts(row.limit_keys)? }))
}

fn blob_row(blob: &BlobRef) -> BlobRow<'_> {
    BlobRow { key: &blob.key, len: blob.len, digest: blob.digest }
}

fn blob(row: &BlobRow<'_>) -> BlobRef {
    BlobRef { key: Arc::from(row.key), len: row.len, digest: row.digest }
}

/// Writes how a run ended.
pub(crate) fn end_row(settled: &Settled) -> Result<Vec<u8>> {
    let row = EndRow {
        at: settled.at.as_micros(),
        outcome: match &settled.outcome {
            Outcome::Succeeded => OutcomeRow::Succeeded,
            Outcome::Cancelled => OutcomeRow::Cancelled,
            Outcome::Failed(failure) => OutcomeRow::Failed {
                class: failure.class as u8,
                message: &failure.message,
                exit: failure.exit.map(|exit| match exit {
                    Exit::Code(code) => ExitRow::Code(code),
                    Exit::Signal(signal) => ExitRow::Signal(signal),
                }),
            },
        },
        output: match &settled.output {
            Output::Inline(bytes) => OutputRow::Inline(bytes),
            Output::Blob(blob) => OutputRow::Blob(blob_row(blob)),
        },
        manifest: settled.manifest.as_deref().map(|manifest| ManifestRow {
            logs: manifest
                .logs
                .iter()
                .map(|log| (log.stream as u8, log.kept, log.dropped, log.crc32))
                .collect(),
            artifacts: manifest.artifacts.iter().map(|a| (a.name.as_str(), blob_row(&a.blob))).collect(),
        }),
    };
    encode(&row, 64)
}

/// Reads how a run ended.
pub(crate) fn end(bytes: &[u8]) -> Result<Settled> {
    let row: EndRow<'_> = decode(bytes)?;
    let outcome = match row.outcome {
        OutcomeRow::Succeeded => Outcome::Succeeded,
        OutcomeRow::Cancelled => Outcome::Cancelled,
        OutcomeRow::Failed { class, message, exit } => Outcome::Failed(Failure {
            class: failure_class(class)?,
            message: Arc::from(message),
            exit: exit.map(|exit| match exit {
                ExitRow::Code(code) => Exit::Code(code),
                ExitRow::Signal(signal) => Exit::Signal(signal),
            }),
        }),
    };
    let output = match row.output {
        OutputRow::Inline(bytes) => Output::Inline(Bytes::copy_from_slice(bytes)),
        OutputRow::Blob(row) => Output::Blob(blob(&row)),
    };
    Ok(Settled {
        at: time(row.at),
        outcome,
        output,
        manifest: row.manifest.map(manifest).transpose()?.map(Arc::new),
    })
}

fn manifest(row: ManifestRow<'_>) -> Result<Manifest> {
    let log = |(stream, kept, dropped, crc32): (u8, u64, u64, u32)| {
        let stream = *Stream::ALL.get(usize::from(stream)).ok_or_else(bad("a bad stream"))?;
        Ok(LogEnd { stream, kept, dropped, crc32 })
    };
    let artifact =
        |(file, row): (&str, BlobRow<'_>)| Ok(ArtifactEntry { name: name(file)?, blob: blob(&row) });
    Ok(Manifest {
        logs: row.logs.into_iter().map(log).collect::<Result<_>>()?,
        artifacts: row.artifacts.into_iter().map(artifact).collect::<Result<_>>()?,
    })
}

fn change_row(change: &Change) -> ChangeRow<'_> {
    ChangeRow {
        job: *change.job.as_bytes(),
        tenant: change.tenant.as_str(),
        pipeline: change.pipeline.map(|id| *id.as_bytes()),
        version: change.version,
        from: change.from.map(|state| state as u8),
        to: change.to as u8,
        cause: change.cause as u8,
        attempt: change.attempt,
        epoch: change.epoch.number(),
        at: change.at.as_micros(),
    }
}

fn change(row: &ChangeRow<'_>, tenant: Tenant) -> Result<Change> {
    Ok(Change {
        job: JobId::from_bytes(row.job),
        tenant,
        pipeline: row.pipeline.map(PipelineId::from_bytes),
        version: row.version,
        from: row.from.map(state).transpose()?,
        to: state(row.to)?,
        cause: cause(row.cause)?,
        attempt: row.attempt,
        epoch: Epoch::from_number(row.epoch),
        at: time(row.at),
    })
}

/// Writes changes whose numbers follow one another.
pub(crate) fn changes_row(changes: &[Change]) -> Result<Vec<u8>> {
    encode(&ChangesRow { changes: changes.iter().map(change_row).collect() }, 16 + 80 * changes.len())
}

/// Reads changes whose numbers follow one another.
pub(crate) fn changes(bytes: &[u8]) -> Result<Vec<Change>> {
    let row: ChangesRow<'_> = decode(bytes)?;
    let mut changes: Vec<Change> = Vec::with_capacity(row.changes.len());
    for row in &row.changes {
        // Neighbours are mostly of one tenant.
        let of = match changes.last() {
            Some(last) if last.tenant.as_str() == row.tenant => last.tenant.clone(),
            _ => tenant(row.tenant)?,
        };
        changes.push(change(row, of)?);
    }
    Ok(changes)
}

/// Writes how many of a tenant's jobs are in each state.
pub(crate) fn counts_row(tenant: &Tenant, counts: &Counts) -> Result<Vec<u8>> {
    encode(&CountsRow { tenant: tenant.as_str(), counts: State::ALL.map(|state| counts.of(state)) }, 64)
}

/// Reads how many of a tenant's jobs are in each state.
pub(crate) fn counts(bytes: &[u8]) -> Result<(Tenant, Counts)> {
    let row: CountsRow<'_> = decode(bytes)?;
    Ok((tenant(row.tenant)?, Counts::from_numbers(row.counts)))
}

/// Writes a limit.
pub(crate) fn limit_row(limit: &Limit) -> Result<Vec<u8>> {
    encode(&LimitRow { tenant: limit.tenant.as_str(), key: limit.key.as_str(), max: limit.max }, 64)
}

/// Reads a limit.
pub(crate) fn limit(bytes: &[u8]) -> Result<Limit> {
    let row: LimitRow<'_> = decode(bytes)?;
    Ok(Limit { tenant: tenant(row.tenant)?, key: name(row.key)?, max: row.max })
}

/// Writes how a queue is served.
pub(crate) fn queue_row(policy: &QueuePolicy) -> Result<Vec<u8>> {
    let QueuePolicy { tenant, queue, paused, weight } = policy;
    encode(&QueueRow { tenant: tenant.as_str(), queue: queue.as_str(), paused: *paused, weight: *weight }, 64)
}

/// Reads how a queue is served.
pub(crate) fn queue(bytes: &[u8]) -> Result<QueuePolicy> {
    let row: QueueRow<'_> = decode(bytes)?;
    Ok(QueuePolicy {
        tenant: tenant(row.tenant)?,
        queue: name(row.queue)?,
        paused: row.paused,
        weight: row.weight,
    })
}

/// Writes a schedule.
pub(crate) fn schedule_row(schedule: &Schedule) -> Result<Vec<u8>> {
    let row = ScheduleRow {
        tenant: schedule.tenant.as_str(),
        name: schedule.name.as_str(),
        rule: &schedule.rule,
        last_fired: schedule.last_fired.map(Timestamp::as_micros),
        spec: spec_row(&schedule.spec),
    };
    encode(&row, 768)
}

/// Reads a schedule.
pub(crate) fn schedule(bytes: &[u8]) -> Result<Schedule> {
    let row: ScheduleRow<'_> = decode(bytes)?;
    Ok(Schedule {
        tenant: tenant(row.tenant)?,
        name: name(row.name)?,
        rule: Arc::from(row.rule),
        spec: Arc::new(spec(row.spec)?),
        last_fired: row.last_fired.map(time),
    })
}

/// Writes what is needed of a parent, and whether the child was told of its end.
pub(crate) fn edge_row(requires: Requires, told: bool) -> Result<Vec<u8>> {
    encode(&EdgeRow { requires: requires_number(requires), told }, 16)
}

/// Reads what is needed of a parent, and whether the child was told of its end.
pub(crate) fn edge(bytes: &[u8]) -> Result<(Requires, bool)> {
    let row: EdgeRow = decode(bytes)?;
    Ok((requires_of(row.requires)?, row.told))
}

/// Writes the key of a place in a lane.
pub(crate) fn place_row(ready: &[u8]) -> Result<Vec<u8>> {
    encode(&ready, ready.len() + 16)
}

/// Reads the key of a place in a lane.
pub(crate) fn place(bytes: &[u8]) -> Result<&[u8]> {
    decode(bytes)
}

/// Writes an id.
pub(crate) fn id_row(id: JobId) -> Result<Vec<u8>> {
    encode(id.as_bytes(), 24)
}

/// Reads an id.
pub(crate) fn id(bytes: &[u8]) -> Result<JobId> {
    decode::<Id>(bytes).map(JobId::from_bytes)
}

/// Writes a number.
pub(crate) fn number_row(number: u64) -> Result<Vec<u8>> {
    encode(&number, 16)
}

/// Reads a number.
pub(crate) fn number(bytes: &[u8]) -> Result<u64> {
    decode(bytes)
}
