//! Arguments are encoded on their way into the store and decoded on their way into the handler.
#![expect(clippy::unwrap_used, reason = "what a test sets up does not fail")]

use std::sync::Arc;
use std::time::Duration;

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_core::blob::{BlobStore, MemoryBlobs};
use hodei_core::codec::{Codecs, Compress, Encrypt, Offload};
use hodei_core::job::{
    Encoding, FailureClass, JobKind, JobSpec, JobSpecBuilder, NewJob, Outcome, Payload, RetryPolicy, State,
};
use hodei_core::store::{MemoryStore, Query, Retention, Scope, Store};
use hodei_core::{ErrorKind, ManualClock, Name, Timestamp};
use hodei_sched::Orchestrator;

#[derive(serde::Serialize, serde::Deserialize)]
struct Pay {
    card: String,
    spawn: bool,
}

impl JobKind for Pay {
    const KIND: &'static str = "pay";
}

fn pay(card: &str) -> NewJob {
    let pay = Pay { card: card.to_owned(), spawn: false };
    NewJob::new(JobSpec::of(&pay).unwrap().build().unwrap())
}

async fn paid(context: Context<()>, job: Pay) -> String {
    if job.spawn {
        context.spawn(pay("4242 spawned"));
    }
    format!("{} paid", job.card)
}

fn codecs(blobs: &Arc<MemoryBlobs>) -> Codecs {
    let blobs = Arc::clone(blobs) as Arc<dyn BlobStore>;
    Codecs::new()
        .with(Compress::above(200))
        .with(Encrypt::with_key(1, [9; 32]))
        .with(Offload::above(900, blobs))
}

async fn node(codecs: Codecs, agents: Codecs) -> (Orchestrator, AgentHandle) {
    let store = Arc::new(MemoryStore::new()) as Arc<dyn Store>;
    let node = Orchestrator::builder().shared_store(store).codecs(codecs).start().await.unwrap();
    let agent = Agent::builder(node.gateway()).codecs(agents).handler(paid).start().await.unwrap();
    (node, agent)
}

fn stored_args(job: &hodei_core::job::Job) -> Vec<u8> {
    let Payload::Handler { args, .. } = job.spec.payload() else { panic!("a handler's job") };
    args.to_vec()
}

fn tells(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|window| window == b"4242")
}

#[tokio::test]
async fn the_store_sees_nothing_of_what_a_handler_is_given() {
    let blobs = Arc::new(MemoryBlobs::new());
    let (node, agent) = node(codecs(&blobs), codecs(&blobs)).await;
    let job = pay("4242 4242");
    let id = node.submit(job.clone()).await.unwrap();
    assert_eq!(node.submit(job).await.unwrap(), id, "a repetition is known as one");
    let ended = node.wait(id).await.unwrap();
    assert!(!tells(&stored_args(&ended)));
    assert_eq!(ended.output().unwrap().inline().unwrap(), "\"4242 4242 paid\"");
    agent.shutdown().await;
    node.shutdown().await;
}

#[tokio::test]
async fn what_a_handler_spawns_and_what_is_large_is_encoded_too() {
    let blobs = Arc::new(MemoryBlobs::new());
    let (node, agent) = node(codecs(&blobs), codecs(&blobs)).await;
    let mixed = (0..40_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60);
    let large: String = mixed.map(|n| char::from(b'a' + u8::try_from(n).unwrap())).collect();
    let args = Pay { card: format!("4242{large}"), spawn: true };
    let spec = JobSpec::of(&args).unwrap().build().unwrap();
    let id = node.submit(NewJob::new(spec)).await.unwrap();
    let first = node.wait(id).await.unwrap();
    assert_eq!(first.state, State::Succeeded, "{:?}", first.settled);
    assert!(stored_args(&first).len() < 1_000);
    let all = node.query(&Scope::All, Query::new().name(Name::literal("pay")).oldest_first()).await.unwrap();
    let spawned = node.wait(all.jobs[1].id).await.unwrap();
    assert!(!tells(&stored_args(&spawned)));
    assert_eq!(spawned.output().unwrap().inline().unwrap(), "\"4242 spawned paid\"");
    agent.shutdown().await;
    node.shutdown().await;
}

#[tokio::test]
async fn an_agent_without_the_key_fails_the_run_as_one_that_may_be_retried() {
    let blobs = Arc::new(MemoryBlobs::new());
    for agents in [Codecs::new(), Codecs::new().with(Encrypt::with_key(2, [9; 32]))] {
        let (node, agent) = node(codecs(&blobs), agents).await;
        let once = JobSpec::of(&Pay { card: "4242".to_owned(), spawn: false }).unwrap();
        let once = NewJob::new(once.retry(RetryPolicy::attempts(1)).build().unwrap());
        let id = node.submit(once).await.unwrap();
        let ended = node.wait(id).await.unwrap();
        let Some(Outcome::Failed(failure)) = ended.outcome() else { panic!("{ended:?}") };
        assert_eq!(failure.class, FailureClass::Error);
        assert!(!failure.message.contains("4242"));
        agent.shutdown().await;
        node.shutdown().await;
    }
}

