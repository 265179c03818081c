//! What a row of a tier holds: a record in JSON, sealed.
//!
//! A sealed row is 1 byte of version, 8 bytes of expiry (little-endian microseconds), 32 bytes of keyed BLAKE3 over the
//! version, the id, the expiry and the JSON, and the JSON.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{JobId, Name, PipelineId, Tenant};
use crate::job::{
    Cause, Epoch, Fingerprint, Generation, Job, JobSpec, Manifest, Outcome, Output, Parent, Payload,
    Priority, RequestClass, Resources, RetryPolicy, Settled, SpecParts, State,
};
use crate::text::{TextMap, Texts};
use crate::time::Timestamp;

/// The version of this layout.
const VERSION: u8 = 1;
/// Where the hash begins, and where the JSON does.
const HASH: usize = 9;
const JSON: usize = HASH + 32;

/// The record of a job that succeeded; what such a record cannot have is not written.
#[derive(Serialize, Deserialize)]
struct Row<'a> {
    tenant: Cow<'a, Tenant>,
    spec: Spec<'a>,
    pipeline: Option<PipelineId>,
    parents: Cow<'a, [Parent]>,
    unique: Option<Cow<'a, str>>,
    fingerprint: Fingerprint,
    created_at: Timestamp,
    deadline: Option<Timestamp>,
    cause: Cause,
    cancel_requested: bool,
    version: u32,
    attempt: u32,
    lost_count: u16,
    generation: Generation,
    epoch: Epoch,
    eligible_at: Timestamp,
    moved_at: Timestamp,
    started_at: Option<Timestamp>,
    settled_at: Timestamp,
    outcome: Cow<'a, Outcome>,
    output: Cow<'a, Output>,
    manifest: Option<Cow<'a, Manifest>>,
}

#[derive(Serialize, Deserialize)]
struct Spec<'a> {
    name: Cow<'a, Name>,
    queue: Cow<'a, Name>,
    payload: Cow<'a, Payload>,
    resources: Cow<'a, Resources>,
    priority: Priority,
    timeout: Option<Duration>,
    retry: Option<Cow<'a, RetryPolicy>>,
    labels: Cow<'a, TextMap>,
    limit_keys: Cow<'a, Texts>,
    class: RequestClass,
    fingerprint: Fingerprint,
}

/// Writes a record down; `None` where it is not one of a job that succeeded, or cannot be written.
pub(super) fn seal(key: &[u8; 32], job: &Job, until: Timestamp) -> Option<Bytes> {
    let settled = job.settled.as_deref().filter(|_| is_final(job))?;
    let mut bytes = Vec::with_capacity(2_048);
    bytes.push(VERSION);
    bytes.extend_from_slice(&until.as_micros().to_le_bytes());
    bytes.extend_from_slice(&[0; 32]);
    serde_json::to_writer(&mut bytes, &Row::of(job, settled)).ok()?;
    let hash = hash(key, job.id, &bytes)?;
    bytes[HASH..JSON].copy_from_slice(hash.as_bytes());
    Some(bytes.into())
}

/// Reads the record of a job; `None` where the row is not one that [`seal`] made of it under this key, or is too old.
pub(super) fn open(key: &[u8; 32], id: JobId, bytes: &[u8], now: Timestamp) -> Option<Job> {
    let expected = hash(key, id, bytes)?;
    let sealed: [u8; 32] = bytes.get(HASH..JSON)?.try_into().ok()?;
    // The comparison of hashes takes the same time wherever they differ.
    if bytes[0] != VERSION || expected != sealed {
        return None;
    }
    let until = i64::from_le_bytes(bytes[1..HASH].try_into().ok()?);
    if Timestamp::from_micros(until) <= now {
        return None;
    }
    let row: Row<'_> = serde_json::from_slice(&bytes[JSON..]).ok()?;
    let job = row.into_job(id);
    is_final(&job).then_some(job)
}

