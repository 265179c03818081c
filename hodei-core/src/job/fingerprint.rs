//! The fingerprint that tells a repeated submission from another one under the same id or key.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::new::{NewJob, Parent};
use super::payload::{Encoding, Payload};
use super::retry::{Backoff, RetryPolicy, RetryRule};
use super::spec::{JobSpec, SpecParts};
use super::unique::UniqueParts;
use crate::id::{PipelineId, Tenant};
use crate::time::{Timestamp, micros};

/// How many bytes most submissions have at most.
const SHORT: usize = 512;

/// The first sixteen bytes of a BLAKE3 hash of a submission.
///
/// The bytes that are hashed, so that any program can make the same: every number little-endian; every text and
/// byte string behind its length as 8 bytes; every optional part behind one byte, 0 or 1; every list behind its
/// length as 8 bytes; durations and times as 8 bytes of microseconds. A spec is, in this order: `hodei spec 1`,
/// name, queue, priority (1 byte), payload (0, kind, version as 2 bytes, encoding as 1 byte, args — or 1, argv
/// packed, env packed, and optionally secrets packed, directory, image, outputs packed; "packed" ends every text
/// with a zero byte), CPU, memory, GPUs (4 bytes), the list of other resources as (name, amount), optional timeout,
/// optional retry policy (attempts as 4 bytes, backoff, jitter as 1 byte, the list of rules as (class, 0 or 1 and
/// backoff)), labels packed, limit keys packed. A backoff is 0 and a wait, 1, step and max, or 2, base and max. A submission is:
/// `hodei job 1`, the sixteen bytes of its spec, tenant, optional run time, optional deadline, optional unique key,
/// optional pipeline id, the list of parents as (id, 0 when it must succeed, 1 when it must end or 2 when it must fail).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// Takes the bytes, as stored rows keep them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(super) fn of_spec(parts: &SpecParts) -> Self {
        let mut hash = Hash::new(b"hodei spec 1");
        hash.text(parts.name.as_str());
        hash.text(parts.queue.as_str());
        hash.byte(parts.priority.level());
        hash.payload(&parts.payload);
        hash.number(parts.resources.cpu_millis);
        hash.number(parts.resources.memory);
        hash.0.extend_from_slice(&parts.resources.gpus.to_le_bytes());
        hash.number(parts.resources.customs().len() as u64);
        for (name, amount) in parts.resources.customs() {
            hash.text(name.as_str());
            hash.number(amount);
        }
        hash.optional(parts.timeout.as_ref(), |hash, timeout| hash.duration(*timeout));
        hash.optional(parts.retry.as_deref(), Hash::retry);
        hash.text(parts.labels.texts().packed());
        hash.text(parts.limit_keys.packed());
        hash.finish()
    }

    /// Hashes what a key tells jobs apart by.
    pub(super) fn of_unique(parts: &UniqueParts<'_>) -> Self {
        let mut hash = Hash::new(b"hodei unique 1");
        hash.optional(parts.kind, Hash::text);
        hash.optional(parts.payload, Hash::payload);
        hash.optional(parts.queue, Hash::text);
        hash.optional(parts.period.as_ref(), |hash, (length, number)| {
            hash.time(*length);
            hash.time(*number);
        });
        hash.finish()
    }

    pub(super) fn of_job(job: &NewJob) -> Self {
        let NewJob { tenant, spec, unique, parents, pipeline, .. } = job;
        let times = (job.run_at, job.deadline);
        Self::of_submission(spec, tenant, times, unique.as_deref(), *pipeline, parents)
    }

    /// Makes the fingerprint of a submission again that had no time to run and no deadline, as stores do which do not write
    /// down the fingerprints of such.
    #[must_use]
    pub fn of_untimed(
        spec: &JobSpec,
        tenant: &Tenant,
        unique: Option<&str>,
        pipeline: Option<PipelineId>,
        parents: &[Parent],
    ) -> Self {
        Self::of_submission(spec, tenant, (None, None), unique, pipeline, parents)
    }

    fn of_submission(
        spec: &JobSpec,
        tenant: &Tenant,
        (run_at, deadline): (Option<Timestamp>, Option<Timestamp>),
        unique: Option<&str>,
        pipeline: Option<PipelineId>,
        parents: &[Parent],
    ) -> Self {
        let mut hash = Hash::new(b"hodei job 1");
        hash.0.extend_from_slice(spec.fingerprint().as_bytes());
        hash.text(tenant.as_str());
        hash.optional(run_at.as_ref(), |hash, at| hash.time(at.as_micros()));
        hash.optional(deadline.as_ref(), |hash, at| hash.time(at.as_micros()));
        hash.optional(unique, Hash::text);
        hash.optional(pipeline.as_ref(), |hash, id| {
            hash.0.extend_from_slice(id.as_bytes());
        });
        hash.number(parents.len() as u64);
        for parent in parents {
            hash.0.extend_from_slice(parent.id.as_bytes());
            hash.byte(parent.requires.number());
        }
        hash.finish()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The bytes to hash, collected: for the short ones of a submission one call costs less than a hasher that takes them
/// piece by piece.
struct Hash(Vec<u8>);

impl Hash {
    fn new(begin: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(SHORT);
        bytes.extend_from_slice(begin);
        Self(bytes)
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn time(&mut self, micros: i64) {
        self.0.extend_from_slice(&micros.to_le_bytes());
    }

    fn duration(&mut self, duration: Duration) {
        self.time(micros(duration));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn optional<T: ?Sized>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn payload(&mut self, payload: &Payload) {
        match payload {
            Payload::Handler { kind, version, encoding, args } => {
                self.byte(0);
                self.text(kind.as_str());
                self.0.extend_from_slice(&version.to_le_bytes());
                self.byte(u8::from(*encoding == Encoding::Binary));
                self.bytes(args);
            }
            Payload::Command(command) => {
                self.byte(1);
                self.text(command.argv.packed());
                self.text(command.env.texts().packed());
                self.optional(command.more.as_deref(), |hash, more| {
                    hash.text(more.secrets.texts().packed());
                    hash.optional(more.cwd.as_deref(), Self::text);
                    hash.optional(more.image.as_deref(), Self::text);
                    hash.text(more.outputs.packed());
                });
            }
        }
    }

    fn backoff(&mut self, backoff: &Backoff) {
        match *backoff {
            Backoff::Fixed(wait) => {
                self.byte(0);
                self.duration(wait);
            }
            Backoff::Linear { step, max } => {
                self.byte(1);
                self.duration(step);
                self.duration(max);
            }
            Backoff::Exponential { base, max } => {
                self.byte(2);
                self.duration(base);
                self.duration(max);
            }
        }
    }

    fn retry(&mut self, policy: &RetryPolicy) {
        self.0.extend_from_slice(&policy.max_attempts.to_le_bytes());
        self.backoff(&policy.backoff);
        self.byte(u8::from(policy.jitter));
        self.number(policy.rules.len() as u64);
        for (class, rule) in &policy.rules {
            self.byte(*class as u8);
            match rule {
                RetryRule::Never => self.byte(0),
                RetryRule::After(backoff) => {
                    self.byte(1);
                    self.backoff(backoff);
                }
            }
        }
    }

    fn finish(self) -> Fingerprint {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(&self.0).as_bytes()[..16]);
        Fingerprint(bytes)
    }
}
