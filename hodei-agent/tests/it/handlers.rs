//! Typed handlers: what they are given, how they end, how they are stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hodei_agent::{Agent, AgentHandle, Context, Json, Outcome};
use hodei_core::Name;
use hodei_core::gateway::{News, StopCause};
use hodei_core::job::{
    Encoding, FailureClass, JobSpec, JobSpecBuilder, NewJob, Outcome as JobOutcome, Payload, Resources,
    Stream,
};
use tokio::time::Instant;

use crate::node::{Node, Say, input, log_of, say};

/// Does what its text says.
async fn obey(context: Context<()>, job: Say) -> Outcome {
    match job.text.as_str() {
        "panic" => panic!("as I was told"),
        "fail" => Outcome::failed("no"),
        "give up" => Outcome::fatal("never"),
        "need more" => Outcome::out_of_memory(format!("{} bytes are not enough", context.memory())),
        "cancel" => Outcome::Cancel,
        "snooze" => Outcome::Snooze(Duration::from_secs(7)),
        "too much" => Outcome::Done(vec![b'x'; 64 * 1024 + 1].into()),
        "hang" => std::future::pending().await,
        "heed" => {
            context.cancelled().await;
            Outcome::failed("interrupted")
        }
        "end well" => {
            context.cancelled().await;
            Outcome::Done("done".into())
        }
        "spawn" | "spawn and fail" => {
            context.spawn(NewJob::new(JobSpec::command(["true"]).build().expect("a valid spec")));
            if job.text == "spawn" { Outcome::Done("".into()) } else { Outcome::failed("no") }
        }
        text => Outcome::Done(text.to_owned().into()),
    }
}

async fn obedient(node: &Node) -> AgentHandle {
    Agent::builder(node.gateway()).slots(8).handler(obey).start().await.expect("the agent starts")
}

#[tokio::test]
async fn each_end_of_a_handler_is_reported_as_what_it_is() {
    use FailureClass as F;
    let node = Node::new();
    let _agent = obedient(&node).await;
    let bad = |args: &'static str| {
        let kind = Name::literal("say");
        let args = args.as_bytes().into();
        JobSpecBuilder::handler(Payload::Handler { kind, version: 1, encoding: Encoding::Json, args })
    };
    for (spec, class, message) in [
        (say("fail"), F::Error, "no"),
        (say("give up"), F::Fatal, "never"),
        (say("need more"), F::OutOfMemory, "0 bytes are not enough"),
        (say("need more").resources(Resources::none().memory(7)), F::OutOfMemory, "7 bytes are not enough"),
        (say("panic"), F::Panic, "the handler panicked: as I was told"),
        (say("hang").timeout(Duration::from_millis(20)), F::Timeout, "it took longer than 20ms"),
        (say("too much"), F::BadOutput, "the output has 65537 bytes, at most 65536 are kept"),
        (
            bad("{}"),
            F::BadInput,
            "payload.decode: invalid input: args: bad_json: missing field `text` at line 1 column 2",
        ),
    ] {
        let finish = node.finish_of(node.assign(spec)).await;
        let JobOutcome::Failed(failure) = finish.outcome else { panic!("{message}: {:?}", finish.outcome) };
        assert_eq!((failure.class, &*failure.message), (class, message));
    }
    assert_eq!(node.finish_of(node.assign(say("cancel"))).await.outcome, JobOutcome::Cancelled);
    assert_eq!(node.end_of(node.assign(say("snooze"))).await, News::Snoozed(Duration::from_secs(7)));
    let finish = node.finish_of(node.assign(say("hello"))).await;
    assert_eq!(finish.output.inline().map(|bytes| &bytes[..]), Some(&b"hello"[..]), "and it still works");
}

