use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::id::{JobId, Name, OwnerId, PipelineId, Tenant};
use crate::job::{
    ArtifactEntry, Backoff, BlobRef, Encoding, Failure, FailureClass, Job, JobSpec, JobSpecBuilder, Lease,
    LogEnd, Manifest, NewJob, Outcome, Output, Parent, Payload, Priority, Requires, Resources, RetryPolicy,
    Settled, SpecLimits, State, Stream, rules,
};
use crate::store::policy::{Limit, QueuePolicy, Schedule};
use crate::store::{Rate, SlotRow, Spent};
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn name(text: &'static str) -> Name {
    Name::literal(text)
}

fn id(n: u64) -> JobId {
    JobId::from_parts(n, Tenant::default().slot(), n)
}

fn handler() -> JobSpec {
    let payload = Payload::Handler {
        kind: name("mail.send"),
        version: 3,
        encoding: Encoding::Binary,
        args: Bytes::from_static(&[0, 255, 1]),
    };
    JobSpecBuilder::handler(payload).build().unwrap()
}

fn command() -> JobSpec {
    let spec = JobSpec::command(["/bin/true", "", "größe"]).name("full").queue("night").env("HOME", "/");
    let spec = spec.secret("TOKEN", "vault/token").cwd("/work").image("alpine:3").output("sum");
    let spec = spec.resources(Resources::none().cpu_millis(5).gpus(2).custom(name("licence"), 3));
    let retry = RetryPolicy::attempts(9).backoff(Backoff::Fixed(Duration::from_millis(1_500)));
    let spec = spec.priority(Priority::MAX).timeout(Duration::new(5, 7_000)).retry(retry);
    spec.label("team", "größe").sequence("s").limited_by("db").limited_by("net").build().unwrap()
}

fn settled(outcome: Outcome, output: Output) -> Option<Arc<Settled>> {
    let blob = BlobRef { key: "a/b".into(), len: 1 << 40, digest: [0xab; 32] };
    let manifest = Manifest {
        logs: vec![LogEnd { stream: Stream::Stderr, kept: 1, dropped: 2, crc32: 3 }],
        artifacts: vec![ArtifactEntry { name: name("report"), blob }],
    };
    Some(Arc::new(Settled { at: NOW, outcome, output, manifest: Some(Arc::new(manifest)) }))
}

fn jobs() -> Vec<(Job, Vec<(JobId, bool)>)> {
    let new = |n, spec: JobSpec| NewJob::new(spec).id(id(n));
    let plain = rules::admit(new(1, handler()), NOW).0;
    let parents = [1, 2].map(|n| Parent { id: id(n), requires: Requires::Ended });
    let blocked = new(3, command()).after(parents).unique("once").deadline(Timestamp::MAX);
    let pipeline = PipelineId::from_parts(9, Tenant::default().slot(), 9);
    let blocked = rules::admit_behind(blocked.in_pipeline(pipeline), Some(id(2)), NOW).0;
    let mut running = rules::admit(new(4, command()), NOW).0;
    (running.state, running.version, running.started_at) = (State::Running, 3, Some(NOW));
    running.lease = Some(Lease { owner: OwnerId::from(name("node")), incarnation: 7 });
    let failure = Failure::new(FailureClass::Exit, "it \"broke\"\n");
    running.settled = settled(Outcome::Failed(failure), Output::Inline(Bytes::from_static(b"\0\xfe")));
    let mut done = rules::admit(new(5, handler()), NOW).0;
    (done.state, done.version) = (State::Succeeded, 4);
    let blob = BlobRef { key: "k".into(), len: 3, digest: [1; 32] };
    done.settled = settled(Outcome::Succeeded, Output::Blob(blob));
    vec![(plain, vec![]), (blocked, vec![(id(1), false), (id(2), false)]), (running, vec![]), (done, vec![])]
}

