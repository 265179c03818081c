//! A private server, stores on it, nodes that mark what they run, and loads that are drained.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hodei_agent::{Agent, Context};
use hodei_benches::load::{Marks, per_second};
use hodei_benches::{BATCH, Node, report};
use hodei_core::Tenant;
use hodei_core::job::{JobKind, JobSpec, JobSpecBuilder, NewJob, State};
use hodei_core::store::{Scope, Store, SubmitOptions};
use hodei_sched::Orchestrator;
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres};
use tokio::task::JoinSet;

/// How many jobs the agent of a node runs at once.
pub(crate) const SLOTS: u32 = 512;
/// How many submissions in bulk are under way at once while a load is stored.
const FILLERS: usize = 4;
/// How long a load may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(600);

/// Work that says its number when it begins.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Numbered(pub(crate) usize);

impl JobKind for Numbered {
    const KIND: &'static str = "noop";
}

async fn mark(context: Context<Arc<Marks>>, Numbered(n): Numbered) {
    context.state().mark(n);
}

/// Starts a server whose checkpoints are as far apart as those of one that is meant for this load.
pub(crate) fn server() -> Result<Postgres, String> {
    let settings = Postgres::builder().setting("max_wal_size", "8GB").setting("shared_buffers", "512MB");
    settings.start().map_err(|error| error.to_string())
}

pub(crate) fn database(server: &Postgres) -> Result<Database, String> {
    server.database().map_err(|error| error.to_string())
}

/// Opens the store of a node.
pub(crate) async fn open(url: String) -> Result<PgStore, String> {
    PgStore::builder(url).connect().await.map_err(|error| error.to_string())
}

/// Begins the spec of a numbered job.
pub(crate) fn spec(n: usize) -> JobSpecBuilder {
    JobSpec::of(&Numbered(n)).expect("numbers can be encoded")
}

/// Makes the numbered jobs of a load, each with what the builder adds to its spec.
pub(crate) fn jobs(
    n: usize,
    tenant: impl Fn(usize) -> Tenant,
    with: impl Fn(usize, JobSpecBuilder) -> JobSpecBuilder,
) -> Vec<NewJob> {
    let job = |n| NewJob::of(tenant(n), with(n, spec(n)).build().expect("a valid spec"));
    (0..n).map(job).collect()
}

/// Makes numbered jobs of one lane.
pub(crate) fn plain(n: usize) -> Vec<NewJob> {
    jobs(n, |_| Tenant::default(), |_, spec| spec)
}

/// Stores a load, in bulk.
pub(crate) async fn fill(store: &Arc<dyn Store>, jobs: Vec<NewJob>) -> Result<(), String> {
    let mut jobs = jobs.into_iter().peekable();
    let mut filling = JoinSet::new();
    while jobs.peek().is_some() || !filling.is_empty() {
        while filling.len() < FILLERS && jobs.peek().is_some() {
            let batch: Vec<NewJob> = jobs.by_ref().take(BATCH).collect();
            let store = Arc::clone(store);
            filling.spawn(async move { store.submit(batch, SubmitOptions::each()).await });
        }
        let Some(filled) = filling.join_next().await else { continue };
        let filled = filled.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if filled.replies.iter().any(|reply| reply.stored().is_none()) {
            return Err("a job was refused".to_owned());
        }
    }
    Ok(())
}

/// Starts a node on a store, with an agent that marks what it runs.
pub(crate) async fn node(store: Arc<dyn Store>, marks: &Arc<Marks>) -> Result<Node, String> {
    let hodei = Orchestrator::builder().shared_store(store).start().await;
    let hodei = hodei.map_err(|error| error.to_string())?;
    let agent = Agent::builder(hodei.gateway()).slots(SLOTS).state(Arc::clone(marks)).handler(mark);
    let agent = agent.start().await.map_err(|error| error.to_string())?;
    Ok(Node { hodei, agent })
}

/// Stores a load and drains it through a node and its agent; returns how many jobs a second went through. Whatever the store
/// held before is done, or is not due.
pub(crate) async fn drain(store: &Arc<dyn Store>, jobs: Vec<NewJob>) -> Result<f64, String> {
    let n = jobs.len();
    let succeeded = async || {
        let counts = store.counts(&Scope::All).await.map_err(|error| error.to_string())?;
        Ok::<u64, String>(counts.of(State::Succeeded))
    };
    let before = succeeded().await?;
    fill(store, jobs).await?;
    let marks = Arc::new(Marks::new(n));
    let start = Instant::now();
    let node = node(Arc::clone(store), &marks).await?;
    let drained = async {
        marks.all().await;
        while succeeded().await? < before + n as u64 {
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        Ok::<Duration, String>(start.elapsed())
    };
    let took = tokio::time::timeout(PATIENCE, drained).await;
    let took = took.map_err(|_| format!("{n} jobs were not drained in {PATIENCE:?}"))??;
    node.end().await;
    marks.check()?;
    Ok(per_second(n, took))
}

/// What two loads came to in a number of turns.
#[derive(Debug, Default)]
pub(crate) struct Turns(Vec<[f64; 2]>);

impl Turns {
    pub(crate) fn push(&mut self, first: f64, second: f64) {
        self.0.push([first, second]);
    }

    /// The median of one of the loads.
    pub(crate) fn of(&self, load: usize) -> f64 {
        report::median(&self.0.iter().map(|turn| turn[load]).collect::<Vec<_>>())
    }

    /// The median of the second load's share of the first.
    pub(crate) fn ratio(&self) -> f64 {
        report::median(&self.0.iter().map(|[first, second]| second / first).collect::<Vec<_>>())
    }
}

/// The time that so many percent do not exceed, in milliseconds.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    report::percentile(times, percent).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}
