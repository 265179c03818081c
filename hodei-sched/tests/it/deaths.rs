//! What becomes of a node when a part of it dies, or its store is slow.

use std::sync::Arc;
use std::time::Duration;

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_core::ErrorKind;
use hodei_core::job::{JobKind, JobSpec, NewJob, State};
use hodei_core::store::{MemoryStore, Store};
use hodei_core::testkit::fault::{Faults, Faulty};
use hodei_sched::Orchestrator;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Work {
    seconds: u64,
}

impl JobKind for Work {
    const KIND: &'static str = "work";
}

async fn work(_: Context<()>, job: Work) {
    tokio::time::sleep(Duration::from_secs(job.seconds)).await;
}

fn job(seconds: u64) -> NewJob {
    let spec = JobSpec::of(&Work { seconds }).expect("arguments");
    NewJob::new(spec.build().expect("a valid spec"))
}

/// A store, and what makes it panic at whoever asks it for work next.
fn store() -> (Arc<dyn Store>, Faults) {
    let faults = Faults::new();
    (Arc::new(Faulty::new(MemoryStore::new(), faults.clone())), faults)
}

async fn node(store: &Arc<dyn Store>, dispatchers: usize) -> Orchestrator {
    let builder = Orchestrator::builder().shared_store(Arc::clone(store));
    let builder = builder.heartbeat(Duration::from_millis(300), Duration::from_secs(3));
    builder.dispatchers(dispatchers).start().await.expect("the node starts")
}

async fn agent(node: &Orchestrator, name: &str) -> AgentHandle {
    let builder = Agent::builder(node.gateway()).name(name).slots(4).handler(work);
    builder.start().await.expect("the agent starts")
}

async fn reaches(node: &Orchestrator, job: hodei_core::JobId, state: State) {
    let reached = async {
        while node.get(job).await.expect("the job is there").state != state {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.expect("it comes to that");
}

/// Such a node beat on for as long as its process lived, and nobody ever took its jobs back.
#[tokio::test]
async fn what_a_dead_dispatcher_held_is_taken_back_and_the_application_is_told() {
    let (store, faults) = store();
    let dying = node(&store, 1).await;
    let its_agent = agent(&dying, "first").await;
    let held = dying.submit(job(3_600)).await.expect("submitted");
    reaches(&dying, held, State::Running).await;
    faults.panic();
    let next = dying.submit(job(0)).await.expect("submitted");
    let failed = tokio::time::timeout(Duration::from_secs(60), dying.store_failed()).await.expect("it tells");
    assert_eq!(failed.kind(), ErrorKind::Bug);
    // Its agent hears nothing any more; that of another node takes over.
    its_agent.kill().await;
    let other = node(&store, 1).await;
    let agent = agent(&other, "second").await;
    reaches(&other, next, State::Succeeded).await;
    let again = async {
        while other.get(held).await.expect("the job is there").lost_count == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("it is taken back");
    reaches(&other, held, State::Running).await;
    agent.kill().await;
    other.stop().await;
}

#[tokio::test]
async fn the_other_dispatchers_of_a_node_take_over_the_agents_of_a_dead_one() {
    let (store, faults) = store();
    let node = node(&store, 2).await;
    let mut agents = Vec::new();
    for name in ["a", "b", "c", "d"] {
        agents.push(agent(&node, name).await);
    }
    let all_are_known = async {
        while node.workers().len() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_are_known).await.expect("they are taken in");
    faults.panic();
    for _ in 0..40 {
        let id = node.submit(job(0)).await.expect("submitted");
        reaches(&node, id, State::Succeeded).await;
    }
    assert_eq!(node.store_failed().await.kind(), ErrorKind::Bug, "one has died");
    for agent in agents {
        agent.shutdown().await;
    }
    node.shutdown().await;
}