fn rows() -> Vec<SlotRow> {
    let tenant = Tenant::default;
    let spec = Arc::new(handler());
    let rows = [
        SlotRow::Queue(QueuePolicy { tenant: tenant(), queue: name("night"), paused: true, weight: 5 }),
        SlotRow::Limit(Limit::key(tenant(), name("db"), 4), Spent::default()),
        SlotRow::Schedule(Schedule {
            tenant: tenant(),
            name: name("nightly"),
            rule: "0 3 * * *".into(),
            spec,
            last_fired: Some(NOW),
        }),
    ];
    let job = |(job, edges): (Job, _)| {
        let last = job.spec.sequence().is_some();
        SlotRow::Job { job: Box::new(job), edges, last }
    };
    rows.into_iter().chain(jobs().into_iter().map(job)).collect()
}

fn text(rows: &[SlotRow]) -> String {
    let mut text = Vec::new();
    let mut lines = LineWriter::new(&mut text).unwrap();
    rows.iter().for_each(|row| lines.row(row).unwrap());
    lines.finish().unwrap();
    String::from_utf8(text).unwrap()
}

fn read(text: &str) -> Result<(Vec<SlotRow>, LineCounts), Error> {
    let mut lines = LineReader::new(text.as_bytes())?;
    let mut rows = Vec::new();
    while let Some(row) = lines.next_row()? {
        let LineRow::Row(row) = row else { panic!("nothing else was written") };
        rows.push(row);
    }
    assert_eq!(lines.next_row()?, None, "the end stays the end");
    Ok((rows, lines.counts()))
}

#[test]
fn what_was_written_is_read_and_written_again_as_it_was() {
    let written = text(&rows());
    let (read, counts) = read(&written).unwrap();
    assert_eq!(read, rows());
    assert_eq!(text(&read), written);
    assert_eq!((counts.queues, counts.limits, counts.schedules, counts.jobs.total()), (1, 1, 1, 4));
    assert!(read_jobs(&read).zip(jobs()).all(|(read, (job, _))| read.spec.class() == job.spec.class()));
}

fn read_jobs(rows: &[SlotRow]) -> impl Iterator<Item = &Job> {
    rows.iter().filter_map(|row| match row {
        SlotRow::Job { job, .. } => Some(&**job),
        SlotRow::Queue(_) | SlotRow::Limit(..) | SlotRow::Schedule(_) => None,
    })
}

#[test]
fn a_text_that_is_cut_off_anywhere_is_not_taken_for_whole() {
    let whole = text(&rows());
    for cut in (0..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
        assert_eq!(read(&whole[..cut]).unwrap_err().kind(), ErrorKind::Invalid, "cut at {cut}");
    }
    let lines: Vec<&str> = whole.lines().collect();
    for gone in 1..lines.len() - 1 {
        let without: String = lines
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != gone)
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        let error = read(&without).unwrap_err();
        assert_eq!(error.faults()[0].code, "another_count", "without line {}", gone + 1);
    }
}

#[test]
fn limits_of_every_kind_are_written_and_read() {
    let (tenant, name) = (Tenant::default, name("night"));
    let limits = [
        Limit::all(100),
        Limit::tenant(tenant(), 50),
        Limit::queue(tenant(), name.clone(), 10),
        Limit::key(tenant(), name.clone(), 4),
    ];
    let rows = limits.map(|limit| SlotRow::Limit(limit, Spent::default()));
    assert_eq!(read(&text(&rows)).unwrap().0, rows);
    let rate = Rate::new(3, Duration::from_secs(1)).burst(9);
    let paced = Limit::key(tenant(), name, 4).rate(rate);
    let rows = [SlotRow::Limit(paced, rate.claim(Spent::default(), 2, 1, NOW))];
    assert_eq!(read(&text(&rows)).unwrap().0, rows);
    let error = read(&text(&rows).replace("\"tokens\":3", "\"tokens\":0")).unwrap_err();
    assert_eq!((error.faults()[0].field.as_str(), error.faults()[0].code), ("rate.tokens", "zero"));
}