#[tokio::test]
async fn a_handler_is_given_its_arguments_its_state_and_what_its_parents_gave_back() {
    async fn tell(context: Context<Arc<str>>, job: Say) -> Json<String> {
        let parent: u32 = context.input("first").expect("the parent gave a number");
        Json(format!("{} {} {parent} {} {}", context.state(), job.text, context.attempt(), context.fence().1))
    }
    let node = Node::new();
    let agent = Agent::builder(node.gateway()).state(Arc::<str>::from("shared")).handler(tell).start().await;
    let _agent = agent.expect("the agent starts");
    let job = node.assign_with(say("text"), vec![input("first", "42")]);
    let finish = node.finish_of(job).await;
    assert_eq!(finish.output.inline().map(|bytes| &bytes[..]), Some(&b"\"shared text 42 1 1\""[..]));
}

#[tokio::test]
async fn jobs_are_spawned_by_a_run_that_ends_well_and_by_no_other() {
    let node = Node::new();
    let _agent = obedient(&node).await;
    assert_eq!(node.finish_of(node.assign(say("spawn"))).await.spawn.len(), 1);
    assert_eq!(node.finish_of(node.assign(say("spawn and fail"))).await.spawn.len(), 0);
}

#[tokio::test]
async fn a_cancelled_handler_is_told_and_ends_cancelled() {
    let node = Node::new();
    let _agent = obedient(&node).await;
    let job = node.assign(say("heed"));
    node.started(job).await;
    node.stop(job, StopCause::Cancelled);
    assert_eq!(node.finish_of(job).await.outcome, JobOutcome::Cancelled);
}

#[tokio::test]
async fn a_handler_that_truly_ends_during_its_grace_has_succeeded() {
    let node = Node::new();
    let _agent = obedient(&node).await;
    let job = node.assign(say("end well"));
    node.started(job).await;
    node.stop(job, StopCause::Cancelled);
    assert_eq!(node.finish_of(job).await.outcome, JobOutcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_heed_is_dropped_after_its_grace() {
    let node = Node::new();
    let _agent = obedient(&node).await;
    let job = node.assign(say("hang"));
    node.until("it runs", |node| (!node.calls().last()?.running.is_empty()).then_some(())).await;
    let start = Instant::now();
    node.stop(job, StopCause::Cancelled);
    assert_eq!(node.finish_of(job).await.outcome, JobOutcome::Cancelled);
    let took = start.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_lease_is_lost_is_dropped_at_once() {
    let node = Node::new();
    let _agent = obedient(&node).await;
    let job = node.assign(say("hang"));
    node.until("it runs", |node| (!node.calls().last()?.running.is_empty()).then_some(())).await;
    let start = Instant::now();
    node.stop(job, StopCause::LeaseLost);
    node.finish_of(job).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_a_handler_logs_is_read_and_counted() {
    async fn log(context: Context<()>, job: Say) {
        context.log(&job.text);
        context.log("more");
    }
    let node = Node::new();
    let agent = Agent::builder(node.gateway()).handler(log).start().await.expect("the agent starts");
    let job = node.assign(say("one line"));
    let finish = node.finish_of(job).await;
    let end = finish.manifest.expect("there is a log").logs[0];
    assert_eq!((end.stream, end.kept, end.dropped), (Stream::System, 14, 0));
    let read = agent.logs().read(&log_of(job, Stream::System), 0, 100).await.expect("it reads");
    assert_eq!((&read.bytes[..], read.ended), (&b"one line\nmore\n"[..], true));
}

#[tokio::test]
async fn a_killed_agent_drops_its_handlers() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    async fn hang(context: Context<Arc<AtomicBool>>, _: Say) {
        let _guard = Dropped(Arc::clone(context.state()));
        std::future::pending::<()>().await;
    }
    let (node, dropped) = (Node::new(), Arc::new(AtomicBool::new(false)));
    let agent = Agent::builder(node.gateway()).state(Arc::clone(&dropped)).handler(hang).start().await;
    let agent = agent.expect("the agent starts");
    node.started(node.assign(say(""))).await;
    agent.kill().await;
    assert!(dropped.load(Ordering::SeqCst));
    assert!(node.ends().is_empty(), "it says nothing more");
    agent.kill().await;
    agent.shutdown().await;
}
