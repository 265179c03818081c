//! One row of each kind and shape, always the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hodei_core::job::{
    ArtifactEntry, Backoff, BlobRef, Cause, Encoding, Epoch, Exit, Failure, FailureClass, Job, JobSpec,
    JobSpecBuilder, Lease, LogEnd, Manifest, NewJob, Outcome, Output, Parent, Payload, Priority, Requires,
    Resources, RetryPolicy, RetryRule, Settled, State, Stream, rules,
};
use hodei_core::store::{Change, Counts, Limit, LimitOf, Note, QueuePolicy, Rate, Schedule, Spent};
use hodei_core::testkit::typical_spec;
use hodei_core::{Error, ErrorKind, JobId, Name, OwnerId, PipelineId, Result, Tenant, Timestamp};

use crate::codec::{self, Head, Names, OwnerRow, Shown, TermRow};
use crate::memory::{Moving, Phase};
use crate::table::Tab;

/// A row, and how its kind is read and written again.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) row: Vec<u8>,
    again: fn(&[u8]) -> Result<Vec<u8>>,
}

/// Where the samples are stored.
const PLACE: (Tab, &[u8]) = (Tab::Meta, b"sample");

/// Writes a row as it is stored.
pub(crate) fn sealed(row: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    codec::seal(PLACE.0, PLACE.1, row, &mut sealed);
    sealed
}

impl Sample {
    /// Reads a stored row of this kind, and writes what was read.
    pub(crate) fn again(&self, sealed_row: &[u8]) -> Result<Vec<u8>> {
        (self.again)(codec::unseal(PLACE.0, PLACE.1, sealed_row)?).map(|row| sealed(&row))
    }
}

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

pub(super) fn id(n: u64) -> JobId {
    JobId::from_parts(1_700_000_000_000 << 12 | n, Tenant::default().slot(), n)
}

fn lease() -> Lease {
    Lease { owner: OwnerId::new("node-1").expect("a name"), incarnation: 7 }
}

fn blob() -> BlobRef {
    BlobRef { key: Arc::from("blobs/7"), len: 1 << 40, digest: [0xab; 32] }
}

/// The typical job, just submitted.
pub(super) fn plain() -> Job {
    let spec = typical_spec().build().expect("the typical spec is valid");
    rules::admit(NewJob::new(spec).id(id(1)), NOW).0
}

/// A job in which every field says something.
pub(super) fn full() -> Job {
    let spec = JobSpec::command(["/bin/true", "", "-x"])
        .name("full")
        .queue("night")
        .secret("TOKEN", "vault/token")
        .env("HOME", "/")
        .cwd("/work")
        .image("alpine:3")
        .output("sum")
        .resources(Resources::none().gpus(2).custom(Name::literal("licence"), 3))
        .priority(Priority::MAX)
        .timeout(Duration::new(5, 7))
        .retry(
            RetryPolicy::attempts(9)
                .backoff(Backoff::Linear { step: Duration::from_millis(1), max: Duration::from_secs(2) })
                .on(FailureClass::Timeout, RetryRule::Never)
                .on(FailureClass::Exit, RetryRule::After(Backoff::Fixed(Duration::from_secs(3)))),
        )
        .label("team", "größe")
        .limited_by("db")
        .limited_by("net");
    let mut new = NewJob::new(spec.build().expect("a valid spec"))
        .id(id(2))
        .unique("once")
        .deadline(Timestamp::from_micros(NOW.as_micros() + 300))
        .after([
            Parent { id: id(3), requires: Requires::Success },
            Parent { id: id(4), requires: Requires::Ended },
        ]);
    // As a step was once: it had its turns with the jobs of no pipeline.
    new.pipeline = Some(PipelineId::from_parts(9, Tenant::default().slot(), 9));
    let mut job = rules::admit(new, NOW).0;
    job.state = State::Running;
    job.cause = Cause::Started;
    job.cancel_requested = true;
    (job.version, job.attempt, job.waits_for) = (300, 2, 1);
    (job.lost_count, job.generation, job.epoch) = (1, 2, Epoch::from_number(70_000));
    job.started_at = Some(Timestamp::from_micros(-1));
    job.lease = Some(lease());
    let [_, failed, _] = ends();
    job.settled = Some(Arc::new(failed));
    job
}

fn handler_spec() -> JobSpecBuilder {
    JobSpecBuilder::handler(Payload::Handler {
        kind: Name::literal("mail.send"),
        version: 3,
        encoding: Encoding::Binary,
        args: Bytes::from_static(&[0, 255, 1]),
    })
}

fn handled() -> Job {
    rules::admit(NewJob::new(handler_spec().build().expect("a valid spec")).id(id(5)), NOW).0
}

