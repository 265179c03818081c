//! A small history in which everything happens once, to plant violations in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hodei_core::job::{
    Failure, FailureClass, Finish, JobSpec, LogEnd, Manifest, NewJob, Output, Parent, Requires, RetryPolicy,
    Secret, Stream,
};
use hodei_core::log::{LogKey, LogRead};
use hodei_core::store::*;
use hodei_core::testkit::history::{Entry, Recorder, RecordingStore};
use hodei_core::{Clock, JobId, ManualClock, Name, OwnerId, Tenant, Timestamp};

const TTL: Duration = Duration::from_secs(60);

/// The recorded history, and the jobs by what they are for.
pub(crate) struct Script {
    pub(crate) entries: Vec<Entry>,
    /// Claimed first, it fails, is tried again and succeeds.
    pub(crate) retried: JobId,
    /// Waits in the lane of `retried` and is claimed after it.
    pub(crate) second: JobId,
    /// Counts against the limit `disk`; cancelled while it runs, and redriven.
    pub(crate) limited: JobId,
    pub(crate) parent: JobId,
    pub(crate) child: JobId,
    /// Has a unique key, and is submitted twice.
    pub(crate) keyed: JobId,
    /// Another tenant's.
    pub(crate) foreign: JobId,
}

fn job(tenant: &str, queue: &str) -> NewJob {
    let spec = JobSpec::command(["true"]).queue(queue).retry(RetryPolicy::attempts(2));
    NewJob::of(Tenant::new(tenant).expect("a name"), spec.build().expect("a valid spec"))
}

fn limited() -> NewJob {
    let spec = JobSpec::command(["true"]).queue("limited").limited_by("disk");
    NewJob::of(Tenant::new("acme").expect("a name"), spec.build().expect("a valid spec"))
}

struct Stage {
    store: RecordingStore<MemoryStore>,
    clock: Arc<ManualClock>,
    owner: hodei_core::job::Lease,
}

impl Stage {
    /// Claims what is ready of a queue.
    async fn claim(&self, tenant: &str, queue: &str) -> Claimed {
        let heads = self.store.lanes(&Served::default()).await.expect("an answer").heads;
        let head = heads
            .into_iter()
            .find(|head| head.lane.tenant.as_str() == tenant && head.lane.queue.as_str() == queue);
        let pick = Pick {
            lane: head.expect("a ready lane").lane,
            floor: hodei_core::job::Priority::MIN,
            ceiling: hodei_core::job::Priority::MAX,
            n: 1,
        };
        let exchange = Exchange { owner: self.owner.clone(), transitions: Vec::new(), picks: vec![pick] };
        let done = self.store.exchange(exchange).await.expect("an answer");
        self.clock.advance(Duration::from_millis(1));
        done.claimed.into_iter().next().expect("a claimed job")
    }

    async fn report(&self, claimed: &Claimed, step: Move) -> Applied {
        let transition = Transition { job: claimed.job.id, epoch: claimed.job.epoch, step };
        let exchange =
            Exchange { owner: self.owner.clone(), transitions: vec![transition], picks: Vec::new() };
        let done = self.store.exchange(exchange).await.expect("an answer");
        self.clock.advance(Duration::from_millis(1));
        done.applied[0]
    }

    /// Runs a claimed job to the end that a step says.
    async fn run(&self, claimed: &Claimed, step: Move) {
        let run = self.store.recorder().executed(claimed.job.id, claimed.job.epoch, &self.owner);
        assert_eq!(self.report(claimed, Move::Started { lease: None }).await, Applied::Done);
        drop(run);
        assert_eq!(self.report(claimed, step).await, Applied::Done);
    }
}

fn succeeded() -> Move {
    Move::Finished(Box::new(Finish::succeeded(Output::none())))
}

/// What the script keeps to itself.
pub(crate) const SECRET: &str = "hunter2-hunter2";

