//! Jobs run on the agents whose labels they ask for, apart from whom they shun and beside whom they seek, on a store in a file.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_core::job::{JobKind, JobSpec, JobSpecBuilder, NewJob, Selector, State};
use hodei_core::{JobId, Name};
use hodei_sched::{Explanation, Orchestrator};
use hodei_store_redb::RedbStore;
use tokio::sync::Semaphore;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Visit {
    group: String,
}

impl JobKind for Visit {
    const KIND: &'static str = "visit";
}

/// Who is where now, and who was ever where.
#[derive(Debug, Default)]
struct Book {
    now: HashMap<String, Vec<String>>,
    ever: HashMap<String, HashSet<String>>,
    /// On which agents two of the group were at once that never are.
    together: Vec<String>,
}

/// What the handlers of an agent share: its name, the book, and how many runs may end.
#[derive(Clone)]
struct Place {
    agent: String,
    book: Arc<Mutex<Book>>,
    ends: Arc<Semaphore>,
}

async fn visit(context: Context<Place>, Visit { group }: Visit) {
    let Place { agent, book, ends } = context.state();
    {
        let mut book = book.lock().expect("nobody panics with it");
        let here = book.now.entry(agent.clone()).or_default();
        let twice = group == "replica" && here.contains(&group);
        here.push(group.clone());
        book.ever.entry(group.clone()).or_default().insert(agent.clone());
        if twice {
            book.together.push(agent.clone());
        }
    }
    ends.acquire().await.expect("it stays open").forget();
    let mut book = book.lock().expect("nobody panics with it");
    let here = book.now.get_mut(agent).expect("it is noted");
    let at = here.iter().position(|there| *there == group).expect("it came");
    here.swap_remove(at);
}

fn job(group: &str, more: impl FnOnce(JobSpecBuilder) -> JobSpecBuilder) -> NewJob {
    let spec = JobSpec::of(&Visit { group: group.to_owned() }).expect("a valid spec").group(group);
    NewJob::new(more(spec).build().expect("a valid spec"))
}

struct House {
    hodei: Orchestrator,
    agents: Vec<AgentHandle>,
    book: Arc<Mutex<Book>>,
    ends: Arc<Semaphore>,
}

impl House {
    /// A node with an agent in the north and two in the south.
    async fn open(file: &std::path::Path) -> Self {
        let store = RedbStore::open(file).expect("the store opens");
        let hodei = Orchestrator::builder().store(store).start().await.expect("the node starts");
        let (book, ends) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let mut house = Self { hodei, agents: Vec::new(), book, ends };
        for (name, zone) in [("n", "north"), ("s1", "south"), ("s2", "south")] {
            house.join(name, zone).await;
        }
        house
    }

    async fn join(&mut self, name: &str, zone: &str) {
        let (book, ends) = (Arc::clone(&self.book), Arc::clone(&self.ends));
        let state = Place { agent: name.to_owned(), book, ends };
        let agent = Agent::builder(self.hodei.gateway()).name(name).label("zone", zone).slots(4);
        let agent = agent.state(state).handler(visit).start().await;
        self.agents.push(agent.expect("the agent starts"));
    }

    async fn submit(&self, job: NewJob) -> JobId {
        self.hodei.submit(job).await.expect("submitted")
    }

