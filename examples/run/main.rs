//! Runs a pipeline file to its end, and goes on with it after a crash.
//!
//! Run with: `cargo run --release --example run -- FILE [--store PATH] [--new] [--jobs N]`
//!
//! FILE is YAML; examples are in `examples/pipelines/`. PATH is a directory for the store and the logs, by default
//! `.hodei/STEM` beside the file. When the store holds an unfinished run of the same bytes it is resumed, and
//! finished steps do not run again; an unfinished run of other bytes is refused unless `--new` gives it up. Exit
//! codes: 0 all steps succeeded, 1 a step did not, 2 bad input, 130 interrupted.

mod args;
mod plan;
mod print;
mod resume;
mod show;
mod table;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hodei_agent::{Agent, AgentHandle, ProcessExecutor};
use hodei_bus::Bus;
use hodei_core::bus::{EventBus, EventFilter, Overflow, SubscribeOptions};
use hodei_core::job::{Job, State};
use hodei_core::pipeline::Pipeline;
use hodei_core::store::{Consistency, Scope};
use hodei_core::{PipelineId, Result};
use hodei_pipeline_file::Limits;
use hodei_sched::Orchestrator;
use hodei_store_redb::RedbStore;

use args::Args;
use plan::Machine;
use print::Printer;
use resume::Earlier;

const FAILED: u8 = 1;
const BAD_INPUT: u8 = 2;
const INTERRUPTED: u8 = 130;

/// How often the program may die under a step before the step is given up: as often as its user likes to kill it.
const LOSSES: u16 = 10_000;
/// How long a failed store is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many events wait for the screen at most.
const EVENTS: usize = 65_536;

fn main() -> ExitCode {
    let (args, pipeline, hash) = match prepare() {
        Ok(prepared) => prepared,
        Err(fault) => return complain(&fault),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.to_string()),
    };
    match runtime.block_on(run(&args, &pipeline, &hash)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => complain(&error.to_string()),
    }
}

fn complain(fault: &str) -> ExitCode {
    eprintln!("{fault}");
    ExitCode::from(BAD_INPUT)
}

/// Reads and checks everything before a store is made.
fn prepare() -> std::result::Result<(Args, Pipeline, String), String> {
    let args = Args::parse(std::env::args_os().skip(1))?;
    let limits = Limits::default();
    let bytes = hodei_pipeline_file::read(&args.file, &limits).map_err(|error| error.to_string())?;
    let file = hodei_pipeline_file::parse(&bytes, &args.file, &limits).map_err(|error| error.to_string())?;
    let hash = blake3::hash(&bytes).to_hex().to_string();
    let pipeline = plan::plan(&args.file, &file, &hash, &machine())?;
    Ok((args, pipeline, hash))
}

fn machine() -> Machine {
    Machine { capacity: hodei_agent::machine_capacity() }
}

/// Runs the pipeline, or what is left of it, and returns the exit code.
async fn run(args: &Args, pipeline: &Pipeline, hash: &str) -> Result<u8> {
    let make = |error: std::io::Error| {
        hodei_core::Error::new(hodei_core::ErrorKind::Io, "run.store")
            .with("path", args.store.display())
            .source_error(error)
    };
    std::fs::create_dir_all(&args.store).map_err(make)?;
    let bus = Arc::new(Bus::new());
    let store = RedbStore::open(args.store.join("store.redb"))?;
    let hodei = Orchestrator::builder()
        .store(store)
        .shared_bus(Arc::clone(&bus) as Arc<dyn EventBus>)
        .lost_max(LOSSES)
        .start()
        .await?;
    let printer = Printer::start();
    let Some(pipeline) = choose(args, &hodei, pipeline, hash, &printer).await? else {
        let file = args.file.display();
        eprintln!("{file}: another file's run is unfinished in this store; --new gives it up");
        hodei.shutdown().await;
        return Ok(BAD_INPUT);
    };
    printer.line(format!("run {pipeline}")).await;
    let options = SubscribeOptions { overflow: Overflow::Block, capacity: EVENTS };
    let mut events = bus.subscribe(EventFilter::all(), options);
    let steps = resume::steps(&hodei, pipeline).await?;
    let agent = start_agent(args, &hodei).await?;
    hodei.prune_logs(&agent.logs());
    let mut screen = show::Screen::new(&steps, agent.logs(), printer.lines());
    let code = tokio::select! {
        ended = screen.run(&mut *events, &hodei, pipeline) => {
            ended?;
            drop(screen);
            let code = summary(&hodei, pipeline, &printer).await?;
            agent.shutdown().await;
            hodei.shutdown().await;
            code
        }
        () = interrupted() => {
            tokio::spawn(async { interrupted().await; std::process::exit(INTERRUPTED.into()) });
            drop(screen);
            agent.kill().await;
            hodei.stop().await;
            eprintln!("interrupted; the same command goes on");
            INTERRUPTED
        }
        error = hodei.store_failed() => {
            drop(screen);
            eprintln!("{error}; the same command goes on when that is mended");
            // What it cannot say to the store any more, the next start finds out.
            let _ = tokio::time::timeout(PATIENCE, agent.kill()).await;
            FAILED
        }
    };
    printer.end();
    Ok(code)
}

/// Waits for somebody who wants an end: Ctrl-C, a supervisor, or a terminal that was closed.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let signals = kinds.map(|kind| {
        Box::pin(async move {
            match signal(kind) {
                Ok(mut signal) => drop(signal.recv().await),
                Err(_) => std::future::pending().await,
            }
        })
    });
    futures_util::future::select_all(signals).await;
}

/// Goes on with an unfinished run or begins one; nothing when that is refused.
async fn choose(
    args: &Args,
    hodei: &Orchestrator,
    new: &Pipeline,
    hash: &str,
    printer: &Printer,
) -> Result<Option<PipelineId>> {
    match resume::earlier(hodei, hash).await? {
        Earlier::Same(pipeline) if !args.new => {
            printer.line("resuming").await;
            return Ok(Some(pipeline));
        }
        Earlier::Other(_) if !args.new => return Ok(None),
        Earlier::Same(old) | Earlier::Other(old) => resume::give_up(hodei, old).await?,
        Earlier::None => {}
    }
    resume::begin(hodei, new).await.map(Some)
}

async fn start_agent(args: &Args, hodei: &Orchestrator) -> Result<AgentHandle> {
    Agent::builder(hodei.gateway())
        .name("run")
        .slots(args.jobs)
        .capacity(machine().capacity)
        .commands(ProcessExecutor::new().work_dir(args.store.join("work")))
        .logs(args.store.join("logs"))
        .start()
        .await
}

/// Prints the table and returns the exit code.
async fn summary(hodei: &Orchestrator, pipeline: PipelineId, printer: &Printer) -> Result<u8> {
    let ids = resume::steps(hodei, pipeline).await?.into_iter().map(|step| step.id).collect();
    let steps = hodei.shared_store().get_many(&Scope::All, ids, Consistency::Latest).await?;
    let steps: Vec<Job> = steps.into_iter().flatten().collect();
    printer.line(format!("\n{}", table::table(&steps).trim_end())).await;
    let all = steps.iter().all(|step| step.state == State::Succeeded);
    Ok(if all { 0 } else { FAILED })
}
