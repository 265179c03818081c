//! Codecs that take their time, or lack what they need.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hodei_agent::{Agent, AgentHandle, Context};
use hodei_core::codec::{About, Codecs, PayloadCodec};
use hodei_core::gateway::StopCause;
use hodei_core::job::{FailureClass, JobSpecBuilder, Outcome};
use hodei_core::{Result, Tenant};

use crate::node::{Node, Say, say};

/// Decodes nothing, ever: what it needs for that does not answer.
#[derive(Debug)]
struct Hangs;

#[async_trait]
impl PayloadCodec for Hangs {
    fn tag(&self) -> u8 {
        200
    }

    async fn encode(&self, _: &About<'_>, bytes: Bytes) -> Result<Option<Bytes>> {
        Ok(Some(bytes))
    }

    async fn decode(&self, _: &About<'_>, _: Bytes) -> Result<Bytes> {
        std::future::pending().await
    }
}

async fn never(_: Context<()>, _: Say) {}

async fn agent(node: &Node, codecs: Codecs) -> AgentHandle {
    let builder = Agent::builder(node.gateway()).codecs(codecs).handler(never);
    builder.start().await.expect("the agent starts")
}

/// A job whose arguments are encoded.
async fn encoded() -> JobSpecBuilder {
    let spec = say("x").build().expect("a valid spec").into();
    let spec = Codecs::new().with(Hangs).encode_spec(&Tenant::default(), &spec).await.expect("it encodes");
    JobSpecBuilder::handler(spec.payload().clone())
}

#[tokio::test(start_paused = true)]
async fn a_codec_that_hangs_is_ended_by_the_jobs_timeout_and_by_a_stop() {
    let node = Node::new();
    let agent = agent(&node, Codecs::new().with(Hangs)).await;
    let late = node.assign(encoded().await.timeout(Duration::from_secs(5)));
    let Outcome::Failed(failure) = node.finish_of(late).await.outcome else { panic!("it has no time") };
    assert_eq!(failure.class, FailureClass::Timeout);
    let stopped = node.assign(encoded().await);
    node.started(stopped).await;
    node.stop(stopped, StopCause::Cancelled);
    assert_eq!(node.finish_of(stopped).await.outcome, Outcome::Cancelled);
    agent.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_lacks_a_codec_does_not_end_the_job_for_good() {
    let node = Node::new();
    let agent = agent(&node, Codecs::new()).await;
    let Outcome::Failed(failure) = node.finish_of(node.assign(encoded().await)).await.outcome else {
        panic!("nobody can read it");
    };
    assert_eq!(failure.class, FailureClass::Error, "it is retried as its policy says: {}", failure.message);
    agent.shutdown().await;
}
