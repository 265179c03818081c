//! Values of every kind, chosen at random.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hodei_core::job::{
    ArtifactEntry, Backoff, BlobRef, Cause, Command, CommandMore, Encoding, Epoch, Exit, Failure,
    FailureClass, Fingerprint, Job, JobSpec, Lease, LogEnd, Manifest, NewJob, Outcome, Output, Parent,
    Payload, Priority, RequestClass, Requires, Resources, RetryPolicy, RetryRule, Settled, SpecParts, State,
    Stream, rules,
};
use hodei_core::store::Change;
use hodei_core::text::{TextMap, Texts};
use hodei_core::{JobId, Name, OwnerId, PipelineId, Tenant, Timestamp};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

pub(super) fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9_-]{1,24}".prop_map(|text| Name::new(text).expect("only what names may hold"))
}

fn text() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| text.replace('\0', "\u{1}"))
}

fn texts() -> impl Strategy<Value = Texts> {
    vec(text(), 0..5).prop_map(|items| Texts::new(items).expect("no text has a NUL"))
}

fn map() -> impl Strategy<Value = TextMap> {
    vec((text(), text()), 0..5).prop_map(|pairs| TextMap::new(pairs).expect("no text has a NUL"))
}

pub(super) fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_micros)
}

fn wait() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos))
}

pub(super) fn state() -> impl Strategy<Value = State> {
    select(&State::ALL[..])
}

fn id() -> impl Strategy<Value = JobId> {
    any::<[u8; 16]>().prop_map(JobId::from_bytes)
}

fn resources() -> impl Strategy<Value = Resources> {
    (any::<(u64, u64, u32)>(), vec((name(), any::<u64>()), 0..4)).prop_map(|((cpu, memory, gpus), custom)| {
        let fixed = Resources::none().cpu_millis(cpu).memory(memory).gpus(gpus);
        custom.into_iter().fold(fixed, |all, (name, amount)| all.custom(name, amount))
    })
}

fn backoff() -> impl Strategy<Value = Backoff> {
    prop_oneof![
        wait().prop_map(Backoff::Fixed),
        (wait(), wait()).prop_map(|(step, max)| Backoff::Linear { step, max }),
        (wait(), wait()).prop_map(|(base, max)| Backoff::Exponential { base, max }),
    ]
}

fn class() -> impl Strategy<Value = FailureClass> {
    select(&FailureClass::ALL[..])
}

