//! How far a run has come is there for the next one, and a run that was replaced writes nothing more.
#![expect(clippy::unwrap_used, reason = "what a test sets up does not fail")]

use std::sync::Arc;

use bytes::Bytes;
use hodei_agent::{Agent, Context, FileCheckpoints, Outcome};
use hodei_core::checkpoint::{CheckpointStore, MemoryCheckpoints};
use hodei_core::job::{Epoch, NewJob, Outcome as JobOutcome};
use hodei_core::testkit::conformance::hold_checkpoints;
use hodei_core::{ErrorKind, JobId, Tenant};

use crate::node::{Node, Say, say};

fn epoch(number: u64) -> Epoch {
    Epoch::from_number(number)
}

fn somebody() -> (Tenant, JobId) {
    (Tenant::default(), NewJob::new(say("hello").build().unwrap()).id)
}

#[tokio::test]
async fn checkpoints_are_fenced() {
    hold_checkpoints(&MemoryCheckpoints::new()).await;
    let directory = tempfile::tempdir().unwrap();
    hold_checkpoints(&FileCheckpoints::in_directory(directory.path()).unwrap()).await;
}

#[tokio::test]
async fn a_file_that_is_damaged_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileCheckpoints::in_directory(directory.path()).unwrap();
    let (tenant, job) = somebody();
    store.save(&tenant, job, epoch(2), Bytes::from_static(b"progress")).await.unwrap();
    let path = directory.path().join(tenant.as_str()).join(job.to_string());
    let whole = std::fs::read(&path).unwrap();
    let again = FileCheckpoints::in_directory(directory.path()).unwrap();
    assert_eq!(again.open(&tenant, job, epoch(2)).await.unwrap(), Some(Bytes::from_static(b"progress")));
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        for bytes in [&changed[..], &whole[..at]] {
            std::fs::write(&path, bytes).unwrap();
            let error = store.open(&tenant, job, epoch(3)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
        }
    }
}

/// Counts to what its text says, a step in each run.
async fn climb(context: Context<()>, job: Say) -> Outcome {
    let step: u32 = match context.checkpoint().await {
        Ok(step) => step.unwrap_or(0) + 1,
        Err(error) => return Outcome::failed(error),
    };
    if let Err(error) = context.save_checkpoint(&step).await {
        return Outcome::failed(error);
    }
    let top: u32 = job.text.parse().unwrap();
    if step < top { Outcome::failed(format!("at step {step}")) } else { Outcome::Done("there".into()) }
}

#[tokio::test]
async fn a_run_goes_on_where_the_one_before_was() {
    let (node, checkpoints) = (Node::new(), Arc::new(MemoryCheckpoints::new()));
    let kept = Arc::clone(&checkpoints) as Arc<dyn CheckpointStore>;
    let _agent = Agent::builder(node.gateway()).checkpoints(kept).handler(climb).start().await.unwrap();
    let job = node.assign(say("3"));
    let JobOutcome::Failed(failure) = node.finish_of(job).await.outcome else { panic!("it fails") };
    assert_eq!(&*failure.message, "at step 1");
    // What the node would assign next: the same job under a higher epoch.
    let next = checkpoints.open(&Tenant::default(), job, epoch(9)).await.unwrap();
    assert_eq!(next.as_deref(), Some(&b"1"[..]));
}

#[tokio::test]
async fn without_a_store_a_checkpoint_is_an_error() {
    let node = Node::new();
    let _agent = Agent::builder(node.gateway()).handler(climb).start().await.unwrap();
    let JobOutcome::Failed(failure) = node.finish_of(node.assign(say("1"))).await.outcome else {
        panic!("it fails")
    };
    assert!(failure.message.contains("the agent has no checkpoints"), "{}", failure.message);
}