/// Changes the text of a line, and returns what is said of it: line, field, code.
fn refused(line: usize, from: &str, to: &str) -> (String, String, &'static str) {
    let whole = text(&rows());
    let mangled: String = whole
        .lines()
        .enumerate()
        .map(|(n, text)| {
            assert!(n + 1 != line || text.contains(from), "{from} in {text}");
            if n + 1 == line { text.replacen(from, to, 1) + "\n" } else { text.to_owned() + "\n" }
        })
        .collect();
    let error = read(&mangled).expect_err(to);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let fault = &error.faults()[0];
    (error.context("line").unwrap_or_default().to_owned(), fault.field.clone(), fault.code)
}

#[test]
fn a_bad_line_is_named_with_its_field() {
    let long = format!("\"unique\":\"{}\"", "u".repeat(257));
    let cases = [
        (1, "hodei", "other", "format", "unknown"),
        (2, "\"weight\":5", "\"weight\":0", "weight", "zero"),
        (2, "\"weight\":5", "\"weight\":-5", "weight", "bad_value"),
        (2, "\"line\":\"queue\"", "\"line\":\"queues\"", "line", "unknown"),
        (3, "\"max\":4", "\"max\":4,\"min\":3", "min", "bad_value"),
        (3, "\"tenant\":\"default\",", "", "limit", "of_nothing"),
        (3, "\"key\":\"db\",", "\"key\":\"db\",\"queue\":\"q\",", "limit", "of_nothing"),
        (4, "AP8B", "AP8", "spec.payload.handler.args", "bad_value"),
        (5, "\"version\":1,", "\"version\":0,", "version", "zero"),
        (5, "\"state\":\"Pending\"", "\"state\":\"Done\"", "state", "bad_value"),
        (5, "\"state\":\"Pending\"", "\"state\":\"Running\"", "lease", "not_of_this_state"),
        (5, "\"tenant\":\"default\"", "\"tenant\":\"acme\"", "id", "wrong_slot"),
        (6, "\"unique\":\"once\"", long.as_str(), "unique", "too_long"),
        (6, "\"waits_for\":2", "\"waits_for\":3", "waits_for", "another_count"),
        (5, "\"version\":1,", "\"version\":4294967295,", "version", "too_high"),
        (5, "\"attempt\":0,", "\"attempt\":4294967295,", "attempt", "too_high"),
        (5, "\"epoch\":0,", "\"epoch\":18446744073709551615,", "epoch", "too_high"),
        (6, "\"waits_for\":2", "\"waits_for\":0", "waits_for", "another_count"),
        (6, "\"cwd\":\"/work\"", "\"cwd\":7", "spec.payload.command.more.cwd", "bad_value"),
        (6, "\"priority\":63", "\"priority\":64", "priority", "too_large"),
        (7, "\"fingerprint\":\"", "\"fingerprint\":\"AAAA", "fingerprint", "bad_value"),
        (8, "\"settled\":{", "\"settled\":null,\"was\":{", "was", "bad_value"),
        (9, "\"queues\":1", "\"queues\":2", "queues", "another_count"),
    ];
    for (line, from, to, field, code) in cases {
        let said = refused(line, from, to);
        assert_eq!(
            (said.0.as_str(), said.1.as_str(), said.2),
            (line.to_string().as_str(), field, code),
            "{to}"
        );
    }
}

#[test]
fn other_versions_other_texts_and_endless_lines_are_refused() {
    let newer = text(&[]).replace("\"version\":1", "\"version\":2");
    let error = read(&newer).unwrap_err();
    assert_eq!((error.kind(), error.context("version")), (ErrorKind::SchemaTooNew, Some("2")));
    for other in ["", "\n", "{}\n", "hello\n", "[1]\n", "{\"line\":\"header\"}\n"] {
        assert_eq!(read(other).unwrap_err().kind(), ErrorKind::Invalid, "{other:?}");
    }
    let behind = text(&[]) + "{\"line\":\"queue\"}\n";
    assert_eq!(read(&behind).unwrap_err().faults()[0].code, "behind_the_end");
    let header = text(&[]).lines().next().unwrap().to_owned() + "\n";
    let endless = std::io::BufReader::new(header.as_bytes().chain(std::io::repeat(b'x')));
    let error = LineReader::new(endless).unwrap().next_row().unwrap_err();
    assert_eq!((error.faults()[0].code, error.context("line")), ("too_long", Some("2")));
}

