//! A node over several stores, of which one is absent.

use std::sync::Arc;
use std::time::Duration;

use hodei_agent::{Agent, Context, Outcome};
use hodei_core::job::{JobKind, JobSpec, NewJob, State};
use hodei_core::store::{MemoryStore, Shard, ShardedStore};
use hodei_core::{Error, ErrorKind, JobId, Tenant};
use hodei_sched::Orchestrator;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Work {}

impl JobKind for Work {
    const KIND: &'static str = "work";
}

async fn work(_: Context<()>, _: Work) -> Outcome {
    Outcome::Done(bytes::Bytes::new())
}

/// Returns a job of a tenant that is in a shard.
fn job_in(store: &ShardedStore, shard: usize) -> NewJob {
    let names = (0..).map(|n| Tenant::new(format!("tenant-{n}")).expect("a name"));
    let tenant = names.into_iter().find(|tenant| store.shard_of(tenant) == shard).expect("there is one");
    NewJob::of(tenant, JobSpec::of(&Work {}).expect("arguments").build().expect("a valid spec"))
}

/// Waits until a job has succeeded.
async fn succeeds(hodei: &Orchestrator, job: JobId) {
    while hodei.get(job).await.expect("the job is there").state != State::Succeeded {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_node_works_without_a_shard_and_with_it_once_it_joins() {
    let shards: [Arc<dyn Shard>; 2] = [Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new())];
    ShardedStore::open(shards.to_vec()).await.expect("it opens");
    let gone = Err(Error::new(ErrorKind::Io, "file.open"));
    let store = ShardedStore::open_present(vec![Ok(Arc::clone(&shards[0])), gone]).await.expect("it opens");
    let [here, there] = [0, 1].map(|shard| job_in(&store, shard));
    let hodei = Orchestrator::builder().store(store.clone()).start().await.expect("the node starts");
    let agent = Agent::builder(hodei.gateway()).name("worker").handler(work);
    let agent = agent.start().await.expect("the agent starts");
    succeeds(&hodei, hodei.submit(here).await.expect("its shard is there")).await;
    let error = hodei.submit(there.clone()).await.expect_err("its shard is absent");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    store.join(1, Arc::clone(&shards[1])).await.expect("it fits");
    succeeds(&hodei, hodei.submit(there).await.expect("its shard has joined")).await;
    agent.shutdown().await;
    hodei.shutdown().await;
}
