//! Agents that are given several nodes of one store: they go where a node answers, and no restart of a node costs an attempt.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hodei_agent::{Agent, AgentBuilder, AgentHandle, Context};
use hodei_core::gateway::{Desired, SessionState, WorkerGateway};
use hodei_core::job::{Job, JobKind, JobSpec, JobSpecBuilder, NewJob, State};
use hodei_core::store::{MemoryStore, Store};
use hodei_core::{Error, ErrorKind, JobId};
use hodei_sched::Orchestrator;
use hodei_sched::machine::SchedulerConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(60);
const BEAT: Duration = Duration::from_millis(200);
/// How long a dead node's leases hold: long enough for a machine that has much else to do, and where a node is to die.
const TTL: Duration = Duration::from_secs(15);
const SHORT_TTL: Duration = Duration::from_secs(3);

/// A job that ends when the test lets it, or after so many milliseconds.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Work {
    lasts: Option<u64>,
}

impl JobKind for Work {
    const KIND: &'static str = "work";
}

/// What all runs of a test share.
#[derive(Clone)]
struct Bench {
    open: watch::Receiver<bool>,
    begun: Arc<AtomicUsize>,
}

async fn work(context: Context<Bench>, work: Work) {
    context.state().begun.fetch_add(1, Ordering::Relaxed);
    match work.lasts {
        Some(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
        // The test holds the sender.
        None => drop(context.state().open.clone().wait_for(|open| *open).await),
    }
}

fn job(lasts: Option<u64>) -> NewJob {
    let spec = JobSpec::of(&Work { lasts }).and_then(JobSpecBuilder::build);
    NewJob::new(spec.expect("a valid spec"))
}

/// Where a node is called, whichever of its lives is there: as an address of the network is.
#[derive(Clone, Debug, Default)]
struct Door(Arc<Mutex<Option<Arc<dyn WorkerGateway>>>>);

impl Door {
    fn open(&self, gateway: Option<Arc<dyn WorkerGateway>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = gateway;
    }
}

#[async_trait]
impl WorkerGateway for Door {
    async fn sync(&self, state: SessionState) -> Result<Desired, Error> {
        let behind = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match behind {
            Some(gateway) => gateway.sync(state).await,
            None => Err(Error::new(ErrorKind::Unavailable, "gateway.sync")),
        }
    }
}

/// A node that hears calls and does not answer them.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl WorkerGateway for Silent {
    async fn sync(&self, _: SessionState) -> Result<Desired, Error> {
        std::future::pending().await
    }
}

/// Two nodes of one store.
struct Cluster {
    store: Arc<dyn Store>,
    ttl: Duration,
    doors: [Door; 2],
    nodes: [Option<Orchestrator>; 2],
    /// How many runs have begun, on whichever agent.
    begun: Arc<AtomicUsize>,
}

impl Cluster {
    async fn start(ttl: Duration) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut cluster =
            Self { store, ttl, doors: Default::default(), nodes: [None, None], begun: Arc::default() };
        cluster.boot(0).await;
        cluster.boot(1).await;
        cluster
    }

    async fn boot(&mut self, n: usize) {
        let node = Orchestrator::builder().shared_store(Arc::clone(&self.store)).heartbeat(BEAT, self.ttl);
        let node = node.start().await.expect("the node starts");
        self.doors[n].open(Some(node.gateway()));
        self.nodes[n] = Some(node);
    }

    fn node(&self, n: usize) -> &Orchestrator {
        self.nodes[n].as_ref().expect("the node is up")
    }

    /// An agent that calls one of them first.
    fn agent(&self, name: &str, first: usize) -> (AgentBuilder<Bench>, watch::Sender<bool>) {
        let (open, opened) = watch::channel(false);
        let agent = Agent::builder(Arc::new(self.doors[first].clone()))
            .or_node(Arc::new(self.doors[1 - first].clone()))
            .name(name)
            .slots(4);
        let bench = Bench { open: opened, begun: Arc::clone(&self.begun) };
        (agent.state(bench).handler(work), open)
    }

    /// Ends a node as a rolling restart does, and begins its next life.
    async fn restart(&mut self, n: usize) {
        let node = self.nodes[n].take().expect("the node is up");
        tokio::time::timeout(PATIENCE, node.shutdown()).await.expect("it ends when its runs have");
        self.doors[n].open(None);
        drop(node);
        self.boot(n).await;
    }
}

async fn started(builder: AgentBuilder<Bench>) -> AgentHandle {
    builder.start().await.expect("the agent starts")
}

async fn until<F: Future<Output = bool> + Send>(what: &str, check: impl Fn() -> F + Send + Sync) {
    let poll = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, poll).await.is_ok(), "{what}");
}

async fn runs(node: &Orchestrator, job: JobId) {
    until("it runs", || async { node.get(job).await.expect("it is there").state == State::Running }).await;
}

