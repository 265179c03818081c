//! A typed handler, a command and a small pipeline on one embedded file, with the logs on the screen.
//!
//! Run with: `cargo run --release --example quickstart`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use hodei_agent::{Agent, Context, ProcessExecutor};
use hodei_core::job::{JobKind, JobSpec, NewJob, Stream};
use hodei_core::log::LogKey;
use hodei_core::pipeline::{Pipeline, Step};
use hodei_sched::Orchestrator;
use hodei_store_redb::RedbStore;

#[derive(serde::Serialize, serde::Deserialize)]
struct Greet(String);

impl JobKind for Greet {
    const KIND: &'static str = "greet";
}

async fn greet(_: Context<()>, job: Greet) -> String {
    format!("hello, {}", job.0)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::temp_dir().join(format!("hodei-quickstart-{}.redb", std::process::id()));
    let hodei = Orchestrator::builder().store(RedbStore::open(&file)?).start().await?;
    let agent =
        Agent::builder(hodei.gateway()).handler(greet).commands(ProcessExecutor::new()).start().await?;

    let greeting = hodei.submit(NewJob::new(JobSpec::of(&Greet("world".into()))?.build()?)).await?;
    let command = hodei.submit(NewJob::new(JobSpec::command(["uname", "-sr"]).build()?)).await?;
    let release = Pipeline::builder("release")
        .step(Step::new("build", JobSpec::shell("echo building; echo '{\"file\": \"app\"}' > $HODEI_OUTPUT")))
        .step(Step::new("test", JobSpec::shell("echo testing with $(cat $HODEI_INPUTS)")).needs("build"))
        .build()?;
    let pipeline = hodei.submit_pipeline(&release).await?;

    println!("handler:  {:?}", hodei.wait(greeting).await?.output());
    println!("pipeline: {:?}", hodei.wait_pipeline(pipeline).await?.status());
    for id in [command, release.jobs()[1].id] {
        let job = hodei.wait(id).await?;
        let key = LogKey { tenant: job.tenant, job: job.id, epoch: job.epoch, stream: Stream::Stdout };
        let log = agent.logs().read(&key, 0, 4096).await?;
        println!("{}: {}", job.spec.name(), String::from_utf8_lossy(&log.bytes).trim_end());
    }
    agent.shutdown().await;
    hodei.shutdown().await;
    Ok(std::fs::remove_file(file)?)
}
