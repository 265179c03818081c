//! An agent that hears nothing of its node, or is told that another has its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_core::ErrorKind;
use hodei_core::gateway::News;
use tokio::time::Instant;

use crate::node::{Node, Say, say};

const ALONE: Duration = Duration::from_secs(3);

/// Notes when a run is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs for so many milliseconds.
async fn last(context: Context<Arc<AtomicBool>>, job: Say) {
    let _dropped = Dropped(Arc::clone(context.state()));
    tokio::time::sleep(Duration::from_millis(job.text.parse().expect("a number"))).await;
}

async fn agent(node: &Node) -> (AgentHandle, Arc<AtomicBool>) {
    let dropped = Arc::new(AtomicBool::new(false));
    node.let_alone(ALONE);
    let builder = Agent::builder(node.gateway()).state(Arc::clone(&dropped)).handler(last);
    (builder.start().await.expect("the agent starts"), dropped)
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_node_is_silent_is_ended_in_time_and_given_back() {
    let node = Node::new();
    let (agent, dropped) = agent(&node).await;
    let job = node.assign(say("3600000"));
    node.started(job).await;
    let began = Instant::now();
    node.fail(ErrorKind::Unavailable, None);
    while !dropped.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(began.elapsed() < ALONE + Duration::from_millis(100), "it runs on");
    }
    assert!(began.elapsed() > ALONE / 2, "{:?}: not before its time", began.elapsed());
    node.heal();
    assert_eq!(node.end_of(job).await, News::Returned, "somebody is to run it, and it cost no attempt");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_well_meanwhile_has_ended_well() {
    let node = Node::new();
    let (agent, _) = agent(&node).await;
    let job = node.assign(say("1000"));
    node.started(job).await;
    node.fail(ErrorKind::Unavailable, None);
    tokio::time::sleep(ALONE * 3).await;
    node.heal();
    assert!(matches!(node.end_of(job).await, News::Ended(_)));
    agent.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_answers_now_and_then_is_enough() {
    let node = Node::new();
    let (agent, dropped) = agent(&node).await;
    let job = node.assign(say("20000"));
    node.started(job).await;
    for _ in 0..8 {
        node.fail(ErrorKind::Unavailable, None);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert!(!dropped.load(Ordering::SeqCst));
        node.heal();
        tokio::time::sleep(Duration::from_millis(1_700)).await;
    }
    assert!(matches!(node.end_of(job).await, News::Ended(_)));
    agent.shutdown().await;
}

#[tokio::test]
async fn whoever_waits_for_the_end_of_an_agent_is_told_why() {
    let node = Node::new();
    let (agent, _) = agent(&node).await;
    node.fail(ErrorKind::Conflict, None);
    let ended = agent.ended().await.expect_err("another one has its place");
    assert_eq!(ended.kind(), ErrorKind::Conflict);
    node.heal();
    let (agent, _) = self::agent(&node).await;
    let (ended, ()) = tokio::join!(agent.ended(), agent.shutdown());
    assert!(ended.is_ok(), "{ended:?}");
}