async fn ends(node: &Orchestrator, job: JobId) -> Job {
    let ended = tokio::time::timeout(PATIENCE, node.wait(job)).await.expect("it ends");
    ended.expect("it is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_waits_for_its_runs_and_lets_its_agents_go() {
    let mut cluster = Cluster::start(TTL).await;
    let (builder, open) = cluster.agent("busy", 0);
    let (idle, _closed) = cluster.agent("idle", 0);
    let busy = started(builder).await;
    let long = cluster.node(0).submit(job(None)).await.expect("submitted");
    runs(cluster.node(1), long).await;
    let idle = started(idle).await;
    until("both are there", || async { cluster.node(0).workers().len() == 2 }).await;
    let a = cluster.nodes[0].take().expect("the node is up");
    let drain = tokio::spawn(async move { a.shutdown().await });
    // Whoever runs nothing goes at once, and works elsewhere.
    let other = cluster.node(1);
    until("an agent has come over", || async { !other.workers().is_empty() }).await;
    let next = other.submit(job(Some(1))).await.expect("submitted");
    assert_eq!(ends(other, next).await.attempt, 1);
    assert!(!drain.is_finished(), "it waits for what runs");
    open.send_replace(true);
    let ended = ends(other, long).await;
    assert_eq!((ended.state, ended.attempt, ended.lost_count), (State::Succeeded, 1, 0));
    tokio::time::timeout(PATIENCE, drain).await.expect("it ends").expect("it ends");
    until("both have come over", || async { other.workers().len() == 2 }).await;
    busy.shutdown().await;
    idle.shutdown().await;
    other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_gives_back_while_it_runs_ends_at_another_in_its_first_attempt() {
    let mut cluster = Cluster::start(TTL).await;
    let (builder, open) = cluster.agent("w", 0);
    let agent = started(builder).await;
    let long = cluster.node(0).submit(job(None)).await.expect("submitted");
    runs(cluster.node(1), long).await;
    let before = cluster.node(1).get(long).await.expect("it is there").epoch;
    cluster.nodes[0].take().expect("the node is up").stop().await;
    let other = cluster.node(1);
    until("it runs again", || async {
        let job = other.get(long).await.expect("it is there");
        job.state == State::Running && job.epoch > before
    })
    .await;
    open.send_replace(true);
    let ended = ends(other, long).await;
    assert_eq!((ended.state, ended.attempt, ended.lost_count), (State::Succeeded, 1, 0));
    agent.shutdown().await;
    other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_ends_when_a_node_is_gone_without_a_word() {
    let mut cluster = Cluster::start(SHORT_TTL).await;
    let (builder, open) = cluster.agent("w", 0);
    open.send_replace(true);
    let agent = started(builder).await;
    let mut jobs = Vec::new();
    for (n, lasts) in (0..200).enumerate() {
        jobs.push(cluster.node(n % 2).submit(job(Some(lasts % 40))).await.expect("submitted"));
    }
    ends(cluster.node(1), jobs[8]).await;
    cluster.nodes[0] = None;
    for id in jobs {
        let ended = ends(cluster.node(1), id).await;
        assert_eq!((ended.state, ended.attempt), (State::Succeeded, 1));
    }
    agent.shutdown().await;
    cluster.node(1).shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_both_nodes_under_load_loses_no_attempt() {
    let mut cluster = Cluster::start(TTL).await;
    let mut agents = Vec::new();
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        agents.push(started(cluster.agent(name, n % 2).0).await);
    }
    // Whoever submits knows the store: jobs come all the time, whichever node is up.
    let (store, mut load) = (Arc::clone(&cluster.store), JoinSet::new());
    let (end, mut over) = watch::channel(false);
    let (came, mut coming) = watch::channel(0);
    load.spawn(async move {
        let mut ids = Vec::new();
        while !*over.borrow_and_update() {
            let jobs: Vec<NewJob> = (0..4).map(|n| job(Some(n * 15))).collect();
            ids.extend(jobs.iter().map(|job| job.id));
            store.submit(jobs, hodei_core::store::SubmitOptions::each()).await.expect("the store takes them");
            came.send_replace(ids.len());
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        ids
    });
    for round in 0..6 {
        // However busy the machine is, there is work at each restart.
        let so_far = *coming.borrow_and_update();
        coming.wait_for(|came| *came >= so_far + 12).await.expect("jobs come all the time");
        cluster.restart(round % 2).await;
    }
    end.send_replace(true);
    let ids = load.join_next().await.expect("one").expect("it ends");
    for id in &ids {
        let ended = ends(cluster.node(0), *id).await;
        assert_eq!((ended.state, ended.attempt, ended.lost_count), (State::Succeeded, 1, 0));
    }
    assert_eq!(cluster.begun.load(Ordering::Relaxed), ids.len(), "each ran once");
    for agent in agents {
        agent.shutdown().await;
    }
    cluster.node(0).shutdown().await;
    cluster.node(1).shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_left_and_a_run_that_tells_all_the_time_does_not_make_one_silent() {
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Tell {}
    impl JobKind for Tell {
        const KIND: &'static str = "tell";
    }
    async fn tell(context: Context<()>, _: Tell) {
        for step in 0..90 {
            context.progress(step, 90);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let mut config = SchedulerConfig::default();
    (config.session_ttl, config.next_sync) = (Duration::from_secs(6), Duration::from_secs(1));
    let node = Orchestrator::builder().heartbeat(BEAT, TTL).scheduler(config);
    let node = node.start().await.expect("the node starts");
    let agent = Agent::builder(Arc::new(Silent)).or_node(node.gateway());
    let agent = agent.node_timeout(Duration::from_secs(1)).handler(tell);
    let agent = agent.start().await.expect("the agent starts");
    let spec = JobSpec::of(&Tell {}).and_then(JobSpecBuilder::build).expect("a valid spec");
    let id = node.submit(NewJob::new(spec)).await.expect("submitted");
    let ended = ends(&node, id).await;
    assert_eq!((ended.state, ended.attempt, ended.lost_count), (State::Succeeded, 1, 0));
    assert_eq!(ended.epoch.number(), 1, "it ran once, for longer than an agent runs on alone");
    agent.shutdown().await;
    node.shutdown().await;
}