fn ends() -> [Settled; 3] {
    let end = |outcome, output, manifest| Settled { at: NOW, outcome, output, manifest };
    let failure = Failure::new(FailureClass::Signal, "killed").exit(Exit::Signal(9));
    let manifest = Manifest {
        logs: vec![LogEnd { stream: Stream::Stderr, kept: 1_000, dropped: 1, crc32: 0xdead_beef }],
        artifacts: vec![ArtifactEntry { name: Name::literal("report.txt"), blob: blob() }],
    };
    [
        end(Outcome::Succeeded, Output::Inline(Bytes::from_static(b"{\"sum\":\"7\"}")), None),
        end(Outcome::Failed(failure), Output::none(), Some(Arc::new(manifest))),
        end(Outcome::Cancelled, Output::Blob(blob()), None),
    ]
}

/// Writes the head of a job.
pub(super) fn head(job: &Job) -> Vec<u8> {
    head_row(&Head::of(job.clone(), 9)).expect("a small row")
}

pub(super) fn head_row(head: &Head) -> Result<Vec<u8>> {
    let mut row = Vec::new();
    codec::head_row(head, &mut row).map(|()| row)
}

pub(super) fn born_row(job: &Job, batch: u64) -> Result<Vec<u8>> {
    let (mut work, mut row) = (Vec::new(), Vec::new());
    codec::work_part(&job.spec, &mut work)?;
    codec::born_row(job, &work, batch, &mut row).map(|()| row)
}

/// Writes what a job is born with.
pub(super) fn born(job: &Job) -> Vec<u8> {
    born_row(job, 9).expect("a small row")
}

/// Holds what lists show to the whole: what is a row one way is the same row the other way.
fn agree(head: &Head, shown: Result<Shown>) -> Result<()> {
    let same = shown.is_ok_and(|shown| (shown.summary, shown.newborn) == (head.summary(), head.is_newborn()));
    if same { Ok(()) } else { Err(Error::new(ErrorKind::Bug, "row.decode")) }
}

fn head_again(bytes: &[u8]) -> Result<Vec<u8>> {
    let shown = codec::shown(id(2), bytes, &mut Names::default());
    let head = codec::head(id(2), bytes, &mut Names::default())?;
    agree(&head, shown)?;
    head_row(&head)
}

fn born_again(bytes: &[u8]) -> Result<Vec<u8>> {
    let shown = codec::newborn_shown(id(2), bytes, &mut Names::default());
    let (head, fixed) = codec::born(id(2), bytes, &mut Names::default(), |_| None)?;
    agree(&head, shown)?;
    let batch = head.batch;
    born_row(&head.full(fixed, None), batch)
}

fn schedule() -> Vec<u8> {
    let schedule = Schedule {
        tenant: Tenant::default(),
        name: Name::literal("nightly"),
        rule: Arc::from("0 3 * * *"),
        spec: Arc::new(handler_spec().build().expect("a valid spec")),
        last_fired: Some(NOW),
    };
    codec::schedule_row(&schedule).expect("a small row")
}

