//! What the benchmarks share: a node with a no-op handler, jobs for it, the load that every engine is given, and figures.

pub mod hodei;
pub mod load;
pub mod raw;
pub mod report;

use std::sync::Arc;

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_core::job::{JobKind, JobSpec, NewJob, State};
use hodei_core::store::{Scope, Store, SubmitOptions};
use hodei_sched::Orchestrator;

pub use load::BATCH;

/// How many no-ops the agent runs at once.
const SLOTS: u32 = 512;

/// Makes the runtime of a benchmark: as many threads as the machine of the figures has processors.
///
/// # Panics
///
/// When the operating system refuses.
#[must_use]
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Makes a directory for the files of a figure. It is beside the program unless `TMPDIR` names another place: where the
/// system keeps its own temporary files may be memory, and a synced commit there says nothing.
///
/// # Panics
///
/// When the operating system refuses.
#[must_use]
pub fn directory() -> tempfile::TempDir {
    let program = std::env::current_exe().expect("a program has a place");
    let beside = program.parent().map(std::path::Path::to_owned);
    let place = std::env::var_os("TMPDIR").map(Into::into).or(beside);
    tempfile::tempdir_in(place.unwrap_or_else(std::env::temp_dir)).expect("a directory")
}

/// Work that does nothing.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Noop {}

impl JobKind for Noop {
    const KIND: &'static str = "noop";
}

async fn noop(_: Context<()>, _: Noop) {}

/// Makes no-op jobs that share a spec.
///
/// # Panics
///
/// Never: the spec is valid.
#[must_use]
pub fn jobs(n: usize) -> Vec<NewJob> {
    let spec = JobSpec::of(&Noop {}).and_then(hodei_core::job::JobSpecBuilder::build);
    let spec = Arc::new(spec.expect("a valid spec"));
    (0..n).map(|_| NewJob::new(Arc::clone(&spec))).collect()
}

/// A node with an agent.
#[derive(Debug)]
pub struct Node {
    /// The node.
    pub hodei: Orchestrator,
    /// The agent.
    pub agent: AgentHandle,
}

impl Node {
    /// Starts a node on a store, and its agent.
    ///
    /// # Panics
    ///
    /// When the store refuses.
    pub async fn start(store: Arc<dyn Store>) -> Self {
        let hodei = Orchestrator::builder().shared_store(store).start().await.expect("the node starts");
        let agent = Agent::builder(hodei.gateway()).slots(SLOTS).handler(noop).start().await;
        Self { hodei, agent: agent.expect("the agent starts") }
    }

    /// Waits until so many jobs have succeeded.
    ///
    /// # Panics
    ///
    /// When the store fails.
    pub async fn succeeded(&self, n: usize) {
        while self.hodei.counts().await.expect("counts").of(State::Succeeded) < n as u64 {
            tokio::time::sleep(std::time::Duration::from_micros(200)).await;
        }
    }

    /// Ends the agent and the node.
    pub async fn end(self) {
        self.agent.shutdown().await;
        self.hodei.shutdown().await;
    }
}

/// Stores no-ops before any node is there.
///
/// # Panics
///
/// When the store refuses.
pub async fn preload(store: &dyn Store, n: usize) {
    let mut jobs = jobs(n).into_iter();
    loop {
        let batch: Vec<NewJob> = jobs.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        store.submit(batch, SubmitOptions::each()).await.expect("the store takes them");
    }
    let counts = store.counts(&Scope::All).await.expect("counts");
    assert_eq!(counts.of(State::Pending), n as u64);
}
