//! What arguments say that are encrypted stands nowhere (I17): not in the file of the store nor beside it, not in logs, events, the
//! audit trail or blobs, and in nothing that people are told.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hodei_agent::{Agent, AgentHandle, Context};
use hodei_bus::Bus;
use hodei_core::blob::{BlobStore, MemoryBlobs};
use hodei_core::bus::{Delivery, EventBus, EventFilter, Overflow, SubscribeOptions, Subscription};
use hodei_core::codec::{Codecs, Compress, Encrypt, Offload};
use hodei_core::event::Event;
use hodei_core::job::{JobKind, JobSpec, JobSpecBuilder, NewJob, Payload, RetryPolicy, Secret, State};
use hodei_core::security::{AuditRecord, AuditSink};
use hodei_core::store::{Consistency, JobStore, Page, Query, Scope, Store};
use hodei_core::testkit::history::{Invariant, Recorder, RecordingStore, Report, check};
use hodei_core::{ErrorKind, JobId, Name, Result, Tenant};
use hodei_sched::cron::{CronJob, CronRule};
use hodei_sched::{AuditPolicy, Orchestrator};
use hodei_store_redb::RedbStore;

/// What the arguments say, with characters that many encodings change.
const SECRET: &str = "4242/\"4242\"+4242";
/// How long a fire time is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(serde::Serialize, serde::Deserialize)]
struct Pay {
    card: String,
    spawns: bool,
}

impl JobKind for Pay {
    const KIND: &'static str = "pay";
}

async fn pay(context: Context<()>, pay: Pay) {
    context.log("paid");
    if pay.spawns {
        context.spawn(job(spec(SECRET, false)));
    }
}

fn spec(card: &str, spawns: bool) -> JobSpecBuilder {
    JobSpec::of(&Pay { card: card.to_owned(), spawns }).expect("arguments")
}

fn job(spec: JobSpecBuilder) -> NewJob {
    NewJob::new(spec.build().expect("a valid spec"))
}

