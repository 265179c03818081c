//! The lines between header and end, and the ways between them and values.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::super::policy::{Limit, LimitOf, QueuePolicy, Schedule};
use super::super::rate::{Rate, Spent};
use crate::checkpoint::Checkpoint;
use crate::id::{JobId, Name, PipelineId, Tenant};
use crate::job::{
    ArtifactEntry, BlobRef, Cause, Command, Encoding, Epoch, Fingerprint, Generation, Job, JobSpec,
    JobSpecBuilder, Lease, LogEnd, Manifest, Outcome, Output, Parent, Payload, Priority, Resources,
    RetryPolicy, Settled, SpecLimits, State,
};
use crate::text::{TextMap, Texts};
use crate::time::Timestamp;

/// Bytes as base64.
pub(super) struct Base64(Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(de::Error::custom)
    }
}

/// So many bytes as base64.
pub(super) struct Exactly<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Exactly<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Exactly<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Base64(bytes) = Base64::deserialize(deserializer)?;
        let wrong = |bytes: Vec<u8>| de::Error::invalid_length(bytes.len(), &"another number of bytes");
        bytes.try_into().map(Self).map_err(wrong)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointLine<'a> {
    line: &'a str,
    tenant: Tenant,
    job: JobId,
    fence: Epoch,
    saved: Option<Base64>,
}

impl CheckpointLine<'_> {
    pub(super) const LINE: &'static str = "checkpoint";

    pub(super) fn of(checkpoint: &Checkpoint) -> Self {
        Self {
            line: Self::LINE,
            tenant: checkpoint.tenant.clone(),
            job: checkpoint.job,
            fence: checkpoint.fence,
            saved: checkpoint.saved.as_ref().map(|saved| Base64(saved.to_vec())),
        }
    }

    pub(super) fn into_checkpoint(self) -> Checkpoint {
        let saved = self.saved.map(|Base64(saved)| saved.into());
        Checkpoint { tenant: self.tenant, job: self.job, fence: self.fence, saved }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueLine<'a> {
    line: &'a str,
    tenant: Tenant,
    queue: Name,
    paused: bool,
    weight: u32,
}

impl QueueLine<'_> {
    pub(super) const LINE: &'static str = "queue";

    pub(super) fn of(policy: &QueuePolicy) -> Self {
        let QueuePolicy { tenant, queue, paused, weight } = policy.clone();
        Self { line: Self::LINE, tenant, queue, paused, weight }
    }

    pub(super) fn into_policy(self) -> QueuePolicy {
        QueuePolicy { tenant: self.tenant, queue: self.queue, paused: self.paused, weight: self.weight }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitLine<'a> {
    line: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<Tenant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Name>,
    max: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<RateLine>,
}

/// A rate, and what is spent of it. A text without rates is as it was before there were any.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLine {
    tokens: u32,
    per: Duration,
    burst: u32,
    full_at_nanos: Spent,
}

impl LimitLine<'_> {
    pub(super) const LINE: &'static str = "limit";

    pub(super) fn of(limit: &Limit, spent: Spent) -> Self {
        let Limit { of, max, rate } = limit.clone();
        let line = |Rate { tokens, per, burst }: Rate| RateLine { tokens, per, burst, full_at_nanos: spent };
        let (tenant, queue, key) = match of {
            LimitOf::All => (None, None, None),
            LimitOf::Tenant(tenant) => (Some(tenant), None, None),
            LimitOf::Queue(tenant, queue) => (Some(tenant), Some(queue), None),
            LimitOf::Key(tenant, key) => (Some(tenant), None, Some(key)),
        };
        Self { line: Self::LINE, tenant, queue, key, max, rate: rate.map(line) }
    }

    /// Returns the limit, with what is spent of it; nothing where the line does not say which jobs it is about.
    pub(super) fn into_limit(self) -> Option<(Limit, Spent)> {
        let of = match (self.tenant, self.queue, self.key) {
            (None, None, None) => LimitOf::All,
            (Some(tenant), None, None) => LimitOf::Tenant(tenant),
            (Some(tenant), Some(queue), None) => LimitOf::Queue(tenant, queue),
            (Some(tenant), None, Some(key)) => LimitOf::Key(tenant, key),
            (None, ..) | (Some(_), Some(_), Some(_)) => return None,
        };
        let spent = self.rate.as_ref().map_or_else(Spent::default, |rate| rate.full_at_nanos);
        let rate = self.rate.map(|RateLine { tokens, per, burst, .. }| Rate { tokens, per, burst });
        Some((Limit { of, max: self.max, rate }, spent))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleLine<'a> {
    line: &'a str,
    tenant: Tenant,
    name: Name,
    rule: Arc<str>,
    last_fired: Option<Timestamp>,
    spec: SpecLine<'a>,
}

