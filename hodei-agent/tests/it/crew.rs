//! Runs that share a task: none is held up by another.

use std::sync::{Arc, Condvar, Mutex};

use hodei_agent::{Agent, Context};
use hodei_core::gateway::News;
use hodei_core::job::Outcome as JobOutcome;
use tokio::sync::Barrier;

use crate::node::{Node, Say, say};

/// A door that a thread waits at, not a task.
#[derive(Debug, Default)]
struct Door {
    open: Mutex<bool>,
    opened: Condvar,
}

/// Blocks its thread until the door is open when it is told to, after as many yields as it is told; ends at once
/// otherwise.
async fn block(context: Context<Arc<Door>>, job: Say) {
    if let Some(yields) = job.text.strip_prefix("block") {
        for _ in 0..yields.len() {
            tokio::task::yield_now().await;
        }
        let door = context.state();
        let mut open = door.open.lock().expect("nobody panics");
        while !*open {
            open = door.opened.wait(open).expect("nobody panics");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_blocks_its_thread_holds_up_no_other() {
    let (node, door) = (Node::new(), Arc::new(Door::default()));
    let agent = Agent::builder(node.gateway()).slots(256).state(Arc::clone(&door)).handler(block);
    let agent = agent.start().await.expect("the agent starts");
    for blocked in [0, 10, 99] {
        let before = node.ends().len();
        let texts = (0..100).map(|n| say(if n == blocked { "block" } else { "" }));
        let jobs = node.assign_all(texts.collect());
        let ends =
            node.until("the others end", |node| Some(node.ends()).filter(|ends| ends.len() == before + 99));
        let ends = ends.await;
        assert!(ends.iter().all(|(job, _)| *job != jobs[blocked]), "it blocks still");
        *door.open.lock().expect("nobody panics") = true;
        door.opened.notify_all();
        node.until("it ends", |node| (node.ends().len() == before + 100).then_some(())).await;
        *door.open.lock().expect("nobody panics") = false;
    }
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_blocks_its_thread_late_does_not_hold_up_the_agents_loop() {
    let (node, door) = (Node::new(), Arc::new(Door::default()));
    let agent = Agent::builder(node.gateway()).slots(16).state(Arc::clone(&door)).handler(block);
    let agent = agent.start().await.expect("the agent starts");
    for blocked in ["block", "block-", "block--", "block---"] {
        for beside in 0..3 {
            let before = node.ends().len();
            let texts = std::iter::repeat_n("", beside).chain([blocked]);
            node.assign_all(texts.map(say).collect());
            let all = before + beside;
            node.until("those beside it end", |node| (node.ends().len() == all).then_some(())).await;
            // The loop goes on: woken from outside, since the blocked thread may be the one that keeps the time.
            let next = node.assign(say(""));
            node.end_of(next).await;
            *door.open.lock().expect("nobody panics") = true;
            door.opened.notify_all();
            node.until("it ends", |node| (node.ends().len() == all + 2).then_some(())).await;
            *door.open.lock().expect("nobody panics") = false;
        }
    }
    agent.shutdown().await;
}

#[tokio::test]
async fn runs_that_wait_for_each_other_run_side_by_side() {
    const RUNS: usize = 50;
    let (node, barrier) = (Node::new(), Arc::new(Barrier::new(RUNS)));
    let meet = |context: Context<Arc<Barrier>>, _: Say| async move {
        context.state().wait().await;
    };
    let agent = Agent::builder(node.gateway()).slots(64).state(barrier).handler(meet);
    let agent = agent.start().await.expect("the agent starts");
    node.assign_all((0..RUNS).map(|_| say("")).collect());
    node.until("all end", |node| (node.ends().len() == RUNS).then_some(())).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn runs_that_end_at_once_share_a_few_tasks() {
    let node = Node::new();
    let tell = |_: Context<()>, _: Say| async { tokio::task::id().to_string() };
    let agent = Agent::builder(node.gateway()).slots(256).handler(tell);
    let agent = agent.start().await.expect("the agent starts");
    node.assign_all((0..200).map(|_| say("")).collect());
    let ends = node.until("all end", |node| Some(node.ends()).filter(|ends| ends.len() == 200)).await;
    let mut tasks: Vec<_> = ends
        .into_iter()
        .map(|(_, news)| match news {
            News::Ended(finish) if finish.outcome == JobOutcome::Succeeded => finish.output,
            other => panic!("it succeeds: {other:?}"),
        })
        .map(|output| output.inline().cloned())
        .collect();
    tasks.sort_unstable();
    tasks.dedup();
    assert!(tasks.len() <= 8, "{tasks:?}");
    agent.shutdown().await;
}

#[tokio::test]
async fn a_run_that_hangs_ends_with_an_agent_that_is_killed() {
    let (node, barrier) = (Node::new(), Arc::new(Barrier::new(2)));
    let meet = |context: Context<Arc<Barrier>>, _: Say| async move {
        context.state().wait().await;
        std::future::pending::<()>().await;
    };
    let agent = Agent::builder(node.gateway()).slots(64).state(Arc::clone(&barrier)).handler(meet);
    let agent = agent.start().await.expect("the agent starts");
    node.assign(say(""));
    // It runs, and then it hangs; killing the agent ends it, and returns.
    barrier.wait().await;
    agent.kill().await;
    assert_eq!(Arc::strong_count(&barrier), 1, "no run and no agent is left");
    assert_eq!(node.ends(), []);
}
