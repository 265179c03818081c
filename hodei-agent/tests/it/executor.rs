//! Executors of the application's own, and what becomes of those that panic.

use std::sync::Arc;

use hodei_agent::{Agent, Executor, Run, RunFuture};
use hodei_core::Name;
use hodei_core::gateway::News;
use hodei_core::job::{FailureClass, Finish, Outcome, Output, Runs};

use crate::node::{Node, say};

/// Panics where the label of the job says.
#[derive(Debug)]
struct Fragile;

/// Panics when it is dropped.
struct Trap;

impl Drop for Trap {
    fn drop(&mut self) {
        panic!("in the destructor");
    }
}

impl Executor for Fragile {
    fn runs(&self) -> Vec<Runs> {
        vec![Runs::Handler(Name::literal("say"))]
    }

    fn execute(self: Arc<Self>, run: Run) -> RunFuture {
        let wanted = run.job().spec.labels().get("panics").map(str::to_owned);
        assert_ne!(wanted.as_deref(), Some("at once"), "before the future");
        Box::pin(async move {
            let _trap = (wanted.as_deref() == Some("at the end")).then(|| Trap);
            tokio::task::yield_now().await;
            assert_ne!(wanted.as_deref(), Some("on the way"), "in the future");
            News::Ended(Box::new(Finish::succeeded(Output::none())))
        })
    }
}

#[tokio::test]
async fn an_executor_that_panics_is_a_failure_of_its_job_alone() {
    let node = Node::new();
    let agent = Agent::builder(node.gateway()).slots(1).executor(Arc::new(Fragile)).start().await;
    let agent = agent.expect("the agent starts");
    for (place, message) in [
        ("at once", "before the future"),
        ("on the way", "in the future"),
        ("at the end", "in the destructor"),
    ] {
        let finish = node.finish_of(node.assign(say("").label("panics", place))).await;
        let Outcome::Failed(failure) = finish.outcome else { panic!("{place}: {:?}", finish.outcome) };
        assert_eq!(failure.class, FailureClass::Panic, "{place}");
        assert!(failure.message.starts_with("the executor panicked: "), "{place}: {}", failure.message);
        assert!(failure.message.contains(message), "{place}: {}", failure.message);
        let next = node.finish_of(node.assign(say(""))).await;
        assert_eq!(next.outcome, Outcome::Succeeded, "the slot is free again");
    }
    agent.shutdown().await;
}