/// A run writes to its log, which somebody reads, and has some of it dropped: what it ends with says so.
fn logs(recorder: &Recorder, claimed: &Claimed) -> Move {
    recorder.secret(&Secret::new(SECRET));
    let (job, reader) = (&claimed.job, Name::literal("reader"));
    let key = |stream| LogKey { tenant: job.tenant.clone(), job: job.id, epoch: job.epoch, stream };
    let read = |bytes: &'static str, next, ended| LogRead {
        bytes: Bytes::from_static(bytes.as_bytes()),
        next,
        ended,
        dropped: 0,
    };
    let (out, err) = (key(Stream::Stdout), key(Stream::Stderr));
    recorder.log_written(&out, b"one two ");
    recorder.log_read(&reader, &out, 0, &read("one", 3, false));
    recorder.log_written(&out, b"three");
    // What stood before is kept no more.
    recorder.log_read(&reader, &out, 3, &read("three", 13, true));
    recorder.log_written(&err, b"more than there is room for");
    recorder.log_read(&reader, &err, 0, &LogRead { dropped: 18, ..read("more than", 9, true) });
    recorder.output("the store's file", b"all of it");
    let end = |stream, kept, dropped| LogEnd { stream, kept, dropped, crc32: 0 };
    let logs = vec![end(Stream::Stdout, 13, 0), end(Stream::Stderr, 9, 18)];
    let manifest = Some(Arc::new(Manifest { logs, artifacts: Vec::new() }));
    Move::Finished(Box::new(Finish { manifest, ..Finish::succeeded(Output::none()) }))
}

/// Plays the script on the store in memory.
pub(crate) fn script() -> Script {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    runtime.block_on(play())
}

async fn play() -> Script {
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_000_000)));
    let memory = MemoryStore::with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let store = RecordingStore::new(memory, Recorder::new());
    let acme = Tenant::new("acme").expect("a name");
    let id = OwnerId::new("node").expect("a name");
    store.register(&id, TTL).await.expect("an answer");
    let owner = store.register(&id, TTL).await.expect("an answer");
    let limit = Limit::key(acme.clone(), Name::literal("disk"), 1);
    store.set_limit(limit).await.expect("an answer");
    let rate = Rate::new(100, Duration::from_secs(1));
    let paced = Limit::paced(LimitOf::Tenant(acme.clone()), rate);
    store.set_limit(paced).await.expect("an answer");

    let (retried, second, keyed) =
        (job("acme", "work"), job("acme", "work"), job("acme", "keyed").unique("key"));
    let (parent, foreign, lost) = (job("acme", "family"), job("umbrella", "work"), job("acme", "lost"));
    let (limited, other) = (limited(), limited());
    let child = job("acme", "family").after([Parent { id: parent.id, requires: Requires::Success }]);
    let ids = [&retried, &second, &limited, &parent, &child, &keyed, &foreign, &lost].map(|job| job.id);
    let [retried_id, second_id, limited_id, parent_id, child_id, keyed_id, foreign_id, _] = ids;
    let first = vec![retried, second, keyed.clone(), parent, child, foreign, limited, other, lost];
    store.submit(first, SubmitOptions::each()).await.expect("an answer");
    clock.advance(Duration::from_millis(1));
    let again = store.submit(vec![keyed], SubmitOptions::each()).await.expect("an answer");
    assert_eq!(again.replies, [Submitted::Existing(keyed_id)]);

    let stage = Stage { store, clock, owner };
    walks(&stage).await;
    cancels(&stage, limited_id).await;
    maintains(&stage, &acme, &ids).await;
    stage.store.survey().await.expect("an answer");
    stage.store.recorder().restarted();
    stage.store.survey().await.expect("an answer");
    Script {
        entries: stage.store.recorder().history().entries().to_vec(),
        retried: retried_id,
        second: second_id,
        limited: limited_id,
        parent: parent_id,
        child: child_id,
        keyed: keyed_id,
        foreign: foreign_id,
    }
}