fn is_final(job: &Job) -> bool {
    job.state == State::Succeeded && job.settled.is_some() && job.waits_for == 0 && job.lease.is_none()
}

fn hash(key: &[u8; 32], id: JobId, bytes: &[u8]) -> Option<blake3::Hash> {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(bytes.get(..HASH)?).update(id.as_bytes()).update(bytes.get(JSON..)?);
    Some(hasher.finalize())
}

impl<'a> Row<'a> {
    fn of(job: &'a Job, settled: &'a Settled) -> Self {
        Self {
            tenant: Cow::Borrowed(&job.tenant),
            spec: Spec::of(&job.spec),
            pipeline: job.pipeline,
            parents: Cow::Borrowed(&job.parents),
            unique: job.unique.as_deref().map(Cow::Borrowed),
            fingerprint: job.fingerprint,
            created_at: job.created_at,
            deadline: job.deadline,
            cause: job.cause,
            cancel_requested: job.cancel_requested,
            version: job.version,
            attempt: job.attempt,
            lost_count: job.lost_count,
            generation: job.generation,
            epoch: job.epoch,
            eligible_at: job.eligible_at,
            moved_at: job.moved_at,
            started_at: job.started_at,
            settled_at: settled.at,
            outcome: Cow::Borrowed(&settled.outcome),
            output: Cow::Borrowed(&settled.output),
            manifest: settled.manifest.as_deref().map(Cow::Borrowed),
        }
    }

    fn into_job(self, id: JobId) -> Job {
        let settled = Settled {
            at: self.settled_at,
            outcome: self.outcome.into_owned(),
            output: self.output.into_owned(),
            manifest: self.manifest.map(|manifest| Arc::new(manifest.into_owned())),
        };
        Job {
            id,
            tenant: self.tenant.into_owned(),
            spec: Arc::new(self.spec.into_spec()),
            pipeline: self.pipeline,
            parents: self.parents.into_owned().into(),
            unique: self.unique.map(|key| key.as_ref().into()),
            fingerprint: self.fingerprint,
            created_at: self.created_at,
            deadline: self.deadline,
            state: State::Succeeded,
            cause: self.cause,
            cancel_requested: self.cancel_requested,
            version: self.version,
            attempt: self.attempt,
            waits_for: 0,
            lost_count: self.lost_count,
            generation: self.generation,
            epoch: self.epoch,
            eligible_at: self.eligible_at,
            moved_at: self.moved_at,
            started_at: self.started_at,
            lease: None,
            settled: Some(Arc::new(settled)),
        }
    }
}

impl<'a> Spec<'a> {
    fn of(spec: &'a JobSpec) -> Self {
        let parts = spec.parts();
        Self {
            name: Cow::Borrowed(&parts.name),
            queue: Cow::Borrowed(&parts.queue),
            payload: Cow::Borrowed(&parts.payload),
            resources: Cow::Borrowed(&parts.resources),
            priority: parts.priority,
            timeout: parts.timeout,
            retry: parts.retry.as_deref().map(Cow::Borrowed),
            labels: Cow::Borrowed(&parts.labels),
            limit_keys: Cow::Borrowed(&parts.limit_keys),
            class: spec.class(),
            fingerprint: spec.fingerprint(),
        }
    }

