//! The load on Hodei: the scheduler, the agent and the embedded store, all with their defaults.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hodei_agent::{Agent, Context};
use hodei_core::job::{JobKind, JobSpec, JobSpecBuilder, NewJob, State};
use hodei_core::store::{JobStore, Scope, StoreStats, SubmitOptions};
use hodei_sched::Orchestrator;
use hodei_store_redb::RedbStore;
use tokio::task::JoinSet;

use crate::load::{BATCH, Load, Marks, Rates, per_second};
use crate::raw::Puts;
use crate::{Node, SLOTS};

/// Work that does nothing but to say that it was done.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Numbered(usize);

impl Numbered {
    /// Returns the number.
    #[must_use]
    pub fn number(&self) -> usize {
        self.0
    }
}

impl JobKind for Numbered {
    const KIND: &'static str = "noop";
}

async fn mark(context: Context<Arc<Marks>>, Numbered(n): Numbered) {
    context.state().mark(n);
}

/// Makes a job of each number, with a spec of its own: as every peer's, its arguments are its number.
///
/// # Panics
///
/// Never: the specs are valid.
#[must_use]
pub fn numbered(numbers: std::ops::Range<usize>) -> Vec<NewJob> {
    let spec = |n| JobSpec::of(&Numbered(n)).and_then(JobSpecBuilder::build).expect("a valid spec");
    numbers.map(|n| NewJob::new(spec(n))).collect()
}

/// As [`numbered`], and each counts against the limit of a key.
///
/// # Panics
///
/// Never: the specs are valid.
#[must_use]
pub fn numbered_under(key: &str, numbers: std::ops::Range<usize>) -> Vec<NewJob> {
    let spec = |n| JobSpec::of(&Numbered(n)).map(|spec| spec.limited_by(key)).and_then(JobSpecBuilder::build);
    numbers.map(|n| NewJob::new(spec(n).expect("a valid spec"))).collect()
}

/// What a drain took.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    /// How long.
    pub took: Duration,
    /// What the store wrote meanwhile.
    pub wrote: Puts,
}

/// Preloads jobs into a new file, then drains them through a node and its agent.
///
/// # Errors
///
/// When a job did not run just once, or the store does not say that it succeeded.
///
/// # Panics
///
/// When the store refuses.
pub async fn drain(file: &Path, n: usize) -> Result<Drained, String> {
    let store = Arc::new(RedbStore::open(file).expect("a store"));
    fill(&store, numbered(0..n)).await;
    let (marks, before) = (Arc::new(Marks::new(n)), store.stats());
    let start = Instant::now();
    let shared = Arc::clone(&store);
    let hodei = Orchestrator::builder().shared_store(shared).start().await.expect("the node starts");
    let agent = Agent::builder(hodei.gateway()).slots(SLOTS).state(Arc::clone(&marks)).handler(mark);
    let node = Node { agent: agent.start().await.expect("the agent starts"), hodei };
    marks.all().await;
    node.succeeded(n).await;
    let took = start.elapsed();
    let wrote = wrote(before, store.stats());
    node.end().await;
    marks.check()?;
    holds(&*store, State::Succeeded, n).await?;
    Ok(Drained { took, wrote })
}

/// Returns what a store wrote between two counts.
#[must_use]
pub fn wrote(before: StoreStats, after: StoreStats) -> Puts {
    Puts {
        rows: after.rows_written - before.rows_written,
        bytes: after.bytes_written - before.bytes_written,
        commits: after.commits - before.commits,
    }
}

/// Submits jobs in batches of [`BATCH`] and returns how long that took.
///
/// # Panics
///
/// When the store refuses.
pub async fn fill(store: &RedbStore, jobs: Vec<NewJob>) -> Duration {
    let mut batches = Vec::with_capacity(jobs.len().div_ceil(BATCH));
    let mut jobs = jobs.into_iter().peekable();
    while jobs.peek().is_some() {
        batches.push(jobs.by_ref().take(BATCH).collect());
    }
    let start = Instant::now();
    for batch in batches {
        submit(store, batch).await;
    }
    start.elapsed()
}

/// Submits jobs one by one and returns how long that took.
///
/// # Panics
///
/// When the store refuses.
pub async fn one_by_one(store: &RedbStore, jobs: Vec<NewJob>) -> Duration {
    let start = Instant::now();
    for job in jobs {
        submit(store, vec![job]).await;
    }
    start.elapsed()
}

/// Deals jobs out to callers in turn: as if each minted the id of its next job when it submits it.
#[must_use]
pub fn dealt(jobs: Vec<NewJob>, callers: usize) -> Vec<Vec<NewJob>> {
    let mut hands: Vec<Vec<NewJob>> = vec![Vec::new(); callers];
    for (number, job) in jobs.into_iter().enumerate() {
        hands[number % callers].push(job);
    }
    hands
}

/// Submits the jobs of each caller one by one, all callers beside each other, and returns how long that took.
///
/// # Panics
///
/// When the store refuses.
pub async fn side_by_side(store: &RedbStore, callers: Vec<Vec<NewJob>>) -> Duration {
    let start = Instant::now();
    let mut calling = JoinSet::new();
    for jobs in callers {
        let store = store.clone();
        calling.spawn(async move { one_by_one(&store, jobs).await });
    }
    while let Some(called) = calling.join_next().await {
        called.expect("a caller is not stopped");
    }
    start.elapsed()
}

async fn submit(store: &RedbStore, jobs: Vec<NewJob>) {
    let n = jobs.len();
    let committed = store.submit(jobs, SubmitOptions::each()).await.expect("the store takes them");
    assert!(committed.replies.len() == n && committed.replies.iter().all(|reply| reply.stored().is_some()));
}

/// Says whether a store holds so many jobs of a state, and no other.
///
/// # Errors
///
/// What it holds instead.
pub async fn holds(store: &dyn JobStore, state: State, n: usize) -> Result<(), String> {
    let counts = store.counts(&Scope::All).await.map_err(|error| error.to_string())?;
    let right = counts.of(state) == n as u64 && counts.total() == n as u64;
    if right { Ok(()) } else { Err(format!("{n} jobs should be {state:?}, there are {counts:?}")) }
}

/// Measures the whole load, each part on a new file. Returns what the drain wrote as well.
///
/// # Errors
///
/// Any result that is wrong.
///
/// # Panics
///
/// When the store refuses.
pub async fn rates(directory: &Path, load: Load) -> Result<(Rates, Drained), String> {
    let drained = drain(&directory.join("drain.redb"), load.drain).await?;
    let open = |name: &str| RedbStore::open(directory.join(name)).expect("a store");
    let store = open("single.redb");
    let single = one_by_one(&store, numbered(0..load.single)).await;
    holds(&store, State::Pending, load.single).await?;
    let store = open("concurrent.redb");
    let callers = dealt(numbered(0..load.callers * load.each), load.callers);
    let concurrent = side_by_side(&store, callers).await;
    holds(&store, State::Pending, load.callers * load.each).await?;
    let store = open("bulk.redb");
    let bulk = fill(&store, numbered(0..load.bulk)).await;
    holds(&store, State::Pending, load.bulk).await?;
    let rates = Rates {
        drain: per_second(load.drain, drained.took),
        single: per_second(load.single, single),
        concurrent: per_second(load.callers * load.each, concurrent),
        bulk: per_second(load.bulk, bulk),
    };
    Ok((rates, drained))
}