#[tokio::test]
async fn what_was_stored_plain_still_runs_and_what_cannot_be_encoded_is_not_stored() {
    let blobs = Arc::new(MemoryBlobs::new());
    let (plain, agent) = node(Codecs::new(), codecs(&blobs)).await;
    let id = plain.submit(pay("4242")).await.unwrap();
    assert_eq!(plain.wait(id).await.unwrap().state, State::Succeeded);
    agent.shutdown().await;
    plain.shutdown().await;
    let full = Codecs::new().with(Offload::above(0, Arc::new(MemoryBlobs::at_most(1))));
    let (node, agent) = node(full, Codecs::new()).await;
    assert_eq!(node.submit(pay("4242")).await.unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(node.counts().await.unwrap().total(), 0);
    agent.shutdown().await;
    node.shutdown().await;
}

#[tokio::test]
async fn arguments_that_look_encoded_are_refused() {
    let blobs = Arc::new(MemoryBlobs::new());
    let (node, agent) = node(codecs(&blobs), codecs(&blobs)).await;
    let secret = node.submit(pay(&"4242 ".repeat(400))).await.unwrap();
    // Somebody else's arguments, by their reference; and some in clear, past the encryption.
    let others = stored_args(&node.get(secret).await.unwrap());
    for args in [others, b"\0hodei\x01c\0{\"card\":\"1\",\"spawn\":false}".to_vec()] {
        let (kind, encoding) = (Name::literal("pay"), Encoding::Json);
        let payload = Payload::Handler { kind, version: 1, encoding, args: args.into() };
        let job = NewJob::new(JobSpecBuilder::handler(payload).build().unwrap());
        let error = node.submit(job).await.unwrap_err();
        assert_eq!(error.faults()[0].to_string(), "args: looks_encoded");
    }
    agent.shutdown().await;
    node.shutdown().await;
}

/// What a test of the sweeping needs: a node and its blobs, on a clock that the test sets.
struct Swept {
    clock: Arc<ManualClock>,
    blobs: Arc<MemoryBlobs>,
    /// The node has it for as long as somebody else does.
    _kept: Arc<dyn BlobStore>,
    node: Orchestrator,
}

impl Swept {
    async fn new(codecs: impl Fn(Arc<dyn BlobStore>) -> Codecs) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_750_000_000_000_000)));
        let blobs = Arc::new(MemoryBlobs::with_clock(Arc::<ManualClock>::clone(&clock)));
        let kept = Arc::<MemoryBlobs>::clone(&blobs) as Arc<dyn BlobStore>;
        let store = Arc::new(MemoryStore::with_clock(Arc::<ManualClock>::clone(&clock))) as Arc<dyn Store>;
        let retention = Retention { jobs: Retention::KEYS_MIN, ..Retention::default() };
        let builder = Orchestrator::builder().shared_store(store).retention(retention);
        // The clock of the store makes leaps: the node is not to die of them.
        let builder = builder.heartbeat(Duration::from_secs(2), Duration::from_secs(1_000_000));
        let node = builder.codecs(codecs(Arc::clone(&kept))).start().await.unwrap();
        node.prune_blobs(&kept);
        Self { clock, blobs, _kept: kept, node }
    }

    async fn submit(&self, card: &str) -> (hodei_core::JobId, String) {
        let id = self.node.submit(pay(card)).await.unwrap();
        let args = serde_json::to_vec(&Pay { card: card.to_owned(), spawn: false }).unwrap();
        (id, hodei_core::blob::blob_of(&args).key.to_string())
    }

    async fn has(&self, key: &str) -> bool {
        self.blobs.get(key).await.is_ok()
    }

    /// Lets hours pass; most of a day is not enough for a blob to be old.
    async fn hours(&self, hours: u32) {
        for _ in 0..hours {
            self.clock.advance(Duration::from_secs(3_600));
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn blobs_go_when_no_job_and_no_schedule_names_them_any_more() {
    let swept = Swept::new(|blobs| Codecs::new().with(Offload::above(10, blobs))).await;
    let ((ends, ended), (_, open)) = (swept.submit("ends").await, swept.submit("stays open").await);
    let (twin, shared) = swept.submit("of two").await;
    swept.submit("of two").await;
    let rule = hodei_sched::cron::CronRule::new("0 0 1 1 *");
    let args = Pay { card: "of a schedule".to_owned(), spawn: false };
    let spec = JobSpec::of(&args).unwrap().build().unwrap();
    swept.node.schedules().set(hodei_sched::cron::CronJob::new("yearly", rule, spec)).await.unwrap();
    let scheduled = hodei_core::blob::blob_of(&serde_json::to_vec(&args).unwrap()).key;
    swept.blobs.put("nobody's", "x".into()).await.unwrap();
    swept.node.cancel_many(&Scope::All, vec![ends, twin]).await.unwrap();
    swept.hours(20).await;
    assert!(swept.has("nobody's").await && swept.has(&ended).await, "who put them may be about to name them");
    swept.hours(30).await;
    assert!(!swept.has("nobody's").await && !swept.has(&ended).await);
    for key in [&*open, &*shared, &*scheduled] {
        assert!(swept.has(key).await, "{key} is named");
    }
    swept.node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn no_blob_goes_while_somebody_may_name_it_unread() {
    let swept = Swept::new(|_| Codecs::new()).await;
    let others = Codecs::new().with(Offload::above(10, Arc::<MemoryBlobs>::clone(&swept.blobs)));
    let jobs = others.encode_jobs(vec![pay("by another node")]).await.unwrap();
    swept.node.shared_store().submit(jobs, hodei_core::store::SubmitOptions::each()).await.unwrap();
    swept.blobs.put("nobody's", "x".into()).await.unwrap();
    swept.hours(60).await;
    assert!(swept.has("nobody's").await);
    swept.node.shutdown().await;
}