/// Arguments that no compression makes small.
fn large() -> String {
    let mixed = (0..4_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mixed = mixed.map(|n| (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 59);
    let mixed = mixed.map(|n| char::from(b'A' + u8::try_from(n).unwrap_or(0)));
    [SECRET, &mixed.collect::<String>()].concat()
}

/// An audit trail in memory.
#[derive(Debug, Default)]
struct Book(Mutex<Vec<AuditRecord>>);

#[async_trait]
impl AuditSink for Book {
    async fn append(&self, records: Vec<AuditRecord>) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(records);
        Ok(())
    }
}

/// A node over a file, and everything that it could show something to.
struct House {
    directory: tempfile::TempDir,
    recorder: Recorder,
    store: Arc<RecordingStore<RedbStore>>,
    blobs: Arc<MemoryBlobs>,
    book: Arc<Book>,
    events: tokio::sync::Mutex<Box<dyn Subscription>>,
    hodei: Orchestrator,
}

impl House {
    async fn new(codecs: Codecs, blobs: Arc<MemoryBlobs>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let recorder = Recorder::new();
        recorder.secret(&Secret::new(SECRET));
        let store = RedbStore::open(directory.path().join("jobs.redb")).expect("the file opens");
        let store = Arc::new(RecordingStore::new(store, recorder.clone()));
        let (bus, book) = (Arc::new(Bus::new()), Arc::new(Book::default()));
        let options = SubscribeOptions { overflow: Overflow::Block, capacity: 10_000 };
        let events = bus.subscribe(EventFilter::all(), options).into();
        let hodei = Orchestrator::builder()
            .shared_store(Arc::clone(&store) as Arc<dyn Store>)
            .shared_bus(bus as Arc<dyn EventBus>)
            .audit(Arc::clone(&book) as Arc<dyn AuditSink>, AuditPolicy::Refuse)
            .codecs(codecs);
        let hodei = hodei.start().await.expect("the node starts");
        Self { directory, recorder, store, blobs, book, events, hodei }
    }

    async fn agent(&self, codecs: Codecs) -> AgentHandle {
        let logs = self.directory.path().join("logs");
        let agent = Agent::builder(self.hodei.gateway()).logs(logs).codecs(codecs).handler(pay);
        agent.start().await.expect("the agent starts")
    }

    /// Notes what somebody was told.
    fn told(&self, place: &str, what: &impl std::fmt::Debug) {
        self.recorder.output(place, format!("{what:?}").as_bytes());
    }

    async fn ends(&self, id: JobId) -> State {
        self.hodei.wait(id).await.expect("it is there").state
    }

    async fn jobs(&self) -> Page {
        self.hodei.query(&Scope::All, Query::new().oldest_first()).await.expect("they are listed")
    }

    /// Jobs run that are submitted, spawned and fired; one waits and is explained, another one is taken for one that is there.
    async fn work(&self) {
        let first = job(spec(SECRET, true));
        let id = self.hodei.submit(first.clone()).await.expect("submitted");
        let mut other = job(spec(&SECRET.repeat(2), false));
        other.id = first.id;
        let conflict = self.hodei.submit(other).await.expect_err("another job has its id");
        assert_eq!(conflict.kind(), ErrorKind::Conflict);
        self.told("an error", &conflict);
        self.recorder.output("an error", conflict.to_string().as_bytes());
        assert_eq!(self.ends(id).await, State::Succeeded);
        let large = self.hodei.submit(job(spec(&large(), false))).await.expect("submitted");
        assert_eq!(self.ends(large).await, State::Succeeded);
        let (tenant, later) = (Tenant::default(), Name::literal("later"));
        self.hodei.pause_queue(&tenant, &later).await.expect("paused");
        let waits = self.hodei.submit(job(spec(SECRET, false).queue("later"))).await.expect("submitted");
        let why = self.hodei.explain(waits).await.expect("an explanation");
        self.told("an explanation", &(why.to_string(), why));
        self.told("a snapshot", &self.hodei.snapshot().await.expect("a snapshot"));
        self.hodei.cancel(waits).await.expect("cancelled");
    }

    /// A schedule fires, and stays.
    async fn fires(&self) {
        let before = self.jobs().await.jobs.len();
        let rule = CronRule::new("* * * * * *");
        let secret = spec(SECRET, false).build().expect("a valid spec");
        self.hodei.schedules().set(CronJob::new("often", rule, secret)).await.expect("set");
        let fired = async {
            while self.jobs().await.jobs.len() == before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, fired).await.expect("it fires");
        let (tenant, often) = (Tenant::default(), Name::literal("often"));
        self.hodei.schedules().pause(&tenant, &often).await.expect("paused");
        let listed = self.hodei.schedules().list(&Scope::All).await.expect("they are listed");
        self.told("the schedules", &listed);
        for job in self.jobs().await.jobs {
            self.ends(job.id).await;
        }
    }

    /// An agent that cannot read the arguments says so, where they are encrypted.
    async fn fails(&self) -> JobId {
        let once = spec(SECRET, false).retry(RetryPolicy::attempts(1));
        let id = self.hodei.submit(job(once)).await.expect("submitted");
        self.ends(id).await;
        id
    }

    /// Looks at all that was shown and kept.
    async fn judge(mut self, last: JobId) -> Report {
        let ids = self.jobs().await.jobs.into_iter().map(|job| job.id).collect();
        let jobs = self.store.inner().get_many(&Scope::All, ids, Consistency::Latest).await.expect("jobs");
        for job in jobs.into_iter().flatten() {
            self.told("a job", &job);
            let Payload::Handler { args, .. } = job.spec.payload() else { panic!("a handler's job") };
            self.recorder.output("the arguments of a job", args);
        }
        let mut over = false;
        while !over {
            for delivery in self.events.get_mut().recv(100).await {
                self.told("an event", &delivery);
                over |= matches!(&delivery, Delivery::Event(Event::Job(of)) if of.job == last && of.to.is_terminal());
            }
        }
        for blob in self.blobs.list(None, 100).await.expect("blobs") {
            let bytes = self.blobs.get(&blob.key).await.expect("it is there");
            self.recorder.output("a blob", &bytes);
        }
        let records = self.book.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(records.len() >= 5, "{records:?}");
        self.told("the audit trail", &records);
        self.store.survey().await.expect("the store answers");
        self.hodei.shutdown().await;
        let Self { directory, recorder, store, hodei, events, .. } = self;
        drop((store, hodei, events));
        let files = files(directory.path());
        assert!(files.iter().any(|file| file.ends_with("jobs.redb")) && files.len() > 1, "{files:?}");
        for file in files {
            let bytes = std::fs::read(&file).expect("it is read");
            recorder.output(file.display().to_string(), &bytes);
        }
        check(&recorder.history())
    }
}

/// The files in a directory, and in those in it.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).expect("it is listed");
    let paths = entries.map(|entry| entry.expect("it is listed").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

async fn judged(codecs: Codecs, blobs: Arc<MemoryBlobs>) -> Report {
    let house = House::new(codecs.clone(), blobs).await;
    let agent = house.agent(codecs).await;
    house.work().await;
    house.fires().await;
    agent.shutdown().await;
    let agent = house.agent(Codecs::new()).await;
    let last = house.fails().await;
    agent.shutdown().await;
    house.judge(last).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_arguments_stand_nowhere() {
    let blobs = Arc::new(MemoryBlobs::new());
    let offload = Offload::above(900, Arc::clone(&blobs) as Arc<dyn BlobStore>);
    let encrypt = Encrypt::with_key(1, [9; 32]);
    let codecs = Codecs::new().with(Compress::above(200)).with(encrypt).with(offload);
    let report = judged(codecs, Arc::clone(&blobs)).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(blobs.list(None, 100).await.expect("blobs").len(), 1, "the large ones");
    // Where they are not encrypted they are found: what is looked at is what there is.
    let report = judged(Codecs::new(), blobs).await;
    for place in ["jobs.redb", "the arguments of a job"] {
        let shows = |text: &str| text.contains(place);
        let mut found = report.violations.iter().filter(|found| found.invariant == Invariant::NoSecretShown);
        assert!(found.any(|found| shows(&found.text)), "{place}: {report}");
    }
    assert!(report.violations.iter().all(|found| found.invariant == Invariant::NoSecretShown), "{report}");
}
