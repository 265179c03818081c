//! What was written is read, and nothing that was not written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hodei_core::job::{
    ArtifactEntry, Backoff, BlobRef, Cause, Encoding, Epoch, Exit, Failure, FailureClass, JobSpec,
    JobSpecBuilder, LogEnd, Manifest, Outcome, Output, Parent, Payload, Requires, Resources, RetryPolicy,
    RetryRule, State, Stream,
};
use hodei_core::store::Change;
use hodei_core::{JobId, Name, PipelineId, Tenant, Timestamp};

use super::buffer::{Reader, Writer};
use super::*;

fn specs() -> Vec<JobSpec> {
    let rich = JobSpec::command(["sh", "-c", "true"])
        .name("build")
        .queue("ci")
        .env("A", "b")
        .resources(
            Resources::none().cpu_millis(500).memory(1 << 30).gpus(1).custom(Name::literal("licence"), 2),
        )
        .timeout(Duration::from_millis(1_500))
        .retry(
            RetryPolicy::attempts(7)
                .backoff(Backoff::Linear { step: Duration::from_secs(1), max: Duration::from_secs(9) })
                .on(FailureClass::Timeout, RetryRule::Never)
                .on(FailureClass::Exit, RetryRule::After(Backoff::Fixed(Duration::from_nanos(1_500)))),
        )
        .limited_by("db");
    vec![JobSpec::command(["/bin/true"]).build().expect("a valid spec"), rich.build().expect("a valid spec")]
}

fn columns(spec: &JobSpec) -> SpecColumns {
    SpecColumns {
        name: spec.name().clone(),
        queue: spec.queue().clone(),
        priority: spec.priority(),
        class: spec.class(),
    }
}

/// Specs that have each of what few have, and none of the rest of it.
fn specs_with_one_thing() -> Vec<JobSpec> {
    let command = || JobSpec::command(["/bin/true", ""]);
    let handler = |version, encoding| {
        let (kind, args) = (Name::literal("mail"), Bytes::from_static(b"{}"));
        JobSpecBuilder::handler(Payload::Handler { kind, version, encoding, args })
    };
    let built = [
        handler(1, Encoding::Json),
        handler(1, Encoding::Json).name("other"),
        handler(2, Encoding::Json),
        handler(1, Encoding::Binary),
        handler(1, Encoding::Json).timeout(Duration::from_millis(1)),
        command().env("A", ""),
        command().cwd("/"),
        command().resources(Resources::none().memory(1)),
        command().retry(RetryPolicy::attempts(2)),
        command().label("a", "b"),
        command().limited_by("db"),
    ];
    built.into_iter().map(|spec| spec.build().expect("a valid spec")).collect()
}

#[test]
fn a_body_comes_back_and_no_part_of_it_does() {
    let parent = Parent { id: JobId::from_bytes([7; 16]), requires: Requires::Ended };
    for spec in specs().into_iter().chain(specs_with_one_thing()) {
        for (unique, parents) in [(None, &[][..]), (Some("k"), &[][..]), (Some("k"), &[parent][..])] {
            for layout in [Bodies::Lean, Bodies::AsBefore] {
                let bytes = layout.bytes(unique, parents, &spec);
                let body = body_of(&bytes, columns(&spec)).expect("what was written is read");
                assert_eq!((&*body.spec, &*body.parents, body.unique.as_deref()), (&spec, parents, unique));
                for cut in 0..bytes.len() {
                    assert!(body_of(&bytes[..cut], columns(&spec)).is_err(), "cut at {cut}");
                }
                let longer = [&bytes[..], &[0]].concat();
                assert!(body_of(&longer, columns(&spec)).is_err());
            }
        }
    }
}

#[test]
fn a_lean_body_has_two_bytes_beside_what_is_to_be_done() {
    let [command, _] = &specs()[..] else { unreachable!() };
    assert_eq!(Bodies::Lean.bytes(None, &[], command).len(), 2 + b"/bin/true\0".len());
    assert_eq!(Bodies::Lean.bytes(None, &[], &specs_with_one_thing()[0]).len(), 2 + b"{}".len());
}

#[test]
fn specs_and_requests_come_back() {
    for spec in specs() {
        assert_eq!(spec_of(&spec_bytes(&spec)).expect("it is read"), spec);
        let request = spec.request();
        assert_eq!(request_of(&request_bytes(&request)).expect("it is read"), request);
    }
}

#[test]
fn ends_come_back() {
    let blob = BlobRef { key: "k".into(), len: 9, digest: [3; 32] };
    let manifest = Manifest {
        logs: vec![LogEnd { stream: Stream::Stderr, kept: 5, dropped: 1, crc32: 0xdead_beef }],
        artifacts: vec![ArtifactEntry { name: Name::literal("a"), blob: blob.clone() }],
    };
    let failure = Failure::new(FailureClass::Exit, "no").exit(Exit::Code(-3));
    let (at, moved) = (Timestamp::from_micros(-5), Timestamp::from_micros(77));
    for outcome in [Outcome::Succeeded, Outcome::Cancelled, Outcome::Failed(failure)] {
        for output in [Output::none(), Output::Inline(Bytes::from_static(b"x")), Output::Blob(blob.clone())] {
            let bytes = end_bytes(&outcome, &output, Some(&manifest), Some(at));
            let read = end_of(&bytes, moved).expect("it is read");
            assert_eq!((read.at, &read.outcome, &read.output), (at, &outcome, &output));
            assert_eq!(read.manifest, Some(Arc::new(manifest.clone())));
            let bare = end_of(&end_bytes(&outcome, &output, None, None), moved).expect("it is read");
            assert_eq!((bare.at, bare.manifest), (moved, None));
        }
    }
}

#[test]
fn changes_come_back() {
    let tenant = Tenant::default();
    let change = |from, pipeline| Change {
        job: JobId::from_bytes([9; 16]),
        tenant: tenant.clone(),
        queue: None,
        pipeline,
        version: 3,
        from,
        to: State::Failed,
        cause: Cause::LostTooOften,
        attempt: 2,
        epoch: Epoch::from_number(u64::MAX),
        at: Timestamp::from_micros(5),
    };
    let piped = change(Some(State::Running), Some(PipelineId::from_bytes([1; 16])));
    let of = |change: &Change, job| Change { job: JobId::from_bytes([job; 16]), ..change.clone() };
    let all = [
        change(None, None),
        piped.clone(),
        of(&piped, 2),
        of(&piped, 3),
        of(&change(None, None), 4),
        of(&change(None, None), 5),
    ];
    let bytes = changes_bytes(&all);
    assert_eq!(read_changes(&bytes, &tenant, Timestamp::from_micros(5)).expect("they are read"), all);
    assert!(read_changes(&bytes[..bytes.len() - 1], &tenant, Timestamp::from_micros(5)).is_err());
}

#[test]
fn numbers_come_back() {
    for number in [0, 1, -1, 63, -64, 64, 1 << 40, i64::MIN, i64::MAX] {
        let mut to = Writer::of_layout(0);
        to.signed(number);
        to.number(number.cast_unsigned());
        let bytes = to.finish();
        let mut from = Reader::of_layout(&bytes, 0).expect("the layout");
        assert_eq!((from.signed().ok(), from.number().ok()), (Some(number), Some(number.cast_unsigned())));
        assert!(from.end().is_ok());
    }
}
