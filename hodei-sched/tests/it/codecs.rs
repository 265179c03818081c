//! Arguments are encoded on their way into the store and decoded on their way into the handler.
#![expect(clippy::unwrap_used, reason = "what a test sets up does not fail")]

use std::sync::Arc;

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_core::blob::{BlobStore, MemoryBlobs};
use hodei_core::codec::{Codecs, Compress, Encrypt, Offload};
use hodei_core::job::{FailureClass, JobKind, JobSpec, NewJob, Outcome, Payload, State};
use hodei_core::store::{MemoryStore, Query, Scope, Store};
use hodei_core::{ErrorKind, Name};
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
async fn an_agent_without_the_key_fails_the_job_for_good() {
    let blobs = Arc::new(MemoryBlobs::new());
    for agents in [Codecs::new(), Codecs::new().with(Encrypt::with_key(2, [9; 32]))] {
        let (node, agent) = node(codecs(&blobs), agents).await;
        let id = node.submit(pay("4242")).await.unwrap();
        let ended = node.wait(id).await.unwrap();
        let Some(Outcome::Failed(failure)) = ended.outcome() else { panic!("{ended:?}") };
        assert_eq!(failure.class, FailureClass::BadInput);
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
