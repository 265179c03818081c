//! What stands around handlers, and handlers that take several jobs in one call.
#![expect(clippy::unwrap_used, reason = "what a test sets up does not fail")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hodei_agent::{Agent, Call, CatchPanic, Chunks, Context, Layer, Next, Observe, Outcome, Seen, Timeout};
use hodei_core::gateway::{News, StopCause};
use hodei_core::job::{FailureClass, Outcome as JobOutcome};

use crate::node::{Node, Say, say};

async fn obey(_: Context<()>, job: Say) -> Outcome {
    match job.text.as_str() {
        "panic" => panic!("as I was told"),
        "fail" => Outcome::failed("no"),
        "hang" => std::future::pending().await,
        text => Outcome::Done(text.to_owned().into()),
    }
}

/// Notes when it is entered and left.
#[derive(Debug)]
struct Noted(&'static str, Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Layer for Noted {
    async fn call(&self, call: &Call, next: Next<'_>) -> Outcome {
        let note = |what| self.1.lock().unwrap().push(format!("{} {what} {}", self.0, call.attempt()));
        note("in");
        let outcome = next.run().await;
        note("out");
        outcome
    }
}

/// Lets nothing run.
#[derive(Debug)]
struct Closed;

#[async_trait]
impl Layer for Closed {
    async fn call(&self, call: &Call, _: Next<'_>) -> Outcome {
        call.log("closed today");
        Outcome::Snooze(Duration::from_secs(60))
    }
}

fn failure(outcome: JobOutcome) -> (FailureClass, String) {
    let JobOutcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    (failure.class, failure.message.to_string())
}

#[tokio::test]
async fn the_layer_that_was_added_first_is_the_outermost() {
    let (node, notes) = (Node::new(), Arc::new(Mutex::default()));
    let layer = |name| Noted(name, Arc::clone(&notes));
    // The state may come after the layers.
    let agent = Agent::builder(node.gateway()).layer(layer("a")).layer(layer("b")).state(());
    let _agent = agent.handler(obey).start().await.unwrap();
    let finish = node.finish_of(node.assign(say("hello"))).await;
    assert_eq!(finish.output.inline().map(|bytes| &bytes[..]), Some(&b"hello"[..]));
    assert_eq!(*notes.lock().unwrap(), ["a in 1", "b in 1", "b out 1", "a out 1"]);
}

#[tokio::test]
async fn a_layer_may_run_nothing() {
    let node = Node::new();
    let _agent = Agent::builder(node.gateway()).layer(Closed).handler(obey).start().await.unwrap();
    assert_eq!(node.end_of(node.assign(say("panic"))).await, News::Snoozed(Duration::from_secs(60)));
}

#[tokio::test]
async fn a_panic_is_seen_around_the_layer_that_catches_it() {
    let (node, seen) = (Node::new(), Arc::new(Mutex::new(Vec::new())));
    let into = Arc::clone(&seen);
    let after = move |seen: Seen<'_>| into.lock().unwrap().push(seen.outcome.clone());
    let agent = Agent::builder(node.gateway()).layer(Observe::new(|_: &Call| {}, after)).layer(CatchPanic);
    let _agent = agent.handler(obey).start().await.unwrap();
    let finish = node.finish_of(node.assign(say("panic"))).await;
    let expected = (FailureClass::Panic, "the handler panicked: as I was told".to_owned());
    assert_eq!(failure(finish.outcome), expected);
    node.finish_of(node.assign(say("well"))).await;
    let seen = seen.lock().unwrap();
    assert!(matches!(&seen[0], Outcome::Failed(failure) if failure.class == FailureClass::Panic));
    assert_eq!(seen[1], Outcome::Done("well".into()));
}

