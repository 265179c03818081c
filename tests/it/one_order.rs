//! Nodes of one database that tail its change log: whoever subscribes at one of them sees what all of them do, in the order in
//! which everybody sees it, without a gap and nothing twice, whichever node dies meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_bus::{Bus, Tail, TailOptions};
use hodei_core::JobId;
use hodei_core::bus::{Delivery, EventBus as _, EventFilter, Overflow, SubscribeOptions, Subscription};
use hodei_core::event::Event;
use hodei_core::job::{JobKind, JobSpec, JobSpecBuilder, NewJob, State};
use hodei_core::store::{Consistency, Cursor, JobStore, Scope, Store, SubmitOptions};
use hodei_sched::Orchestrator;
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(120);
const BEAT: Duration = Duration::from_millis(300);
const TTL: Duration = Duration::from_secs(3);
/// How many jobs are submitted before a node dies, and as many while it is dead, in batches of this size.
const JOBS: usize = 600;
const BATCH: usize = 20;

/// A transition: which job, and which version it has now.
type Step = (JobId, u32);

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Nothing {}

impl JobKind for Nothing {
    const KIND: &'static str = "nothing";
}

async fn nothing(_: Context<()>, _: Nothing) {}

fn jobs(n: usize) -> Vec<NewJob> {
    let spec = JobSpec::of(&Nothing {}).and_then(JobSpecBuilder::build).expect("a valid spec");
    let spec = Arc::new(spec);
    (0..n).map(|_| NewJob::new(Arc::clone(&spec))).collect()
}

struct Node {
    store: Arc<dyn Store>,
    tail: Tail,
    hodei: Orchestrator,
    agent: AgentHandle,
}

impl Node {
    async fn start(database: &Database, name: &str, after: Option<Cursor>) -> (Self, Box<dyn Subscription>) {
        let store = PgStore::builder(database.url()).connections(4).connect().await.expect("the store opens");
        let store: Arc<dyn Store> = Arc::new(store);
        let tail = TailOptions { after, wait: PATIENCE, ..TailOptions::default() };
        let bus = Bus::new();
        // Before there is anything to hear.
        // A tail waits for who is slow; what a node tells of its workers waits for nobody.
        let options = SubscribeOptions { overflow: Overflow::Block, capacity: 4_096 };
        let heard = bus.subscribe(EventFilter::all(), options);
        let tail =
            Tail::start(bus, Arc::clone(&store) as Arc<dyn JobStore>, tail).await.expect("the log is read");
        let hodei = Orchestrator::builder()
            .shared_store(Arc::clone(&store))
            .shared_bus(Arc::new(tail.bus()))
            .heartbeat(BEAT, TTL);
        let hodei = hodei.start().await.expect("the node starts");
        let agent = Agent::builder(hodei.gateway()).name(name).slots(8).handler(nothing);
        let agent = agent.start().await.expect("the agent starts");
        (Self { store, tail, hodei, agent }, heard)
    }

    async fn submit(&self, n: usize) -> Vec<JobId> {
        let jobs = jobs(n);
        let ids = jobs.iter().map(|job| job.id).collect();
        self.hodei.submit_many(jobs, SubmitOptions::each()).await.expect("submitted");
        ids
    }
}

/// Hears transitions until a job has ended, or nobody publishes any more.
fn hear(mut subscription: Box<dyn Subscription>, last: JobId) -> JoinHandle<Vec<Step>> {
    tokio::spawn(async move {
        let mut steps = Vec::new();
        loop {
            let deliveries = subscription.recv(100).await;
            if deliveries.is_empty() {
                return steps;
            }
            for delivery in deliveries {
                match delivery {
                    Delivery::Event(Event::Job(event)) => {
                        steps.push((event.job, event.version));
                        if event.job == last && event.to == State::Succeeded {
                            return steps;
                        }
                    }
                    Delivery::Event(_) => {}
                    missed => panic!("nothing is missed: {missed:?}"),
                }
            }
        }
    })
}

async fn told(hearing: JoinHandle<Vec<Step>>) -> Vec<Step> {
    tokio::time::timeout(PATIENCE, hearing).await.expect("it comes to an end").expect("nothing is missed")
}

async fn all_end(store: &dyn Store, jobs: &[JobId]) -> HashMap<JobId, u32> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found =
            store.get_many(&Scope::All, jobs.to_vec(), Consistency::Latest).await.expect("they are read");
        let found: Vec<_> = found.into_iter().map(|job| job.expect("nothing is lost")).collect();
        if found.iter().all(|job| job.state == State::Succeeded) {
            return found.into_iter().map(|job| (job.id, job.version)).collect();
        }
        assert!(tokio::time::Instant::now() < end, "they do not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Each job once per version, in their order.
fn check(steps: &[Step], versions: &HashMap<JobId, u32>) {
    let mut last: HashMap<JobId, u32> = HashMap::new();
    for (job, version) in steps {
        let before = last.insert(*job, *version).unwrap_or(0);
        assert_eq!(*version, before + 1, "of {job}");
    }
    assert_eq!(last, *versions);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_of_two_nodes_see_one_order_while_one_node_dies() {
    let postgres = Postgres::shared().expect("PostgreSQL");
    let database = postgres.database().expect("a database");
    let (a, hears_a) = Node::start(&database, "a", None).await;
    let (b, hears_b) = Node::start(&database, "b", None).await;
    let last = jobs(1).remove(0);
    let (of_a, of_b) = (hear(hears_a, last.id), hear(hears_b, last.id));
    let mut ids = Vec::new();
    for _ in 0..JOBS / BATCH / 2 {
        let (one, two) = tokio::join!(a.submit(BATCH), b.submit(BATCH));
        ids.extend([one, two].concat());
    }
    // Where it will go on in its next life, as somebody keeps it who handles events.
    let kept = b.tail.cursor().expect("nothing is removed").as_bytes().to_vec();
    // It says nothing more, not even goodbye: what it holds is taken back when its time is over.
    drop(b);
    let before = told(of_b).await;
    for _ in 0..JOBS / BATCH {
        ids.extend(a.submit(BATCH).await);
    }
    let (b, hears_b) = Node::start(&database, "b", Some(Cursor::from_bytes(kept))).await;
    let of_b = hear(hears_b, last.id);
    ids.extend(b.submit(BATCH).await);
    let mut versions = all_end(&*a.store, &ids).await;
    let id = a.hodei.submit(last).await.expect("submitted");
    versions.extend(all_end(&*b.store, &[id]).await);
    let (all, after) = (told(of_a).await, told(of_b).await);
    check(&all, &versions);
    assert!(!before.is_empty() && before.len() < all.len(), "it dies in the middle: {}", before.len());
    assert!(all.starts_with(&before), "one order until it dies");
    let place = all.iter().position(|step| Some(step) == after.first()).expect("it is of the same log");
    assert!(place <= before.len(), "no gap between its lives: {place} and {}", before.len());
    assert!(all[place..] == after[..], "one order afterwards");
    for node in [a, b] {
        node.agent.shutdown().await;
        node.hodei.shutdown().await;
    }
}
