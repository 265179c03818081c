//! What the rows of a typical job cost beside the same job as JSON. `HODEI_CODEC_TIMES` says how often each is measured;
//! times are told and not asserted, sizes are.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use hodei_core::job::{
    Cause, Epoch, Fingerprint, Job, NewJob, Parent, Payload, Priority, Resources, RetryPolicy, State, rules,
};
use hodei_core::testkit::typical_spec;
use hodei_core::text::{TextMap, Texts};
use hodei_core::{JobId, Name, PipelineId, Tenant, Timestamp};
use serde::{Deserialize, Serialize};

use crate::codec::envelope::{decode_part, decode_second};
use crate::codec::row::{BornRow, HeadRow, WorkRow};
use crate::codec::samples::{born, head_row};
use crate::codec::{self, Head, Names};

/// How often each is measured among the other tests.
const TIMES: u32 = 50;
/// The best of so many rounds counts.
const ROUNDS: usize = 5;
/// The key of a row.
const KEY: usize = 16;

/// A pending job, as one would write it as JSON.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct JsonJob {
    id: JobId,
    tenant: Tenant,
    name: Name,
    queue: Name,
    payload: Payload,
    resources: Resources,
    priority: Priority,
    timeout: Option<Duration>,
    retry: Option<Box<RetryPolicy>>,
    labels: TextMap,
    limit_keys: Texts,
    pipeline: Option<PipelineId>,
    parents: Vec<Parent>,
    unique: Option<String>,
    fingerprint: Fingerprint,
    created_at: Timestamp,
    deadline: Option<Timestamp>,
    state: State,
    cause: Cause,
    cancel_requested: bool,
    version: u32,
    attempt: u32,
    waits_for: u32,
    lost_count: u16,
    generation: u16,
    epoch: Epoch,
    eligible_at: Timestamp,
    moved_at: Timestamp,
    started_at: Option<Timestamp>,
}

/// What a list shows, read out of the same JSON; the rest is skipped.
#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "what is read is not looked at")]
struct JsonSummary {
    id: JobId,
    tenant: Tenant,
    name: Name,
    queue: Name,
    priority: Priority,
    state: State,
    cause: Cause,
    version: u32,
    attempt: u32,
    epoch: Epoch,
    created_at: Timestamp,
    eligible_at: Timestamp,
    moved_at: Timestamp,
}

impl JsonJob {
    fn of(job: &Job) -> Self {
        Self {
            id: job.id,
            tenant: job.tenant.clone(),
            name: job.spec.name().clone(),
            queue: job.spec.queue().clone(),
            payload: job.spec.payload().clone(),
            resources: job.spec.resources().clone(),
            priority: job.spec.priority(),
            timeout: job.spec.timeout(),
            retry: job.spec.parts().retry.clone(),
            labels: job.spec.labels().clone(),
            limit_keys: job.spec.limit_keys().clone(),
            pipeline: job.pipeline,
            parents: job.parents.to_vec(),
            unique: job.unique.as_deref().map(str::to_owned),
            fingerprint: job.fingerprint,
            created_at: job.created_at,
            deadline: job.deadline,
            state: job.state,
            cause: job.cause,
            cancel_requested: job.cancel_requested,
            version: job.version,
            attempt: job.attempt,
            waits_for: job.waits_for,
            lost_count: job.lost_count,
            generation: job.generation,
            epoch: job.epoch,
            eligible_at: job.eligible_at,
            moved_at: job.moved_at,
            started_at: job.started_at,
        }
    }
}

/// The nanoseconds that something takes, at its best.
fn nanos<R>(times: u32, work: impl Fn() -> R) -> f64 {
    let round = |_| {
        let start = Instant::now();
        (0..times).for_each(|_| drop(black_box(work())));
        start.elapsed().as_secs_f64() * 1e9 / f64::from(times)
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn tell(what: &str, row: f64, json: f64, goal: f64) {
    let (ratio, verdict) = (json / row, if json / row >= goal { "met" } else { "MISSED" });
    println!("  {what:<44}{row:>7.0}{json:>8.0}{ratio:>8.1} x  >= {goal:<5} {verdict}");
}

#[test]
fn a_typical_job_is_smaller_than_its_json_and_read_faster() {
    let times = std::env::var("HODEI_CODEC_TIMES").ok().and_then(|n| n.parse().ok()).unwrap_or(TIMES);
    let (job, _) =
        rules::admit(NewJob::new(typical_spec().build().unwrap()), Timestamp::from_micros(1 << 50));
    let rows = || (head_row(&Head::of(job.clone(), 7)).unwrap(), born(&job));
    let names = RefCell::new(Names::default());
    let head_of = |head: &[u8]| codec::head(job.id, head, &mut names.borrow_mut()).unwrap();
    let full = |head: &[u8], born: &[u8]| {
        head_of(head).full(codec::fixed(born, &mut names.borrow_mut(), |_| None).unwrap(), None)
    };
    let borrowed = |head: &[u8], born: &[u8]| {
        let head: HeadRow<'_> = decode_second(head).unwrap();
        let born: BornRow<'_> = decode_second(born).unwrap();
        let work: WorkRow<'_> = decode_part(born.work).unwrap();
        black_box((head.name.len(), work.labels.len()));
    };
    let (head, fixed) = rows();
    let mirror = JsonJob::of(&job);
    let json = serde_json::to_vec(&mirror).unwrap();
    assert_eq!(full(&head, &fixed), job);
    assert_eq!(serde_json::from_slice::<JsonJob>(&json).unwrap(), mirror);

    let parse = || serde_json::from_slice::<JsonJob>(&json).unwrap();
    let shown = |row: &[u8]| codec::shown(job.id, row, &mut names.borrow_mut()).unwrap().summary;
    assert_eq!(shown(&head), job.summary());
    let summary = nanos(times, || shown(&head));
    let bytes = head.len() + fixed.len() + 2 * KEY;
    println!("a typical job, envelopes and keys included      rows    JSON   ratio");
    let size = |bytes: usize| f64::from(u32::try_from(bytes).unwrap());
    tell("bytes", size(bytes), size(json.len()), 1.8);
    tell("ns: a summary / the job as JSON", summary, nanos(times, parse), 20.0);
    let skipping = nanos(times, || serde_json::from_slice::<JsonSummary>(&json).unwrap());
    println!(
        "  {:<44}{summary:>7.0}{skipping:>8.0}{:>8.1} x",
        "ns: a summary / out of JSON, skipping",
        skipping / summary
    );
    tell(
        "ns: borrowed / the job as JSON",
        nanos(times, || borrowed(&head, &fixed)),
        nanos(times, parse),
        4.0,
    );
    let owned = nanos(times, || {
        let (head, fixed) = rows();
        full(&head, &fixed)
    });
    let json_owned =
        nanos(times, || serde_json::from_slice::<JsonJob>(&serde_json::to_vec(&mirror).unwrap()).unwrap());
    tell("ns: written and read / as JSON", owned, json_owned, 2.0);
    assert!(18 * bytes <= 10 * json.len(), "{bytes} bytes, {} as JSON", json.len());
}
