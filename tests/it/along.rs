//! A job that comes to a node which waits for work is stored and claimed in one commit.

use std::sync::Arc;

use hodei_agent::{Agent, Context};
use hodei_core::job::{JobKind, JobSpec, JobSpecBuilder, NewJob, State};
use hodei_core::store::JobStore;
use hodei_sched::Orchestrator;
use hodei_store_redb::RedbStore;

/// So many jobs are tried at most, and so many must have been claimed along: a job that comes before the node has settled down is
/// claimed afterwards.
const TRIED: usize = 500;
const WANTED: usize = 5;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Nothing {}

impl JobKind for Nothing {
    const KIND: &'static str = "nothing";
}

async fn nothing(_: Context<()>, _: Nothing) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_for_an_idle_node_begins_after_one_commit() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(RedbStore::open(directory.path().join("along.redb")).expect("the store opens"));
    let hodei = Orchestrator::builder().shared_store(Arc::clone(&store) as _).start().await;
    let hodei = hodei.expect("the node starts");
    let agent = Agent::builder(hodei.gateway()).handler(nothing);
    let agent = agent.start().await.expect("the agent starts");
    let (mut along, mut tried) = (0, 0);
    while along < WANTED && tried < TRIED {
        tried += 1;
        let before = store.stats().commits;
        let spec = JobSpec::of(&Nothing {}).and_then(JobSpecBuilder::build).expect("a valid spec");
        let job = hodei.submit(NewJob::new(spec)).await.expect("it is stored");
        assert_eq!(hodei.wait(job).await.expect("it ends").state, State::Succeeded);
        // Stored and claimed, and the end; a claim of its own is one more.
        along += usize::from(store.stats().commits == before + 2);
        // What is left to do of this job is done.
        hodei.snapshot().await.expect("it tells");
    }
    assert!(along >= WANTED, "of {tried} jobs {along} were claimed with their submission");
    agent.shutdown().await;
    hodei.shutdown().await;
}