fn term_again(bytes: &[u8]) -> Result<Vec<u8>> {
    codec::encode(&codec::decode::<TermRow<'_>>(bytes)?, 64)
}

fn job_samples() -> Vec<Sample> {
    let end_again = |bytes: &[u8]| codec::end_row(&codec::end(bytes)?);
    let [well, badly, cancelled] = ends().map(|end| codec::end_row(&end).expect("a small row"));
    vec![
        Sample { name: "head", row: head(&plain()), again: head_again },
        Sample { name: "head-full", row: head(&full()), again: head_again },
        Sample { name: "born", row: born(&plain()), again: born_again },
        Sample { name: "born-full", row: born(&full()), again: born_again },
        Sample { name: "born-handler", row: born(&handled()), again: born_again },
        Sample { name: "end-succeeded", row: well, again: end_again },
        Sample { name: "end-failed", row: badly, again: end_again },
        Sample { name: "end-cancelled", row: cancelled, again: end_again },
    ]
}

fn limit_again(bytes: &[u8]) -> Result<Vec<u8>> {
    codec::limit_row(&codec::limit(bytes)?)
}

fn other_samples() -> Vec<Sample> {
    let tenant = Tenant::default;
    let limit = Limit::key(tenant(), Name::literal("db"), 4);
    let queue = QueuePolicy { tenant: tenant(), queue: Name::literal("night"), paused: true, weight: 5 };
    let term = TermRow { number: 3, owner: "node-1", incarnation: 7, expires_at: i64::MIN };
    let owner = OwnerRow { incarnation: 7, expires_at: NOW.as_micros() };
    let rows = [
        codec::changes_row(&[Change::of(&full(), Some(State::Scheduled))]),
        codec::changes_row(&[Change::of(&plain(), None), Change::of(&full(), None)]),
        codec::limit_row(&limit),
        codec::queue_row(&queue),
        codec::encode(&owner, 32),
        codec::encode(&term, 64),
        codec::id_row(id(1)),
        codec::number_row(1),
    ];
    let [change, changes, limit, queue, owner, term, text, number] =
        rows.map(|row| row.expect("a small row"));
    let changes_again = |bytes: &[u8]| codec::changes_row(&codec::changes(bytes)?);
    vec![
        Sample { name: "change", row: change, again: changes_again },
        Sample { name: "changes", row: changes, again: changes_again },
        Sample { name: "limit", row: limit, again: limit_again },
        Sample { name: "queue", row: queue, again: |bytes| codec::queue_row(&codec::queue(bytes)?) },
        Sample {
            name: "schedule",
            row: schedule(),
            again: |bytes| codec::schedule_row(&codec::schedule(bytes)?),
        },
        Sample {
            name: "edge",
            row: codec::edge_row(Requires::Ended, true).expect("a small row"),
            again: |bytes| codec::edge(bytes).and_then(|(requires, told)| codec::edge_row(requires, told)),
        },
        Sample {
            name: "batch",
            row: codec::ids_row(&[id(1), id(2)]).expect("a small row"),
            again: |bytes| codec::ids_row(&codec::ids(bytes)?),
        },
        Sample {
            name: "owner",
            row: owner,
            again: |bytes| codec::encode(&codec::decode::<OwnerRow>(bytes)?, 32),
        },
        Sample { name: "term", row: term, again: term_again },
        Sample { name: "id", row: text, again: |bytes| codec::id_row(codec::id(bytes)?) },
        Sample { name: "number", row: number, again: |bytes| codec::number_row(codec::number(bytes)?) },
    ]
}

/// What schema 3 has beside the rows of schema 2.
fn third_samples() -> Vec<Sample> {
    let moving = Moving { number: 300, phase: Phase::Closing, from: 70_000 };
    let note = Note { version: 2, value: Bytes::from_static(b"a map") };
    let rows = [codec::slot_row(&moving), codec::note_row(&note)];
    let [slot, note] = rows.map(|row| row.expect("a small row"));
    vec![
        Sample { name: "slot", row: slot, again: |bytes| codec::slot_row(&codec::slot(bytes)?) },
        Sample { name: "note", row: note, again: |bytes| codec::note_row(&codec::note(bytes)?) },
    ]
}

/// What schema 4 has beside the rows of schema 3.
fn fourth_samples() -> Vec<Sample> {
    let edge_again =
        |bytes: &[u8]| codec::edge(bytes).and_then(|(requires, told)| codec::edge_row(requires, told));
    let edge = |name, requires| {
        let row = codec::edge_row(requires, false).expect("a small row");
        Sample { name, row, again: edge_again }
    };
    let fence = Epoch::from_number(300);
    let rows = [codec::checkpoint_row(fence, Some(b"half")), codec::checkpoint_row(fence, None)];
    let [saved, opened] = rows.map(|row| row.expect("a small row"));
    let again = |bytes: &[u8]| {
        codec::checkpoint(bytes).and_then(|(fence, saved)| codec::checkpoint_row(fence, saved.as_deref()))
    };
    let limit = |name, limit| {
        let row = codec::limit_row(&limit).expect("a small row");
        Sample { name, row, again: limit_again }
    };
    let tenant = Tenant::default;
    vec![
        edge("edge-turn", Requires::Turn),
        edge("edge-success-in-turn", Requires::SuccessInTurn),
        Sample { name: "checkpoint", row: saved, again },
        Sample { name: "checkpoint-opened", row: opened, again },
        limit("limit-queue", Limit::queue(tenant(), Name::literal("night"), 8)),
        limit("limit-tenant", Limit::tenant(tenant(), 16)),
        limit("limit-all", Limit::all(32)),
    ]
}

/// What schema 6 has in the place of the counts of those before, and beside them.
fn sixth_samples() -> Vec<Sample> {
    let counts = Counts::from_numbers([0, 1, 250, 251, 65_536, u64::MAX, 3]);
    let row = codec::counts_row(&Tenant::default(), &Name::literal("night"), &counts).expect("a small row");
    let again = |bytes: &[u8]| {
        codec::counts(bytes).and_then(|of| codec::counts_row(&of.tenant, &of.queue, &of.counts))
    };
    let of = LimitOf::Queue(Tenant::default(), Name::literal("night"));
    let rate = Rate::new(300, Duration::new(60, 7)).burst(5);
    let paced = (rate, Spent::until_nanos(NOW.as_micros() * 1_000 + 1));
    let rate = codec::rate_row(&of, &paced).expect("a small row");
    let rate_again = |bytes: &[u8]| codec::rate(bytes).and_then(|(of, paced)| codec::rate_row(&of, &paced));
    let older = codec::uncounted_row(&Tenant::default(), &counts).expect("a small row");
    let older_again =
        |bytes: &[u8]| codec::uncounted(bytes).and_then(|(of, counts)| codec::uncounted_row(&of, &counts));
    let older = Sample { name: "uncounted", row: older, again: older_again };
    vec![older, Sample { name: "counts", row, again }, Sample { name: "rate", row: rate, again: rate_again }]
}

/// Every sample.
pub(crate) fn samples() -> Vec<Sample> {
    let stored = |sample: Sample| Sample { row: sealed(&sample.row), ..sample };
    let second = job_samples().into_iter().chain(other_samples());
    second.chain(third_samples()).chain(fourth_samples()).chain(sixth_samples()).map(stored).collect()
}