    /// Waits until so many of a group run now.
    async fn run(&self, group: &str, wanted: usize) {
        let come = async {
            loop {
                let now: Vec<String> = self
                    .book
                    .lock()
                    .expect("nobody panics with it")
                    .now
                    .values()
                    .flatten()
                    .cloned()
                    .collect();
                if now.iter().filter(|there| *there == group).count() == wanted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, come).await.expect("they come");
    }

    fn ever(&self, group: &str) -> Vec<String> {
        let mut agents: Vec<String> = self
            .book
            .lock()
            .expect("nobody panics with it")
            .ever
            .get(group)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        agents.sort_unstable();
        agents
    }

    async fn explain(&self, job: JobId) -> Explanation {
        self.hodei.explain(job).await.expect("an explanation")
    }

    /// Lets everything end.
    async fn close(self, jobs: &[JobId]) {
        self.ends.add_permits(1_000);
        for job in jobs {
            let ended = tokio::time::timeout(PATIENCE, self.hodei.wait(*job)).await.expect("it ends");
            assert_eq!(ended.expect("it is there").state, State::Succeeded);
        }
        for agent in self.agents {
            agent.shutdown().await;
        }
        self.hodei.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_where_they_say_apart_and_beside_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut house = House::open(&directory.path().join("jobs.redb")).await;
    let south = || Selector::is("zone", "south");
    let mut jobs = Vec::new();
    // Three replicas, of which no two may be together, for two agents.
    for _ in 0..3 {
        jobs.push(house.submit(job("replica", |spec| spec.require(south()).apart("replica"))).await);
    }
    house.run("replica", 2).await;
    assert_eq!(house.ever("replica"), ["s1", "s2"]);
    // While the node claims the third it is nobody's yet.
    let kept = async {
        loop {
            for replica in &jobs {
                if let Explanation::KeptApartFrom(worker, group) = house.explain(*replica).await {
                    return worker.as_str().starts_with('s') && group == "replica";
                }
            }
        }
    };
    let kept = tokio::time::timeout(PATIENCE, kept).await;
    assert!(kept.expect("one waits, and it is said for whom"));
    // Nobody has such a label, and the agent that is named comes nearest.
    let moon = job("moon", |spec| spec.require(south()).require(Selector::is("orbit", "moon")));
    let moon = house.submit(moon).await;
    let explained = house.explain(moon).await;
    assert!(matches!(&explained, Explanation::Unmet(worker, _) if worker.as_str() == "s1"), "{explained}");
    assert_eq!(explained.to_string(), "no worker is as it requires: that orbit is moon is not so on s1");
    // Guests wait for their host, and come where he is.
    for _ in 0..2 {
        jobs.push(house.submit(job("guest", |spec| spec.beside("host"))).await);
    }
    let guest = jobs[jobs.len() - 1];
    assert!(matches!(house.explain(guest).await, Explanation::NotBeside(_, group) if group == "host"));
    jobs.push(house.submit(job("host", |spec| spec.require(Selector::is("zone", "north")))).await);
    house.run("guest", 2).await;
    assert_eq!((house.ever("host"), house.ever("guest")), (vec!["n".to_owned()], vec!["n".to_owned()]));
    // A third agent of the south comes: the third replica has a place.
    house.join("s3", "south").await;
    house.run("replica", 3).await;
    assert_eq!(house.ever("replica"), ["s1", "s2", "s3"]);
    assert_eq!(house.book.lock().unwrap().together, Vec::<String>::new());
    let names: Vec<Name> = house.hodei.workers();
    assert_eq!(names.len(), 4);
    house.hodei.cancel(moon).await.expect("it is cancelled");
    house.close(&jobs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_jobs_say_of_their_place_outlives_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jobs.redb");
    let store = RedbStore::open(&file).expect("the store opens");
    let before = Orchestrator::builder().store(store).start().await.expect("the node starts");
    let mut jobs = Vec::new();
    for _ in 0..12 {
        let replica = job("replica", |spec| spec.require(Selector::is("zone", "south")).apart("replica"));
        jobs.push(before.submit(replica).await.expect("submitted"));
    }
    before.shutdown().await;
    drop(before);
    let house = House::open(&file).await;
    house.run("replica", 2).await;
    house.ends.add_permits(12);
    for job in &jobs {
        let ended = tokio::time::timeout(PATIENCE, house.hodei.wait(*job)).await.expect("it ends");
        assert_eq!(ended.expect("it is there").state, State::Succeeded);
    }
    assert_eq!(house.ever("replica"), ["s1", "s2"]);
    assert_eq!(house.book.lock().unwrap().together, Vec::<String>::new());
    house.close(&[]).await;
}
