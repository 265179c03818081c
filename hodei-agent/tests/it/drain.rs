//! The end of an agent, and nodes that do not answer.

use std::time::Duration;

use hodei_agent::{Agent, AgentBuilder, Context};
use hodei_core::ErrorKind;
use hodei_core::gateway::News;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::node::{Node, Say, say};

/// An agent whose handlers wait until they are let go.
fn patient(node: &Node) -> (AgentBuilder<watch::Receiver<bool>>, watch::Sender<bool>) {
    async fn wait(context: Context<watch::Receiver<bool>>, _: Say) {
        // The test holds the sender.
        let _ = context.state().clone().wait_for(|open| *open).await;
    }
    let (open, opened) = watch::channel(false);
    (Agent::builder(node.gateway()).slots(8).state(opened).handler(wait), open)
}

#[tokio::test]
async fn a_shutdown_waits_for_what_runs_and_returns_what_comes() {
    let node = Node::new();
    let (builder, open) = patient(&node);
    let agent = builder.start().await.expect("the agent starts");
    let first = node.assign(say(""));
    node.started(first).await;
    let shutdown = agent.shutdown();
    tokio::pin!(shutdown);
    let late = async {
        node.until("it says that it drains", |node| node.calls().last()?.draining.then_some(())).await;
        let late = node.assign(say(""));
        assert_eq!(node.end_of(late).await, News::Returned);
    };
    tokio::select! {
        biased;
        () = &mut shutdown => panic!("a run goes on"),
        () = late => {}
    }
    open.send_replace(true);
    shutdown.await;
    assert!(matches!(node.end_of(first).await, News::Ended(_)));
    agent.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_fails_for_a_while_is_told_every_end_before_the_shutdown_returns() {
    let node = Node::new();
    let (builder, open) = patient(&node);
    let agent = builder.start().await.expect("the agent starts");
    let jobs = node.assign_all((0..4).map(|_| say("")).collect());
    for job in &jobs {
        node.started(*job).await;
    }
    node.fail(ErrorKind::Unavailable, Some(5));
    open.send_replace(true);
    agent.shutdown().await;
    let ended: Vec<_> = node.ends().into_iter().map(|(job, _)| job).collect();
    assert!(jobs.iter().all(|job| ended.contains(job)), "{ended:?}");
    assert_eq!(node.failed(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stays_silent_is_given_up_after_the_drain_timeout() {
    let node = Node::new();
    let (builder, open) = patient(&node);
    let agent = builder.drain_timeout(Duration::from_secs(4)).start().await.expect("the agent starts");
    let job = node.assign(say(""));
    node.started(job).await;
    node.fail(ErrorKind::Unavailable, None);
    open.send_replace(true);
    let start = Instant::now();
    agent.shutdown().await;
    let took = start.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(8)).contains(&took), "{took:?}");
    assert!(node.failed() < 20, "{} calls: they become rarer", node.failed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_waited_for_while_something_runs() {
    let node = Node::new();
    let (builder, open) = patient(&node);
    let agent = builder.drain_timeout(Duration::from_secs(1)).start().await.expect("the agent starts");
    let job = node.assign(say(""));
    node.started(job).await;
    node.fail(ErrorKind::Unavailable, Some(20));
    let shutdown = agent.shutdown();
    tokio::pin!(shutdown);
    tokio::select! {
        biased;
        () = &mut shutdown => panic!("a run goes on"),
        () = node.until("the node is back", |node| (node.failed() == 20).then_some(())) => {}
    }
    open.send_replace(true);
    shutdown.await;
    assert!(matches!(node.end_of(job).await, News::Ended(_)));
}

#[tokio::test(start_paused = true)]
async fn a_kill_does_not_wait_for_a_silent_node() {
    let node = Node::new();
    let (builder, _open) = patient(&node);
    let agent = builder.start().await.expect("the agent starts");
    node.started(node.assign(say(""))).await;
    node.fail(ErrorKind::Unavailable, None);
    node.until("calls fail", |node| (node.failed() > 3).then_some(())).await;
    let start = Instant::now();
    agent.kill().await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_forgot_the_session_is_told_again_what_was_not_durable() {
    let node = Node::new();
    let (builder, open) = patient(&node);
    let agent = builder.start().await.expect("the agent starts");
    let job = node.assign(say(""));
    node.started(job).await;
    node.fail(ErrorKind::Unavailable, None);
    open.send_replace(true);
    node.until("calls fail", |node| (node.failed() > 3).then_some(())).await;
    node.forget();
    assert!(matches!(node.end_of(job).await, News::Ended(_)));
    agent.shutdown().await;
}

#[tokio::test]
async fn an_agent_whose_place_was_taken_ends_what_it_runs() {
    let node = Node::new();
    let (builder, open) = patient(&node);
    let agent = builder.start().await.expect("the agent starts");
    node.started(node.assign(say(""))).await;
    node.fail(ErrorKind::Conflict, None);
    // Its handlers hold receivers until they are dropped; the agent's own state is gone with its loop.
    tokio::time::timeout(Duration::from_secs(60), open.closed()).await.expect("its runs are dropped");
    assert!(node.ends().is_empty());
    agent.shutdown().await;
}