    fn into_spec(self) -> JobSpec {
        let parts = SpecParts {
            name: self.name.into_owned(),
            queue: self.queue.into_owned(),
            payload: self.payload.into_owned(),
            resources: self.resources.into_owned(),
            priority: self.priority,
            timeout: self.timeout,
            retry: self.retry.map(|retry| Box::new(retry.into_owned())),
            labels: self.labels.into_owned(),
            limit_keys: self.limit_keys.into_owned(),
        };
        JobSpec::restore(parts, self.class, self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{
        ArtifactEntry, BlobRef, Encoding, FailureClass, LogEnd, NewJob, Requires, Stream, rules,
    };

    const KEY: [u8; 32] = [7; 32];
    const NOW: Timestamp = Timestamp::from_micros(1_000);
    const UNTIL: Timestamp = Timestamp::from_micros(2_000);

    fn spec(handler: bool) -> JobSpec {
        let name = |text| Name::new(text).unwrap();
        let resources = Resources::none().cpu_millis(5).memory(6).gpus(7).custom(name("disk"), 8);
        let spec = if handler {
            let args = Bytes::from_static(b"\x00\xffargs");
            crate::job::JobSpecBuilder::handler(Payload::Handler {
                kind: name("kind"),
                version: 3,
                encoding: Encoding::Binary,
                args,
            })
        } else {
            let command =
                JobSpec::command(["a", "ñ"]).env("E", "1").secret("S", "ref").cwd("/").output("out");
            command.image("image")
        };
        let retry = RetryPolicy::attempts(3);
        let spec = spec.name("n").queue("q").resources(resources).timeout(Duration::from_micros(77));
        spec.retry(retry).label("l", "v").limited_by("key").priority(Priority::MAX).build().unwrap()
    }

    fn job(handler: bool, output: Output) -> Job {
        let tenant = Tenant::new("acme").unwrap();
        let parent = Parent { id: JobId::from_parts(1, tenant.slot(), 2), requires: Requires::Ended };
        let new = NewJob::of(tenant.clone(), spec(handler)).unique("u").after([parent]);
        let (mut job, _) = rules::admit(new.deadline(UNTIL), NOW);
        let blob = BlobRef { key: "key".into(), len: 9, digest: [3; 32] };
        let manifest = Manifest {
            logs: vec![LogEnd { stream: Stream::Stderr, kept: 1, dropped: 2, crc32: 3 }],
            artifacts: vec![ArtifactEntry { name: Name::new("a").unwrap(), blob }],
        };
        job.state = State::Succeeded;
        (job.waits_for, job.version, job.attempt, job.started_at) = (0, 9, 2, Some(NOW));
        let manifest = Some(Arc::new(manifest));
        job.settled = Some(Arc::new(Settled { at: NOW, outcome: Outcome::Succeeded, output, manifest }));
        job
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let blob = BlobRef { key: "key".into(), len: 9, digest: [3; 32] };
        for output in [Output::none(), Output::Inline(Bytes::from_static(b"\x00\xfe")), Output::Blob(blob)] {
            for handler in [false, true] {
                let job = job(handler, output.clone());
                let bytes = seal(&KEY, &job, UNTIL).unwrap();
                assert_eq!(open(&KEY, job.id, &bytes, NOW), Some(job));
            }
        }
    }

    #[test]
    fn only_what_nothing_changes_any_more_is_written() {
        let mut job = job(false, Output::none());
        job.state = State::Failed;
        let failure = crate::job::Failure::new(FailureClass::Error, "no");
        let outcome = Outcome::Failed(failure);
        job.settled = Some(Arc::new(Settled { at: NOW, outcome, output: Output::none(), manifest: None }));
        assert_eq!(seal(&KEY, &job, UNTIL), None);
    }

    #[test]
    fn no_damage_no_other_job_no_other_key_and_no_age_is_let_through() {
        let job = job(false, Output::none());
        let bytes = seal(&KEY, &job, UNTIL).unwrap();
        for n in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[n] ^= 1;
            assert_eq!(open(&KEY, job.id, &damaged, NOW), None, "a bit of byte {n}");
            assert_eq!(open(&KEY, job.id, &bytes[..n], NOW), None, "cut off at {n}");
        }
        let other = JobId::from_parts(9, job.id.slot(), 9);
        assert_eq!(open(&KEY, other, &bytes, NOW), None);
        assert_eq!(open(&[8; 32], job.id, &bytes, NOW), None);
        assert_eq!(open(&KEY, job.id, &bytes, UNTIL), None);
    }
}