/// Two attempts of one job, one of the next, a parent and its child.
async fn walks(stage: &Stage) {
    let claimed = stage.claim("acme", "work").await;
    let failure = Failure::new(FailureClass::Error, "it failed");
    stage.run(&claimed, Move::Retried { failure, wait: Duration::from_millis(50), manifest: None }).await;
    let second = stage.claim("acme", "work").await;
    stage.run(&second, logs(stage.store.recorder(), &second)).await;
    stage.clock.advance(Duration::from_millis(50));
    let claimed = stage.claim("acme", "work").await;
    stage.run(&claimed, succeeded()).await;
    for _ in 0..2 {
        let claimed = stage.claim("acme", "family").await;
        stage.run(&claimed, succeeded()).await;
    }
}

/// A running job is asked to stop, ends, and is sent round again.
async fn cancels(stage: &Stage, limited: JobId) {
    let claimed = stage.claim("acme", "limited").await;
    assert_eq!(claimed.job.id, limited);
    assert_eq!(stage.report(&claimed, Move::Started { lease: None }).await, Applied::Done);
    let asked = stage.store.request_cancel(&Scope::All, vec![limited]).await.expect("an answer");
    assert_eq!(asked.replies, [CancelReply::Requested]);
    assert_eq!(stage.report(&claimed, Move::Finished(Box::new(Finish::cancelled()))).await, Applied::Done);
    let asked = stage.store.request_cancel(&Scope::All, vec![limited]).await.expect("an answer");
    assert_eq!(asked.replies, [CancelReply::AlreadyTerminal]);
    stage.store.redrive(&Scope::All, vec![limited]).await.expect("an answer");
}

/// An owner dies and its job is taken back; a schedule fires; another tenant's jobs are not there.
async fn maintains(stage: &Stage, acme: &Tenant, ids: &[JobId]) {
    let store = &stage.store;
    let dying = store.register(&OwnerId::new("dying").expect("a name"), TTL).await.expect("an answer");
    let mortal = Stage {
        store: RecordingStore::new(store.inner().clone(), store.recorder().clone()),
        clock: Arc::clone(&stage.clock),
        owner: dying.clone(),
    };
    let claimed = mortal.claim("acme", "lost").await;
    assert_eq!(mortal.report(&claimed, Move::Started { lease: None }).await, Applied::Done);
    store.retire(&dying).await.expect("an answer");
    let duty = Name::literal("maintenance");
    let term = store.take_term(&duty, &stage.owner, TTL).await.expect("an answer").expect("the term");
    store.reap(&term, 3, 10).await.expect("an answer");
    let stale = stage.report(&claimed, succeeded()).await;
    assert!(matches!(stale, Applied::LeaseLost { .. }), "{stale:?}");
    let claimed = stage.claim("acme", "lost").await;
    stage.run(&claimed, succeeded()).await;

    let name = Name::literal("nightly");
    let spec = Arc::new(JobSpec::command(["true"]).build().expect("a valid spec"));
    let schedule =
        Schedule { tenant: acme.clone(), name: name.clone(), rule: "daily".into(), spec, last_fired: None };
    store.set_schedule(schedule).await.expect("an answer");
    for at in [1, 1, 2] {
        store.fire(&term, acme, &name, Timestamp::from_micros(at)).await.expect("an answer");
    }
    let scope = Scope::Tenant(acme.clone());
    store.get_many(&scope, ids.to_vec(), Consistency::Latest).await.expect("an answer");
    let foreign = Scope::Tenant(Tenant::new("umbrella").expect("a name"));
    store.request_cancel(&foreign, vec![ids[1]]).await.expect("an answer");
    store.counts(&foreign).await.expect("an answer");
    store.queue_counts(&scope, QueueQuery::new()).await.expect("an answer");
    let subscriber = Name::literal("subscriber");
    let page = store.changes(&Scope::All, None, 1_000).await.expect("an answer");
    for change in page.changes.iter().filter(|change| change.job == ids[0]) {
        if let hodei_core::event::Event::Job(event) = change.into() {
            store.recorder().observed(&subscriber, &event);
        }
    }
}
