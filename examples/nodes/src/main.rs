//! One of the nodes that share a PostgreSQL database.
//!
//! Start it several times, and once more with a number of jobs to submit:
//!
//! ```sh
//! cargo run --release -p hodei-example-nodes -- postgres://user:password@host/database
//! cargo run --release -p hodei-example-nodes -- postgres://user:password@host/database 100
//! ```
//!
//! Without a number it works until it is interrupted, and then ends what it has begun. With one it works until its jobs have
//! ended, whoever ran them, and says how many each node ran. Kill one of the others with `kill -9` meanwhile: what it was
//! running is run again elsewhere once it has been silent for its time to live.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::try_join_all;
use hodei_agent::{Agent, Context};
use hodei_core::job::{JobKind, JobSpec, NewJob};
use hodei_core::store::SubmitOptions;
use hodei_sched::Orchestrator;
use hodei_store_pg::PgStore;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How many jobs a node runs at once.
const SLOTS: u32 = 4;
/// How long each of them takes.
const WORK: Duration = Duration::from_millis(100);

/// Asks for one of many pictures in another size.
#[derive(serde::Serialize, serde::Deserialize)]
struct Resize(u32);

impl JobKind for Resize {
    const KIND: &'static str = "resize";
}

/// Returns the node that did it.
async fn resize(context: Context<String>, job: Resize) -> String {
    tokio::time::sleep(WORK).await;
    println!("resized picture {}", job.0);
    context.state().clone()
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, jobs) = match arguments.as_slice() {
        [url] => (url, None),
        [url, jobs] => (url, Some(jobs.parse()?)),
        _ => {
            println!("usage: nodes URL [JOBS]");
            return Ok(ExitCode::from(2));
        }
    };
    let name = format!("node-{}", std::process::id());
    let hodei = Orchestrator::builder().store(PgStore::builder(url).connect().await?).start().await?;
    let agent = Agent::builder(hodei.gateway()).name(&name).slots(SLOTS).state(name.clone()).handler(resize);
    let agent = agent.start().await?;
    println!("{name} works");
    match jobs {
        Some(jobs) => {
            for (node, ran) in submitted_and_run(&hodei, jobs).await? {
                println!("{node} ran {ran}");
            }
        }
        None => tokio::signal::ctrl_c().await?,
    }
    agent.shutdown().await;
    hodei.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// Submits jobs and waits until all of them have ended; returns how many each node ran.
async fn submitted_and_run(hodei: &Orchestrator, jobs: u32) -> Result<BTreeMap<String, u32>> {
    let job = |n| Ok(NewJob::new(JobSpec::of(&Resize(n))?.build()?));
    let jobs = (0..jobs).map(job).collect::<hodei_core::Result<Vec<_>>>()?;
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    hodei.submit_many(jobs, SubmitOptions::each()).await?;
    let mut ran = BTreeMap::new();
    for job in try_join_all(ids.into_iter().map(|id| hodei.wait(id))).await? {
        let node = match job.output().and_then(|output| output.inline()) {
            Some(output) => String::from_utf8_lossy(output).trim_matches('"').to_owned(),
            None => format!("nobody ({:?})", job.state),
        };
        *ran.entry(node).or_default() += 1;
    }
    Ok(ran)
}
