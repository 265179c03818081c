//! What an agent offers, and that it takes no more.

use hodei_agent::{Agent, Context, ProcessExecutor};
use hodei_core::ErrorKind;
use hodei_core::gateway::News;
use hodei_core::job::{JobSpec, Resources, Runs};
use tokio::sync::watch;

use crate::node::{Node, Say, say};

/// Waits until it is let go.
async fn wait(context: Context<watch::Receiver<bool>>, _: Say) {
    // The test holds the sender.
    let _ = context.state().clone().wait_for(|open| *open).await;
}

#[tokio::test]
async fn work_beyond_the_slots_is_returned() {
    let (node, (open, opened)) = (Node::new(), watch::channel(false));
    let agent = Agent::builder(node.gateway()).slots(3).state(opened).handler(wait).start().await;
    let agent = agent.expect("the agent starts");
    let jobs = node.assign_all((0..10).map(|_| say("")).collect());
    let returned =
        node.until("seven come back", |node| Some(node.ends()).filter(|ends| ends.len() == 7)).await;
    assert!(returned.iter().all(|(_, news)| *news == News::Returned));
    assert_eq!(returned.iter().map(|(job, _)| *job).collect::<Vec<_>>(), jobs[3..]);
    open.send_replace(true);
    node.until("three end", |node| (node.ends().len() == 10).then_some(())).await;
    assert!(node.calls().iter().all(|call| call.running.len() <= 3));
    agent.shutdown().await;
}

#[tokio::test]
async fn a_slot_is_free_again_when_its_run_has_ended() {
    let node = Node::new();
    let handler = |_: Context<()>, _: Say| async {};
    let agent =
        Agent::builder(node.gateway()).slots(1).handler(handler).start().await.expect("the agent starts");
    for _ in 0..100 {
        let job = node.assign(say(""));
        assert!(matches!(node.end_of(job).await, News::Ended(_)));
    }
    agent.shutdown().await;
}

#[tokio::test]
async fn work_that_was_not_offered_is_returned() {
    let node = Node::new();
    let handler = |_: Context<()>, _: Say| async {};
    let agent = Agent::builder(node.gateway()).handler(handler).start().await.expect("the agent starts");
    let job = node.assign(JobSpec::command(["true"]));
    assert_eq!(node.end_of(job).await, News::Returned);
    agent.shutdown().await;
}

#[tokio::test]
async fn an_agent_offers_what_it_was_given() {
    let node = Node::new();
    let handler = |_: Context<()>, _: Say| async {};
    let capacity = Resources::none().cpu_millis(1_500).gpus(2);
    let agent = Agent::builder(node.gateway())
        .name("gpu-7")
        .slots(5)
        .capacity(capacity.clone())
        .handler(handler)
        .commands(ProcessExecutor::new())
        .label("zone", "a")
        .start()
        .await
        .expect("the agent starts");
    let call = node.until("it calls", |node| node.calls().into_iter().next()).await;
    let mut runs = call.offer.runs.clone();
    runs.sort();
    let expected = [Runs::Command, Runs::Handler(hodei_core::Name::literal("say"))];
    assert_eq!((call.worker.as_str(), call.offer.slots, runs.as_slice()), ("gpu-7", 5, &expected[..]));
    assert_eq!((&call.offer.capacity, call.offer.labels.get("zone")), (&capacity, Some("a")));
    agent.shutdown().await;
}

#[tokio::test]
async fn contradictions_are_told_before_anything_starts() {
    let handler = |_: Context<()>, _: Say| async {};
    let builder = || Agent::builder(Node::new().gateway());
    for (builder, expected) in [
        (builder(), "executors: empty"),
        (builder().handler(handler).slots(0), "slots: zero"),
        (builder().handler(handler).slots(65_537), "slots: too_large"),
        (builder().handler(handler).name("a b"), "name: bad_char"),
        (builder().handler(handler).label("a", "\0"), "labels: nul"),
        (builder().handler(handler).handler(handler), "handler.say: duplicate"),
        (builder().handler(handler).state(()), "state: after_handler"),
    ] {
        let error = builder.start().await.expect_err(expected);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(expected), "{error}");
    }
}