#[tokio::test]
async fn a_layer_that_panics_fails_the_run() {
    let node = Node::new();
    let before = |_: &Call| panic!("not in the mood");
    let agent = Agent::builder(node.gateway()).layer(Observe::new(before, |_: Seen<'_>| {}));
    let _agent = agent.handler(obey).start().await.unwrap();
    let finish = node.finish_of(node.assign(say("hello"))).await;
    assert_eq!(failure(finish.outcome).0, FailureClass::Panic);
}

#[tokio::test]
async fn a_timeout_ends_what_is_inside() {
    let node = Node::new();
    let agent = Agent::builder(node.gateway()).layer(Timeout(Duration::from_millis(20)));
    let _agent = agent.handler(obey).start().await.unwrap();
    let finish = node.finish_of(node.assign(say("hang"))).await;
    assert_eq!(failure(finish.outcome), (FailureClass::Timeout, "it took longer than 20ms".to_owned()));
}

#[tokio::test]
async fn a_lost_lease_ends_a_run_inside_its_layers() {
    let (node, notes) = (Node::new(), Arc::new(Mutex::default()));
    let agent = Agent::builder(node.gateway()).layer(Noted("a", Arc::clone(&notes)));
    let _agent = agent.handler(obey).start().await.unwrap();
    let job = node.assign(say("hang"));
    node.started(job).await;
    node.stop(job, StopCause::LeaseLost);
    assert_eq!(node.finish_of(job).await.outcome, JobOutcome::Cancelled);
    assert_eq!(*notes.lock().unwrap(), ["a in 1"], "it was dropped inside");
}

/// Gives each job the size of its call and its own text.
async fn together(calls: Arc<AtomicUsize>, jobs: Vec<(Context<()>, Say)>) -> Vec<Outcome> {
    calls.fetch_add(1, Ordering::Relaxed);
    tokio::task::yield_now().await;
    if jobs.iter().any(|(_, job)| job.text == "panic") {
        panic!("one of us");
    }
    let size = jobs.len();
    let each = jobs.into_iter().map(|(_, job)| match job.text.as_str() {
        "fail" => Outcome::failed("no"),
        text => Outcome::Done(format!("{text} of {size}").into()),
    });
    each.take_while(|outcome| *outcome != Outcome::Done(format!("nothing of {size}").into())).collect()
}

async fn in_chunks(node: &Node, chunks: Chunks) -> (hodei_agent::AgentHandle, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let agent = Agent::builder(node.gateway()).slots(64);
    let agent = agent.chunk_handler(chunks, move |jobs| together(Arc::clone(&counted), jobs));
    (agent.start().await.unwrap(), calls)
}

async fn text_of(node: &Node, job: hodei_core::JobId) -> String {
    let finish = node.finish_of(job).await;
    match finish.outcome {
        JobOutcome::Succeeded => {
            String::from_utf8_lossy(finish.output.inline().map_or(&[], |bytes| &bytes[..])).into_owned()
        }
        other => format!("{:?} {}", failure(other.clone()).0, failure(other).1),
    }
}

#[tokio::test]
async fn jobs_of_a_kind_share_a_call_and_have_their_own_outcomes() {
    let node = Node::new();
    let (_agent, calls) = in_chunks(&node, Chunks::of(3).wait(Duration::from_secs(60))).await;
    let jobs: Vec<_> = ["a", "fail", "b"].into_iter().map(|text| node.assign(say(text))).collect();
    let mut ends = Vec::new();
    for job in jobs {
        ends.push(text_of(&node, job).await);
    }
    assert_eq!(ends, ["a of 3", "Error no", "b of 3"]);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_chunk_that_does_not_fill_is_called_after_its_wait() {
    let node = Node::new();
    let (_agent, calls) = in_chunks(&node, Chunks::of(10).wait(Duration::from_millis(30))).await;
    assert_eq!(text_of(&node, node.assign(say("alone"))).await, "alone of 1");
    assert_eq!(text_of(&node, node.assign(say("again"))).await, "again of 1");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_chunk_may_wait_for_ever() {
    let node = Node::new();
    let (_agent, calls) = in_chunks(&node, Chunks::of(2).wait(Duration::MAX)).await;
    let (a, b) = (node.assign(say("a")), node.assign(say("b")));
    assert_eq!([text_of(&node, a).await, text_of(&node, b).await], ["a of 2", "b of 2"]);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_panic_fails_the_whole_chunk_and_a_missing_outcome_its_job() {
    let node = Node::new();
    let (_agent, _) = in_chunks(&node, Chunks::of(2).wait(Duration::from_secs(60))).await;
    let pair = |a, b| [node.assign(say(a)), node.assign(say(b))];
    for job in pair("panic", "b") {
        assert_eq!(text_of(&node, job).await, "Panic the handler panicked: one of us");
    }
    let [a, b] = pair("a", "nothing");
    assert_eq!(text_of(&node, a).await, "a of 2");
    assert_eq!(text_of(&node, b).await, "Error the handler gave 1 outcomes, none for this job");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_went_before_its_chunk_was_called_is_not_in_the_call() {
    let node = Node::new();
    let (_agent, calls) = in_chunks(&node, Chunks::of(2).wait(Duration::from_millis(400))).await;
    // Its time is over before that of the chunk is.
    let dead = node.assign(say("dead").timeout(Duration::from_millis(40)));
    assert_eq!(text_of(&node, dead).await, "Timeout it took longer than 40ms");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(text_of(&node, node.assign(say("next"))).await, "next of 1");
    let (gone, left) =
        (node.assign(say("gone").timeout(Duration::from_millis(40))), node.assign(say("left")));
    let pair = [text_of(&node, gone).await, text_of(&node, left).await];
    assert_eq!(pair, ["gone of 2", "left of 2"], "a chunk that fills is called at once");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn who_is_stopped_leaves_the_others_their_call() {
    let node = Node::new();
    let (_agent, calls) = in_chunks(&node, Chunks::of(3).wait(Duration::from_secs(60))).await;
    let (a, b) = (node.assign(say("a")), node.assign(say("b")));
    node.started(a).await;
    node.started(b).await;
    node.stop(a, StopCause::LeaseLost);
    node.end_of(a).await;
    let (c, d) = (node.assign(say("c")), node.assign(say("d")));
    let ends = [text_of(&node, b).await, text_of(&node, c).await, text_of(&node, d).await];
    assert_eq!(ends, ["b of 3", "c of 3", "d of 3"], "its place is another's");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}