impl<'a> ScheduleLine<'a> {
    pub(super) const LINE: &'static str = "schedule";

    pub(super) fn of(schedule: &'a Schedule) -> Self {
        let Schedule { tenant, name, rule, spec, last_fired } = schedule;
        Self {
            line: Self::LINE,
            tenant: tenant.clone(),
            name: name.clone(),
            rule: Arc::clone(rule),
            last_fired: *last_fired,
            spec: SpecLine::of(spec),
        }
    }

    pub(super) fn into_schedule(self) -> crate::Result<Schedule> {
        let Self { tenant, name, rule, last_fired, spec, .. } = self;
        Ok(Schedule { tenant, name, rule, last_fired, spec: Arc::new(spec.into_spec()?) })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpecLine<'a> {
    name: Name,
    queue: Name,
    payload: PayloadLine,
    resources: Cow<'a, Resources>,
    priority: Priority,
    timeout: Option<Duration>,
    retry: Option<Cow<'a, RetryPolicy>>,
    labels: TextMap,
    limit_keys: Texts,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum PayloadLine {
    Handler { kind: Name, version: u16, encoding: Encoding, args: Base64 },
    Command(Command),
}

impl<'a> SpecLine<'a> {
    fn of(spec: &'a JobSpec) -> Self {
        let parts = spec.parts();
        Self {
            name: parts.name.clone(),
            queue: parts.queue.clone(),
            payload: match &parts.payload {
                Payload::Handler { kind, version, encoding, args } => PayloadLine::Handler {
                    kind: kind.clone(),
                    version: *version,
                    encoding: *encoding,
                    args: Base64(args.to_vec()),
                },
                Payload::Command(command) => PayloadLine::Command(command.clone()),
            },
            resources: Cow::Borrowed(&parts.resources),
            priority: parts.priority,
            timeout: parts.timeout,
            retry: parts.retry.as_deref().map(Cow::Borrowed),
            labels: parts.labels.clone(),
            limit_keys: parts.limit_keys.clone(),
        }
    }

    /// Makes the spec again: of the shape of every spec, and as large as somebody once allowed.
    fn into_spec(self) -> crate::Result<JobSpec> {
        let limits = SpecLimits::kept(match &self.payload {
            PayloadLine::Command(command) => command.env.iter().map(|(name, _)| name).collect(),
            PayloadLine::Handler { .. } => Vec::new(),
        });
        let payload = match self.payload {
            PayloadLine::Handler { kind, version, encoding, args } => {
                Payload::Handler { kind, version, encoding, args: args.0.into() }
            }
            PayloadLine::Command(command) => Payload::Command(command),
        };
        let priority = Priority::new(self.priority.level())?;
        let spec = work(payload).name(self.name.as_str()).queue(self.queue.as_str());
        let mut spec = spec.resources(self.resources.into_owned()).priority(priority);
        if let Some(timeout) = self.timeout {
            spec = spec.timeout(timeout);
        }
        if let Some(retry) = self.retry {
            spec = spec.retry(retry.into_owned());
        }
        let spec = self.labels.iter().fold(spec, |spec, (name, value)| spec.label(name, value));
        self.limit_keys.iter().fold(spec, |spec, key| spec.limited_by(key)).build_within(&limits)
    }
}

fn work(payload: Payload) -> JobSpecBuilder {
    let Payload::Command(command) = payload else { return JobSpecBuilder::handler(payload) };
    let spec = JobSpec::command(command.argv.iter());
    let mut spec = command.env.iter().fold(spec, |spec, (name, value)| spec.env(name, value));
    let Some(more) = command.more else { return spec };
    spec = more.secrets.iter().fold(spec, |spec, (name, reference)| spec.secret(name, reference));
    if let Some(directory) = more.cwd {
        spec = spec.cwd(directory);
    }
    if let Some(image) = more.image {
        spec = spec.image(image);
    }
    more.outputs.iter().fold(spec, |spec, name| spec.output(name))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobLine<'a> {
    line: &'a str,
    id: JobId,
    tenant: Tenant,
    state: State,
    cause: Cause,
    version: u32,
    attempt: u32,
    waits_for: u32,
    lost_count: u16,
    generation: Generation,
    epoch: Epoch,
    cancel_requested: bool,
    created_at: Timestamp,
    eligible_at: Timestamp,
    moved_at: Timestamp,
    started_at: Option<Timestamp>,
    deadline: Option<Timestamp>,
    pipeline: Option<PipelineId>,
    unique: Option<Arc<str>>,
    fingerprint: Exactly<16>,
    parents: Vec<Parent>,
    /// The edges from parents that are kept, and whether the job was told of each one's end.
    edges: Vec<(JobId, bool)>,
    /// Whether it is the last of its sequence.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    last: bool,
    lease: Option<Lease>,
    settled: Option<SettledLine>,
    spec: SpecLine<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettledLine {
    at: Timestamp,
    outcome: Outcome,
    output: OutputLine,
    manifest: Option<ManifestLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum OutputLine {
    Inline(Base64),
    Blob(BlobLine),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlobLine {
    key: Arc<str>,
    len: u64,
    digest: Exactly<32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestLine {
    logs: Vec<LogEnd>,
    artifacts: Vec<(Name, BlobLine)>,
}

impl BlobLine {
    fn of(blob: &BlobRef) -> Self {
        Self { key: Arc::clone(&blob.key), len: blob.len, digest: Exactly(blob.digest) }
    }

    fn into_blob(self) -> BlobRef {
        BlobRef { key: self.key, len: self.len, digest: self.digest.0 }
    }
}

impl SettledLine {
    fn of(settled: &Settled) -> Self {
        let manifest = |manifest: &Manifest| ManifestLine {
            logs: manifest.logs.clone(),
            artifacts: manifest
                .artifacts
                .iter()
                .map(|of| (of.name.clone(), BlobLine::of(&of.blob)))
                .collect(),
        };
        Self {
            at: settled.at,
            outcome: settled.outcome.clone(),
            output: match &settled.output {
                Output::Inline(bytes) => OutputLine::Inline(Base64(bytes.to_vec())),
                Output::Blob(blob) => OutputLine::Blob(BlobLine::of(blob)),
            },
            manifest: settled.manifest.as_deref().map(manifest),
        }
    }

    fn into_settled(self) -> Settled {
        let artifact = |(name, blob): (Name, BlobLine)| ArtifactEntry { name, blob: blob.into_blob() };
        let manifest = |manifest: ManifestLine| Manifest {
            logs: manifest.logs,
            artifacts: manifest.artifacts.into_iter().map(artifact).collect(),
        };
        Settled {
            at: self.at,
            outcome: self.outcome,
            output: match self.output {
                OutputLine::Inline(bytes) => Output::Inline(bytes.0.into()),
                OutputLine::Blob(blob) => Output::Blob(blob.into_blob()),
            },
            manifest: self.manifest.map(|of| Arc::new(manifest(of))),
        }
    }
}

/// A job, the edges from its parents that are kept, and whether it is the last of its sequence.
type Whole = (Job, Vec<(JobId, bool)>, bool);

impl<'a> JobLine<'a> {
    pub(super) const LINE: &'static str = "job";

    pub(super) fn of(job: &'a Job, edges: &[(JobId, bool)], last: bool) -> Self {
        Self {
            line: Self::LINE,
            id: job.id,
            tenant: job.tenant.clone(),
            state: job.state,
            cause: job.cause,
            version: job.version,
            attempt: job.attempt,
            waits_for: job.waits_for,
            lost_count: job.lost_count,
            generation: job.generation,
            epoch: job.epoch,
            cancel_requested: job.cancel_requested,
            created_at: job.created_at,
            eligible_at: job.eligible_at,
            moved_at: job.moved_at,
            started_at: job.started_at,
            deadline: job.deadline,
            pipeline: job.pipeline,
            unique: job.unique.clone(),
            fingerprint: Exactly(*job.fingerprint.as_bytes()),
            parents: job.parents.to_vec(),
            edges: edges.to_vec(),
            last,
            lease: job.lease.clone(),
            settled: job.settled.as_deref().map(SettledLine::of),
            spec: SpecLine::of(&job.spec),
        }
    }

    pub(super) fn into_job(self) -> crate::Result<Whole> {
        let job = Job {
            id: self.id,
            tenant: self.tenant,
            spec: Arc::new(self.spec.into_spec()?),
            pipeline: self.pipeline,
            parents: self.parents.into(),
            unique: self.unique,
            fingerprint: Fingerprint::from_bytes(self.fingerprint.0),
            created_at: self.created_at,
            deadline: self.deadline,
            state: self.state,
            cause: self.cause,
            cancel_requested: self.cancel_requested,
            version: self.version,
            attempt: self.attempt,
            waits_for: self.waits_for,
            lost_count: self.lost_count,
            generation: self.generation,
            epoch: self.epoch,
            eligible_at: self.eligible_at,
            moved_at: self.moved_at,
            started_at: self.started_at,
            lease: self.lease,
            settled: self.settled.map(|settled| Arc::new(settled.into_settled())),
        };
        Ok((job, self.edges, self.last))
    }
}
