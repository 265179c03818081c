//! Each rule of a spec: at its limit it passes, one beyond it the field, the code and the limit are told.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::error::Result;
use crate::id::{JobId, NAME_MAX, PipelineId, Tenant};
use crate::job::{Encoding, JobKind, JobSpec, NewJob, Parent, Priority, Requires, UNIQUE_KEY_MAX};
use crate::time::Timestamp;

/// Field, code and limit of a fault.
type Told = (String, &'static str, Option<u64>);

fn told<T: std::fmt::Debug>(result: Result<T>) -> Vec<Told> {
    match result {
        Ok(_) => Vec::new(),
        Err(error) => {
            error.faults().iter().map(|fault| (fault.field.clone(), fault.code, fault.limit)).collect()
        }
    }
}

fn command() -> JobSpecBuilder {
    JobSpec::command(["true"])
}

fn handler(args: Vec<u8>) -> JobSpecBuilder {
    let kind = Name::literal("k");
    JobSpecBuilder::handler(Payload::Handler {
        kind,
        version: 1,
        encoding: Encoding::Binary,
        args: args.into(),
    })
}

/// What a row expects: nothing, or exactly one fault.
type Expected = Option<(&'static str, &'static str, Option<u64>)>;
type Row = (JobSpecBuilder, Expected);

fn check(rows: Vec<Row>) {
    for (n, (spec, expected)) in rows.into_iter().enumerate() {
        let expected: Vec<Told> =
            expected.into_iter().map(|(field, code, limit)| (field.to_owned(), code, limit)).collect();
        assert_eq!(told(spec.build()), expected, "row {n}");
    }
}

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

const KIB_128: usize = 128 * 1024;

#[test]
fn arguments() {
    let many = |n: usize| JobSpec::command(vec!["x"; n]);
    let total = |last: usize| {
        let mut argv = vec![text(KIB_128 - 1); 8];
        argv.push(text(last));
        JobSpec::command(argv)
    };
    check(vec![
        (JobSpec::command(Vec::<String>::new()), Some(("argv", "empty", None))),
        (JobSpec::command([""]), Some(("argv[0]", "empty", None))),
        (JobSpec::command(["a", ""]), None),
        (JobSpec::command(["a\0b"]), Some(("argv[0]", "nul", None))),
        (JobSpec::command(["a", "\0"]), Some(("argv[1]", "nul", None))),
        (JobSpec::command(["ñ", "a\nb\u{202e}"]), None),
        (many(4_096), None),
        (many(4_097), Some(("argv", "too_many", Some(4_096)))),
        (JobSpec::command(["a".to_owned(), text(KIB_128 - 1)]), None),
        (JobSpec::command(["a".to_owned(), text(KIB_128)]), Some(("argv[1]", "too_long", Some(131_071)))),
        (total(8), None),
        (total(9), Some(("argv", "too_long", Some(1_048_576)))),
    ]);
}

#[test]
fn environment_names() {
    let env = |name: &str| command().env(name, "v");
    let fault = |code| Some(("env.name", code, None));
    let mut rows = vec![
        (env("A_1"), None),
        (env("_"), None),
        (env("hodei_x"), None),
        (env("LD"), None),
        (env(""), fault("empty")),
        (env("A=B"), fault("has_eq")),
        (env("="), fault("has_eq")),
        (env("1A"), fault("bad_char")),
        (env("Ñ"), fault("bad_char")),
        (env("A B"), fault("bad_char")),
        (env("A\u{200b}"), fault("bad_char")),
        (env("A\0"), fault("nul")),
        (env("HODEI_JOB"), fault("reserved")),
        (env(&text(256)), None),
        (env(&text(257)), Some(("env.name", "too_long", Some(256)))),
        (env("A").env("A", "w"), fault("duplicate")),
        (env("A").secret("A", "ref"), fault("duplicate")),
        (command().secret("A", "r").secret("A", "r"), fault("duplicate")),
        (command().secret("LD_PRELOAD", "r"), fault("denied")),
    ];
    rows.extend(DANGEROUS.into_iter().map(|name| (env(name), fault("denied"))));
    rows.extend(["LD_PRELOAD", "LD_X", "DYLD_INSERT_LIBRARIES"].map(|name| (env(name), fault("denied"))));
    check(rows);
    let limits =
        SpecLimits { allow_env: vec!["LD_PRELOAD".into(), "HODEI_X".into()], ..SpecLimits::default() };
    assert_eq!(told(env("LD_PRELOAD").build_within(&limits)), []);
    let refused = told(env("LD_LIBRARY_PATH").env("HODEI_X", "").build_within(&limits));
    assert_eq!(refused, [("env.name".into(), "denied", None), ("env.name".into(), "reserved", None)]);
}

#[test]
fn environment_values_and_their_number() {
    let many = |n: usize| (0..n).fold(command(), |spec, n| spec.env(format!("A{n}"), ""));
    // Names and values of 1 MiB together, and some bytes more.
    let full = |more: usize| {
        (0..9).fold(command(), |spec, n| {
            let value = if n < 8 { KIB_128 - 4 } else { 8 * 2 - 2 + more };
            spec.env(format!("A{n}"), text(value))
        })
    };
    check(vec![
        (command().env("A", ""), None),
        (command().env("A", "line\nline\tñ"), None),
        (command().env("A", "a\0b"), Some(("env.value", "nul", None))),
        (command().env("A", text(KIB_128 - 1)), None),
        (command().env("A", text(KIB_128)), Some(("env.value", "too_long", Some(131_071)))),
        (many(1_024), None),
        (many(1_025), Some(("env", "too_many", Some(1_024)))),
        (many(1_023).secret("S", "r"), None),
        (many(1_024).secret("S", "r"), Some(("env", "too_many", Some(1_024)))),
        (full(0), None),
        (full(1), Some(("env", "too_long", Some(1_048_576)))),
        (full(0).secret("S", "r"), Some(("env", "too_long", Some(1_048_576)))),
    ]);
}

#[test]
fn texts_of_one_line() {
    type Set = fn(JobSpecBuilder, String) -> JobSpecBuilder;
    let fields: [(&'static str, Set); 3] = [
        ("cwd", |spec, text| spec.cwd(text)),
        ("image", |spec, text| spec.image(text)),
        ("secrets", |spec, text| spec.secret("S", text)),
    ];
    for (field, set) in fields {
        let with = |text: &str| set(command(), text.to_owned());
        check(vec![
            (with("/srv/ñ"), None),
            (with(""), Some((field, "empty", None))),
            (with("a\0"), Some((field, "nul", None))),
            (with("a\nb"), Some((field, "control_char", None))),
            (with("a\u{202e}b"), Some((field, "control_char", None))),
            (with("a\u{200b}b"), Some((field, "control_char", None))),
            (with("a\u{feff}"), Some((field, "control_char", None))),
            (with(&text(4_096)), None),
            (with(&text(4_097)), Some((field, "too_long", Some(4_096)))),
        ]);
    }
}

#[test]
fn names_of_everything() {
    type Set = fn(JobSpecBuilder, String) -> JobSpecBuilder;
    let fields: [(&'static str, Set); 5] = [
        ("name", |spec, name| spec.name(name)),
        ("queue", |spec, name| spec.queue(name)),
        ("labels.name", |spec, name| spec.label(name, "v")),
        ("limit_keys", |spec, name| spec.limited_by(name)),
        ("outputs", |spec, name| spec.output(name)),
    ];
    let bad =
        [".", "..", "a/b", "a\\b", "../x", "a b", "ñ", "n\u{303}", "аcme", "a\u{202e}", "a\u{200b}", "a\0"];
    for (field, set) in fields {
        let with = |name: &str| set(command(), name.to_owned());
        let mut rows = vec![
            (with("A.b-c_9"), None),
            (with("..."), None),
            (with(""), Some((field, "empty", None))),
            (with(&text(NAME_MAX)), None),
            (with(&text(NAME_MAX + 1)), Some((field, "too_long", Some(128)))),
        ];
        rows.extend(bad.iter().map(|name| (with(name), Some((field, "bad_char", None)))));
        check(rows);
        assert_ne!(with("A").build().ok(), with("a").build().ok(), "{field}: no case is folded");
    }
    for bad in bad {
        assert_eq!(told(Tenant::new(bad)), [("name".into(), "bad_char", None)], "{bad:?}");
    }
    for bad in ["", "..", "x", "01890000-0000-7000-8000-00000000000g"] {
        assert_eq!(told(bad.parse::<JobId>()), [("id".into(), "bad_char", None)], "{bad:?}");
        assert_eq!(told(bad.parse::<PipelineId>()), [("id".into(), "bad_char", None)], "{bad:?}");
    }
}

#[test]
fn labels_keys_and_outputs() {
    let labels = |n: usize| (0..n).fold(command(), |spec, n| spec.label(format!("l{n}"), ""));
    let outputs = |n: usize| (0..n).fold(command(), |spec, n| spec.output(format!("o{n}")));
    let keys = |n: usize| (0..n).fold(command(), |spec, n| spec.limited_by(format!("k{n}")));
    let value = |value: &str| command().label("l", value);
    check(vec![
        (labels(64), None),
        (labels(65), Some(("labels", "too_many", Some(64)))),
        (command().label("a", "1").label("a", "2"), Some(("labels.name", "duplicate", None))),
        (command().label("a", "1").label("A", "2"), None),
        (value(""), None),
        (value("ñ می\u{200c}خواهم"), None),
        (value("a\0"), Some(("labels.value", "nul", None))),
        (value("a\nb"), Some(("labels.value", "control_char", None))),
        (value("\u{1b}[2J"), Some(("labels.value", "control_char", None))),
        (value("a\u{202e}b"), Some(("labels.value", "control_char", None))),
        (value("a\u{2066}b"), Some(("labels.value", "control_char", None))),
        (value(&text(4_096)), None),
        (value(&text(4_097)), Some(("labels.value", "too_long", Some(4_096)))),
        (keys(4), None),
        (keys(5), Some(("limit_keys", "too_many", Some(4)))),
        (command().limited_by("k").limited_by("k"), Some(("limit_keys", "duplicate", None))),
        (outputs(64), None),
        (outputs(65), Some(("outputs", "too_many", Some(64)))),
        (command().output("o").output("o"), Some(("outputs", "duplicate", None))),
    ]);
}

#[test]
fn durations_retries_and_priority() {
    const YEAR: Duration = Duration::from_secs(31_622_400);
    let beyond = YEAR + Duration::from_micros(1);
    let timeout = |timeout| command().timeout(timeout);
    let retry = |policy| command().retry(policy);
    let attempts = |n| retry(RetryPolicy::attempts(n));
    let waits = |backoff| retry(RetryPolicy::attempts(2).backoff(backoff));
    let large = Some(("retry.backoff", "too_large", Some(31_622_400)));
    check(vec![
        (timeout(Duration::from_micros(1)), None),
        (timeout(YEAR), None),
        (timeout(beyond), Some(("timeout", "too_large", Some(31_622_400)))),
        (timeout(Duration::MAX), Some(("timeout", "too_large", Some(31_622_400)))),
        (timeout(Duration::ZERO), Some(("timeout", "zero", None))),
        (timeout(Duration::from_nanos(999)), Some(("timeout", "zero", None))),
        (attempts(0), Some(("retry.max_attempts", "zero", None))),
        (attempts(1), None),
        (attempts(1_000), None),
        (attempts(1_001), Some(("retry.max_attempts", "too_large", Some(1_000)))),
        (attempts(u32::MAX), Some(("retry.max_attempts", "too_large", Some(1_000)))),
        (waits(Backoff::Fixed(YEAR)), None),
        (waits(Backoff::Fixed(beyond)), large),
        (waits(Backoff::Linear { step: Duration::MAX, max: YEAR }), None),
        (waits(Backoff::Linear { step: Duration::ZERO, max: beyond }), large),
        (waits(Backoff::Exponential { base: Duration::MAX, max: YEAR }), None),
        (waits(Backoff::Exponential { base: Duration::ZERO, max: Duration::MAX }), large),
        (
            retry(RetryPolicy::attempts(2).on(FailureClass::Error, RetryRule::After(Backoff::Fixed(beyond)))),
            large,
        ),
    ]);
    let rules = |n: usize| {
        let rules = vec![(FailureClass::Error, RetryRule::Never); n].into_boxed_slice();
        retry(RetryPolicy { rules, ..RetryPolicy::default() })
    };
    let most = FailureClass::ALL.len();
    let each = FailureClass::ALL
        .into_iter()
        .fold(RetryPolicy::default(), |policy, class| policy.on(class, RetryRule::Never));
    check(vec![(retry(each), None), (rules(most + 1), Some(("retry.rules", "too_many", Some(most as u64))))]);
    assert_eq!(Priority::new(63).unwrap(), Priority::MAX);
    assert_eq!(told(Priority::new(64)), [("priority".into(), "too_large", Some(63))]);
    assert_eq!(told(Priority::new(u8::MAX)), [("priority".into(), "too_large", Some(63))]);
}

#[test]
fn resources_are_bounded() {
    let with = |resources| command().resources(resources);
    let none = Resources::none;
    let gpu = || Name::literal("tpu");
    let many =
        |n: usize| with((0..n).fold(none(), |all, n| all.custom(Name::new(format!("r{n}")).unwrap(), 1)));
    let most = Some(Resources::MAX);
    check(vec![
        (with(none()), None),
        (with(none().cpu_millis(Resources::MAX).memory(Resources::MAX).gpus(u32::MAX)), None),
        (with(none().cpu_millis(Resources::MAX + 1)), Some(("resources.cpu_millis", "too_large", most))),
        (with(none().cpu_millis(u64::MAX)), Some(("resources.cpu_millis", "too_large", most))),
        (with(none().memory(Resources::MAX + 1)), Some(("resources.memory", "too_large", most))),
        (with(none().custom(gpu(), Resources::MAX)), None),
        (with(none().custom(gpu(), Resources::MAX + 1)), Some(("resources.tpu", "too_large", most))),
        (many(64), None),
        (many(65), Some(("resources", "too_many", Some(64)))),
    ]);
}

#[test]
fn payloads() {
    const MIB: usize = 1024 * 1024;
    check(vec![
        (handler(vec![]), None),
        (handler(vec![0; MIB]), None),
        (handler(vec![0; MIB + 1]), Some(("payload", "too_long", Some(1_048_576)))),
        (handler(vec![0; 100 * MIB]), Some(("payload", "too_long", Some(1_048_576)))),
        (
            JobSpecBuilder::handler(Payload::Command(Default::default())),
            Some(("payload", "not_handler", None)),
        ),
        (handler(vec![]).env("A", "b"), Some(("env", "not_for_handlers", None))),
        (handler(vec![]).secret("A", "b"), Some(("secrets", "not_for_handlers", None))),
        (handler(vec![]).cwd("/"), Some(("cwd", "not_for_handlers", None))),
        (handler(vec![]).image("i"), Some(("image", "not_for_handlers", None))),
        (handler(vec![]).output("o"), Some(("outputs", "not_for_handlers", None))),
    ]);
}

#[test]
fn every_fault_is_told_at_once() {
    let all =
        told(JobSpec::command([""]).name("").queue("..").env("A=", "\0").timeout(Duration::ZERO).build());
    let codes: Vec<_> = all.iter().map(|(field, code, _)| (field.as_str(), *code)).collect();
    let expected = [
        ("name", "empty"),
        ("queue", "bad_char"),
        ("argv[0]", "empty"),
        ("env.name", "has_eq"),
        ("env.value", "nul"),
        ("timeout", "zero"),
    ];
    assert_eq!(codes, expected);
}

fn job() -> NewJob {
    NewJob::new(command().build().unwrap()).id(JobId::from_parts(1, Tenant::default().slot(), 0))
}

fn parent(n: u64, requires: Requires) -> Parent {
    Parent { id: JobId::from_parts(n, Tenant::default().slot(), 0), requires }
}

#[test]
fn submissions_are_checked() {
    let tenant = Tenant::new("acme").unwrap();
    let (success, ended) = (Requires::Success, Requires::Ended);
    let cases: Vec<(NewJob, Expected)> = vec![
        (job(), None),
        (NewJob { tenant, ..job() }, Some(("id", "wrong_slot", None))),
        (job().unique("k"), None),
        (job().unique(""), Some(("unique", "empty", None))),
        (job().unique("a\0"), Some(("unique", "nul", None))),
        (job().unique(text(UNIQUE_KEY_MAX)), None),
        (job().unique(text(UNIQUE_KEY_MAX + 1)), Some(("unique", "too_long", Some(256)))),
        (job().after([parent(2, success), parent(3, ended)]), None),
        (job().after([parent(1, success)]), Some(("parents", "self", None))),
        (job().after([parent(2, success), parent(2, ended)]), Some(("parents", "duplicate", None))),
    ];
    for (n, (job, expected)) in cases.into_iter().enumerate() {
        let expected: Vec<Told> =
            expected.into_iter().map(|(field, code, limit)| (field.to_owned(), code, limit)).collect();
        assert_eq!(told(job.check()), expected, "row {n}");
    }
}

fn assert_all_differ<T: std::fmt::Debug + PartialEq>(prints: &[T]) {
    for (n, print) in prints.iter().enumerate() {
        assert_eq!(prints.iter().position(|other| other == print), Some(n), "{n} is as another");
    }
}

#[test]
fn fingerprints_of_specs_tell_every_field() {
    let resources = Resources::none;
    let exact = RetryPolicy::attempts(2).exact();
    let second = Duration::from_secs(1);
    let variants = || {
        vec![
            command(),
            JobSpec::command(["true", ""]),
            JobSpec::command(["tru", "e"]),
            command().name("n"),
            command().queue("q"),
            command().priority(Priority::MAX),
            command().resources(resources().cpu_millis(1)),
            command().resources(resources().memory(1)),
            command().resources(resources().gpus(1)),
            command().resources(resources().custom(Name::literal("a"), 1)),
            command().resources(resources().custom(Name::literal("a"), 2)),
            command().timeout(second),
            command().timeout(second + Duration::from_micros(1)),
            command().retry(RetryPolicy::attempts(2)),
            command().retry(exact.clone()),
            command().retry(exact.clone().backoff(Backoff::Fixed(second))),
            command().retry(exact.clone().backoff(Backoff::Linear { step: second, max: second })),
            command().retry(exact.clone().backoff(Backoff::Exponential { base: second, max: second })),
            command().retry(exact.clone().on(FailureClass::Error, RetryRule::Never)),
            command().label("a", "b"),
            command().label("b", "a"),
            command().env("a", "b"),
            command().secret("a", "b"),
            command().cwd("a"),
            command().image("a"),
            command().output("a"),
            command().limited_by("a"),
            handler(vec![]),
            handler(vec![0]),
        ]
    };
    let prints = |specs: Vec<JobSpecBuilder>| -> Vec<_> {
        specs.into_iter().map(|spec| spec.build().unwrap().fingerprint()).collect()
    };
    assert_eq!(prints(variants()), prints(variants()));
    assert_all_differ(&prints(variants()));
    let of = |kind: &'static str, version, encoding| {
        let payload =
            Payload::Handler { kind: Name::literal(kind), version, encoding, args: Bytes::from_static(b"1") };
        JobSpecBuilder::handler(payload).name("n").build().unwrap().fingerprint()
    };
    assert_all_differ(&[
        of("a", 1, Encoding::Json),
        of("b", 1, Encoding::Json),
        of("a", 2, Encoding::Json),
        of("a", 1, Encoding::Binary),
    ]);
}

#[test]
fn fingerprints_of_submissions_tell_every_field_but_the_id() {
    let at = Timestamp::from_micros;
    let pipeline = |n| PipelineId::from_parts(n, Tenant::default().slot(), 0);
    let variants = || {
        vec![
            job(),
            NewJob { tenant: Tenant::new("acme").unwrap(), ..job() },
            NewJob { spec: command().queue("q").build().unwrap().into(), ..job() },
            job().run_at(at(1)),
            job().run_at(at(2)),
            job().deadline(at(1)),
            job().unique("a"),
            job().unique("b"),
            job().after([parent(2, Requires::Success)]),
            job().after([parent(2, Requires::Ended)]),
            job().after([parent(3, Requires::Success)]),
            job().after([parent(2, Requires::Success), parent(3, Requires::Success)]),
            job().in_pipeline(pipeline(1)),
            job().in_pipeline(pipeline(2)),
        ]
    };
    let prints: Vec<_> = variants().iter().map(NewJob::fingerprint).collect();
    assert_eq!(prints, variants().iter().map(NewJob::fingerprint).collect::<Vec<_>>());
    assert_all_differ(&prints);
    let other_id = job().id(JobId::from_parts(9, Tenant::default().slot(), 9));
    assert_eq!(other_id.fingerprint(), job().fingerprint());
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Resize {
    width: u32,
    name: String,
}

impl JobKind for Resize {
    const KIND: &'static str = "resize";
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct NoName(f64);

impl JobKind for NoName {
    const KIND: &'static str = "no name";
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Other {}

impl JobKind for Other {
    const KIND: &'static str = "other";
}

#[test]
fn arguments_of_handlers_come_back() {
    let args = Resize { width: 640, name: "a\0\"ñ\u{202e}".into() };
    let payload = Payload::of(&args).unwrap();
    assert_eq!(payload.args::<Resize>().unwrap(), args);
    let spec = JobSpec::of(&args).unwrap().build().unwrap();
    assert_eq!((spec.name().as_str(), spec.payload()), ("resize", &payload));
    assert_eq!(told(Payload::of(&NoName(1.0))), [("name".into(), "bad_char", None)]);
    let wrong = payload.args::<Other>().unwrap_err();
    assert_eq!((wrong.kind(), wrong.context("kind")), (crate::ErrorKind::Invalid, Some("resize")));
    let raw = |args: &'static [u8], encoding| Payload::Handler {
        kind: Name::literal("resize"),
        version: 1,
        encoding,
        args: Bytes::from_static(args),
    };
    let bad = [("args".to_owned(), "bad_json", None)];
    let bytes: [&[u8]; 5] =
        [b"", b"{", br#"{"width":1e999,"name":""}"#, br#"{"width":1,"name":"\ud800"}"#, b"\xff"];
    for args in bytes {
        assert_eq!(told(raw(args, Encoding::Json).args::<Resize>()), bad, "{args:?}");
    }
    let not_json = [("payload".to_owned(), "not_json_handler", None)];
    assert_eq!(told(raw(b"", Encoding::Binary).args::<Resize>()), not_json);
    assert_eq!(told(Payload::Command(Default::default()).args::<Resize>()), not_json);
}
