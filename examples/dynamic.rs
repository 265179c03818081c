//! A pipeline that grows while it runs: its first step lists texts and adds a step for each, another one gathers what they
//! found. One of the steps fails; the pipeline is mended and resumed, and what was done is not done again.
//!
//! Run with: `cargo run --release --example dynamic`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hodei_agent::{Agent, Context, Json};
use hodei_core::job::{JobKind, JobSpec, State};
use hodei_core::pipeline::{Pipeline, Step};
use hodei_core::store::{Query, Scope};
use hodei_core::{Name, Result};
use hodei_sched::Orchestrator;

const TEXTS: [&str; 4] =
    ["the store is the truth", "a job walks once", "no clock in a machine", "say what it is"];

#[derive(serde::Serialize, serde::Deserialize)]
struct List;
#[derive(serde::Serialize, serde::Deserialize)]
struct Count(String);
#[derive(serde::Serialize, serde::Deserialize)]
struct Sum;

impl JobKind for List {
    const KIND: &'static str = "list";
}
impl JobKind for Count {
    const KIND: &'static str = "count";
}
impl JobKind for Sum {
    const KIND: &'static str = "sum";
}

type Mended = Arc<AtomicBool>;

async fn list(context: Context<Mended>, _: List) -> Result<()> {
    let mut counts = Vec::new();
    for text in &TEXTS[..] {
        counts.push(context.add_step(JobSpec::of(&Count((*text).to_owned()))?.build()?, []));
    }
    context.add_step(JobSpec::of(&Sum)?.build()?, counts);
    Ok(())
}

async fn count(context: Context<Mended>, job: Count) -> std::result::Result<Json<usize>, &'static str> {
    if job.0.starts_with("say") && !context.state().load(Ordering::Relaxed) {
        return Err("it will not say");
    }
    Ok(Json(job.0.split_whitespace().filter(|word| word.len() > 1).count()))
}

async fn sum(context: Context<Mended>, _: Sum) -> Result<Json<usize>> {
    Ok(Json(context.inputs::<usize>("count")?.into_iter().sum()))
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let hodei = Orchestrator::builder().start().await?;
    let mended = Mended::default();
    let agent = Agent::builder(hodei.gateway()).state(Arc::clone(&mended));
    let agent = agent.handler(list).handler(count).handler(sum).start().await?;

    let pipeline = Pipeline::builder("words").step(Step::new("list", JobSpec::of(&List)?)).build()?;
    let first = hodei.submit_pipeline(&pipeline).await?;
    hodei.wait(pipeline.jobs()[0].id).await?;
    let progress = hodei.wait_pipeline(first).await?;
    println!("first: {:?}, {} steps", progress.status(), progress.counts().total());

    mended.store(true, Ordering::Relaxed);
    let resumed = hodei.resume_pipeline(&Scope::All, first).await?;
    let progress = hodei.wait_pipeline(resumed).await?;
    println!("resumed: {:?}, {} steps", progress.status(), progress.counts().total());
    let sums = Query::new().pipeline(resumed).name(Name::new("sum")?).state(State::Succeeded);
    for step in hodei.query(&Scope::All, sums).await?.jobs {
        let output = hodei.get(step.id).await?.output().and_then(|output| output.inline().cloned());
        println!("words: {}", String::from_utf8_lossy(&output.unwrap_or_default()));
    }
    agent.shutdown().await;
    hodei.shutdown().await;
    Ok(())
}
