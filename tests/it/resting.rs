//! Nodes that share a database and have nothing to do: whoever leads keeps the duty, the others ask for nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_core::job::{JobKind, JobSpec, JobSpecBuilder, State};
use hodei_core::store::Coordination;
use hodei_core::{Name, OwnerId};
use hodei_sched::Orchestrator;
use hodei_sched::machine::SchedulerConfig;
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres};

const BEAT: Duration = Duration::from_millis(100);
/// Long enough for a machine that has much else to do.
const TTL: Duration = Duration::from_secs(3);
/// How many heartbeats are looked at.
const BEATS: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Nothing {}

impl JobKind for Nothing {
    const KIND: &'static str = "nothing";
}

async fn nothing(_: Context<()>, _: Nothing) {}

fn job() -> hodei_core::job::NewJob {
    let spec = JobSpec::of(&Nothing {}).and_then(JobSpecBuilder::build);
    hodei_core::job::NewJob::new(spec.expect("a valid spec"))
}

struct Node {
    store: Arc<PgStore>,
    hodei: Orchestrator,
}

impl Node {
    async fn start(database: &Database) -> Self {
        let store = Arc::new(PgStore::builder(database.url()).connect().await.expect("the store opens"));
        let mut config = SchedulerConfig::default();
        config.rest_after = BEAT * 5;
        let hodei = Orchestrator::builder()
            .shared_store(Arc::clone(&store) as _)
            .heartbeat(BEAT, TTL)
            .scheduler(config);
        let hodei = hodei.start().await.expect("the node starts");
        Self { store, hodei }
    }

    async fn agent(&self) -> AgentHandle {
        let agent = Agent::builder(self.hodei.gateway()).handler(nothing);
        agent.start().await.expect("the agent starts")
    }

    /// How often it asks the server in the time of [`BEATS`].
    async fn asks(&self) -> u64 {
        let before = self.store.round_trips();
        tokio::time::sleep(BEAT * BEATS).await;
        self.store.round_trips() - before
    }

    /// Waits until it asks as often as is wanted.
    async fn comes_to(&self, wanted: impl Fn(u64) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let asks = self.asks().await;
            if wanted(asks) {
                return;
            }
            assert!(Instant::now() < end, "it asks {asks} times in {BEATS} beats");
        }
    }

    /// Runs a job, wherever.
    async fn runs(&self) {
        let id = self.hodei.submit(job()).await.expect("submitted");
        let ended =
            tokio::time::timeout(PATIENCE, self.hodei.wait(id)).await.expect("it ends").expect("it ends");
        assert_eq!((ended.state, ended.lost_count), (State::Succeeded, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_work_asks_for_nothing_and_leads_when_nobody_does() {
    let postgres = Postgres::shared().expect("PostgreSQL");
    let database = postgres.database().expect("a database");
    let leads = Node::start(&database).await;
    let rests = Node::start(&database).await;
    // Only it runs what comes.
    let agent = rests.agent().await;
    // Whoever leads says so, and that it lives, in one call. A probe may fall into the time.
    leads.comes_to(|asks| asks <= u64::from(BEATS) + 2).await;
    rests.comes_to(|asks| asks <= 1).await;
    for _ in 0..3 {
        leads.runs().await;
        rests.runs().await;
    }
    rests.comes_to(|asks| asks <= 1).await;
    leads.hodei.shutdown().await;
    rests.comes_to(|asks| asks >= u64::from(BEATS) / 2).await;
    let stranger = OwnerId::new("stranger").expect("a name");
    let stranger = rests.store.register(&stranger, PATIENCE).await.expect("the server is well");
    let term = rests.store.take_term(&Name::literal("maintain"), &stranger, TTL).await;
    assert_eq!(term.expect("the server is well"), None, "the node that is left leads");
    rests.runs().await;
    agent.shutdown().await;
    rests.hodei.shutdown().await;
}