#[test]
fn what_was_let_through_under_other_limits_is_read_again() {
    let mut limits = SpecLimits::default();
    (limits.arg_bytes, limits.argv_bytes, limits.limit_keys) = (usize::MAX, usize::MAX, 9);
    limits.duration = Duration::from_secs(1_000 * 24 * 3_600);
    limits.allow_env = vec!["LD_PRELOAD".into()];
    let spec = JobSpec::command(["x".repeat(2 << 20)]).env("LD_PRELOAD", "lib.so").timeout(limits.duration);
    let spec = ["a", "b", "c", "d", "e"].iter().fold(spec, |spec, key| spec.limited_by(*key));
    let wide = spec.build_within(&limits).unwrap();
    let payload = Payload::Handler {
        kind: name("mail.send"),
        version: 1,
        encoding: Encoding::Binary,
        args: vec![7; (1 << 20) + 100].into(),
    };
    limits.payload_bytes = usize::MAX;
    let long = JobSpecBuilder::handler(payload).build_within(&limits).unwrap();
    let mut done = rules::admit(NewJob::new(long).id(id(5)), NOW).0;
    (done.state, done.version) = (State::Succeeded, 4);
    done.settled = settled(Outcome::Succeeded, Output::Inline(vec![1; 100 << 10].into()));
    let jobs = [rules::admit(NewJob::new(wide).id(id(1)), NOW).0, done];
    let rows = jobs.map(|job| SlotRow::Job { job: Box::new(job), edges: Vec::new(), last: false });
    assert_eq!(read(&text(&rows)).unwrap().0, rows);
}

#[test]
fn a_line_that_no_reader_would_take_is_not_written() {
    let mut done = jobs().pop().unwrap().0;
    done.settled = settled(Outcome::Succeeded, Output::Inline(vec![1; LINE_MAX / 4 * 3].into()));
    let mut out = Vec::new();
    let mut lines = LineWriter::new(&mut out).unwrap();
    let row = SlotRow::Job { job: Box::new(done), edges: Vec::new(), last: false };
    assert_eq!(lines.row(&row).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn checkpoints_are_lines_of_their_own_and_are_counted() {
    let job = jobs()[0].0.clone();
    let saved = [Some(Bytes::from_static(b"half")), Some(Bytes::new()), None];
    let all = saved.map(|saved| crate::checkpoint::Checkpoint {
        tenant: job.tenant.clone(),
        job: job.id,
        fence: crate::job::Epoch::from_number(7),
        saved,
    });
    let mut out = Vec::new();
    let mut lines = LineWriter::new(&mut out).unwrap();
    all.iter().for_each(|checkpoint| lines.checkpoint(checkpoint).unwrap());
    assert_eq!(lines.finish().unwrap().checkpoints, 3);
    let text = String::from_utf8(out).unwrap();
    let mut lines = LineReader::new(text.as_bytes()).unwrap();
    for checkpoint in all {
        assert_eq!(lines.next_row().unwrap(), Some(LineRow::Checkpoint(checkpoint)));
    }
    assert_eq!(lines.next_row().unwrap(), None);
    let less = text.replace("\"checkpoints\":3", "\"checkpoints\":2");
    let mut lines = LineReader::new(less.as_bytes()).unwrap();
    let error = (0..4).find_map(|_| lines.next_row().err()).expect("it counts another number");
    assert_eq!((error.faults()[0].field.as_str(), error.faults()[0].code), ("checkpoints", "another_count"));
}