fn retry() -> impl Strategy<Value = RetryPolicy> {
    let rule = prop_oneof![Just(RetryRule::Never), backoff().prop_map(RetryRule::After)];
    (any::<u32>(), backoff(), any::<bool>(), vec((class(), rule), 0..4)).prop_map(
        |(max_attempts, backoff, jitter, rules)| RetryPolicy {
            max_attempts,
            backoff,
            jitter,
            rules: rules.into_boxed_slice(),
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    let more = (map(), of(text()), of(text()), texts()).prop_map(|(secrets, cwd, image, outputs)| {
        let (cwd, image) = (cwd.map(String::into_boxed_str), image.map(String::into_boxed_str));
        Box::new(CommandMore { secrets, cwd, image, outputs })
    });
    (texts(), map(), of(more)).prop_map(|(argv, env, more)| Command { argv, env, more })
}

fn payload() -> impl Strategy<Value = Payload> {
    let encoding = select(&[Encoding::Json, Encoding::Binary][..]);
    let handler = (name(), any::<u16>(), encoding, vec(any::<u8>(), 0..64));
    prop_oneof![
        command().prop_map(Payload::Command),
        handler.prop_map(|(kind, version, encoding, args)| Payload::Handler {
            kind,
            version,
            encoding,
            args: Bytes::from(args),
        }),
    ]
}

/// A spec of any parts, be they valid or not: a row keeps what it is given.
pub(super) fn spec() -> impl Strategy<Value = JobSpec> {
    let small = (name(), name(), payload(), resources(), 0..=Priority::MAX.level());
    let rest = (of(wait()), of(retry()), map(), texts(), any::<u64>(), any::<[u8; 16]>());
    (small, rest).prop_map(|((name, queue, payload, resources, level), rest)| {
        let (timeout, retry, labels, limit_keys, class, fingerprint) = rest;
        let priority = Priority::new(level).expect("a level of the range");
        let retry = retry.map(Box::new);
        let parts =
            SpecParts { name, queue, payload, resources, priority, timeout, retry, labels, limit_keys };
        JobSpec::restore(parts, RequestClass::from_number(class), Fingerprint::from_bytes(fingerprint))
    })
}

fn blob() -> impl Strategy<Value = BlobRef> {
    (text(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(key, len, digest)| BlobRef {
        key: Arc::from(key),
        len,
        digest,
    })
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let log = (select(&Stream::ALL[..]), any::<(u64, u64, u32)>())
        .prop_map(|(stream, (kept, dropped, crc32))| LogEnd { stream, kept, dropped, crc32 });
    let artifact = (name(), blob()).prop_map(|(name, blob)| ArtifactEntry { name, blob });
    (vec(log, 0..4), vec(artifact, 0..3)).prop_map(|(logs, artifacts)| Manifest { logs, artifacts })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let exit = prop_oneof![any::<i32>().prop_map(Exit::Code), any::<i32>().prop_map(Exit::Signal)];
    let failure = (class(), text(), of(exit)).prop_map(|(class, message, exit)| Failure {
        class,
        message: Arc::from(message),
        exit,
    });
    prop_oneof![Just(Outcome::Succeeded), Just(Outcome::Cancelled), failure.prop_map(Outcome::Failed)]
}

pub(super) fn settled() -> impl Strategy<Value = Settled> {
    let output = prop_oneof![
        vec(any::<u8>(), 0..64).prop_map(|bytes| Output::Inline(Bytes::from(bytes))),
        blob().prop_map(Output::Blob),
    ];
    (time(), outcome(), output, of(manifest())).prop_map(|(at, outcome, output, manifest)| Settled {
        at,
        outcome,
        output,
        manifest: manifest.map(Arc::new),
    })
}

fn lease() -> impl Strategy<Value = Lease> {
    (name(), any::<u64>()).prop_map(|(owner, incarnation)| Lease { owner: OwnerId::from(owner), incarnation })
}

/// A submission, admitted at any time.
pub(super) fn newborn() -> impl Strategy<Value = Job> {
    let parent = (id(), select(&[Requires::Success, Requires::Ended][..]))
        .prop_map(|(id, requires)| Parent { id, requires });
    let rest = (of(text()), of(time()), vec(parent, 0..4), of(any::<[u8; 16]>()));
    (id(), name(), spec(), time(), rest).prop_map(|(id, tenant, spec, now, rest)| {
        let (unique, deadline, parents, pipeline) = rest;
        let new = NewJob {
            unique: unique.map(Arc::from),
            deadline,
            pipeline: pipeline.map(PipelineId::from_bytes),
            ..NewJob::of(Tenant::from(tenant), spec).id(id).after(parents)
        };
        rules::admit(new, now).0
    })
}

/// A job whose record says anything.
pub(super) fn job() -> impl Strategy<Value = Job> {
    let where_it_is = (state(), select(&Cause::ALL[..]), any::<bool>(), of(lease()), of(settled()));
    let numbers = any::<(u32, u32, u32, u16, u16, u64)>();
    (newborn(), where_it_is, numbers, (time(), time(), of(time()))).prop_map(
        |(job, (state, cause, cancel_requested, lease, settled), numbers, times)| {
            let (version, attempt, waits_for, lost_count, generation, epoch) = numbers;
            let (eligible_at, moved_at, started_at) = times;
            let epoch = Epoch::from_number(epoch);
            let settled = settled.map(Arc::new);
            Job {
                state,
                cause,
                cancel_requested,
                lease,
                settled,
                version,
                attempt,
                waits_for,
                lost_count,
                generation,
                epoch,
                eligible_at,
                moved_at,
                started_at,
                ..job
            }
        },
    )
}

/// What a job would have recorded of its last transition.
pub(super) fn change() -> impl Strategy<Value = Change> {
    (job(), of(state())).prop_map(|(job, from)| Change::of(&job, from))
}
