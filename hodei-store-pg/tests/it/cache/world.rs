//! Nodes that share a store and a Redis, and what the tests do to them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hodei_core::JobId;
use hodei_core::job::{Finish, Job, JobSpec, Lease, NewJob, Output, Priority};
use hodei_core::store::{
    Applied, BreakerOptions, CachedStore, Consistency, Coordination, Exchange, JobStore, Lane, MemoryStore,
    Move, Pick, Scope, SubmitOptions, TierOptions, Transition,
};
use hodei_core::testkit::fault::{Faults, Faulty};
use hodei_core::{Name, OwnerId};
use hodei_store_pg::{RedisTier, TokioTimer};
use hodei_test_servers::{Redis, Server};

pub(super) const KEY: [u8; 32] = [7; 32];
pub(super) const BUDGET: Duration = Duration::from_millis(50);
/// How long a broken tier is left alone here.
pub(super) const COOL_DOWN: Duration = Duration::from_millis(100);

/// The Redis of all tests that do not hurt theirs.
pub(super) static REDIS: LazyLock<Redis> = LazyLock::new(|| Redis::start().expect("Redis starts"));

/// A tier with keys of its own in the Redis that all tests share.
pub(super) fn shared_tier() -> RedisTier {
    static TIERS: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("{}:", TIERS.fetch_add(1, Ordering::Relaxed));
    RedisTier::builder(REDIS.url()).prefix(prefix).open().expect("a tier")
}

/// A store that several nodes share; their answers are held against its own.
pub(super) struct World {
    pub(super) store: MemoryStore,
    pub(super) url: String,
}

/// A node with nothing in its memory.
pub(super) struct Node {
    pub(super) cache: CachedStore<Faulty<MemoryStore>>,
    calls: Faults,
}

impl World {
    pub(super) fn new(url: String) -> Self {
        Self { store: MemoryStore::new(), url }
    }

    /// A node whose visits have little time, and that tries a broken tier again soon.
    pub(super) fn node(&self) -> Node {
        self.with(BUDGET, COOL_DOWN)
    }

    /// A node that leaves a broken tier alone for longer than any test takes.
    pub(super) fn sure(&self) -> Node {
        self.with(BUDGET, Duration::from_secs(3_600))
    }

    /// A node whose visits all have the time they need.
    pub(super) fn patient(&self) -> Node {
        self.with(Duration::from_secs(60), COOL_DOWN)
    }

    fn with(&self, budget: Duration, cool_down: Duration) -> Node {
        let calls = Faults::new();
        let store = Faulty::new(self.store.clone(), calls.clone()).shared();
        let tier = RedisTier::builder(&self.url).open().expect("a tier");
        let breaker = BreakerOptions { failures: 3, cool_down };
        let options = TierOptions::default().budget(budget).breaker(breaker);
        let cache = CachedStore::builder(store).tier(Arc::new(tier), KEY, Arc::new(TokioTimer), options);
        Node { cache: cache.build(), calls }
    }

    /// A node whose cache has no second tier.
    pub(super) fn node_alone(&self) -> Node {
        let calls = Faults::new();
        let store = Faulty::new(self.store.clone(), calls.clone()).shared();
        Node { cache: CachedStore::builder(store).build(), calls }
    }

    /// What the store says, and nobody else.
    pub(super) async fn truth(&self, ids: &[JobId]) -> Vec<Option<Job>> {
        self.store.get_many(&Scope::All, ids.to_vec(), Consistency::Latest).await.expect("memory answers")
    }

    /// Adds jobs that succeed.
    pub(super) async fn succeed(&self, n: usize) -> Vec<JobId> {
        static OWNERS: AtomicU64 = AtomicU64::new(0);
        let name = format!("worker-{}", OWNERS.fetch_add(1, Ordering::Relaxed));
        let owner = OwnerId::from(Name::new(name).expect("a valid name"));
        let owner = self.store.register(&owner, Duration::from_secs(3_600)).await.expect("memory answers");
        let mut ids = Vec::new();
        for _ in 0..n {
            let id = self.add().await;
            self.run(&owner, id).await;
            ids.push(id);
        }
        ids
    }

    /// Adds a job that nobody runs, in a queue of its own: whoever claims from there gets it.
    pub(super) async fn add(&self) -> JobId {
        static QUEUES: AtomicU64 = AtomicU64::new(0);
        let queue = format!("q{}", QUEUES.fetch_add(1, Ordering::Relaxed));
        let job = NewJob::new(JobSpec::command(["true"]).queue(&queue).build().expect("a valid spec"));
        let id = job.id;
        self.store.submit(vec![job], SubmitOptions::each()).await.expect("memory answers");
        id
    }

    async fn run(&self, owner: &Lease, id: JobId) {
        let job = self.truth(&[id]).await.remove(0).expect("it was added");
        let picks = vec![Pick { lane: Lane::of(&job), floor: Priority::MIN, ceiling: Priority::MAX, n: 1 }];
        let ask = Exchange { owner: owner.clone(), transitions: Vec::new(), picks };
        let claimed = self.store.exchange(ask).await.expect("memory answers").claimed.remove(0).job;
        assert_eq!(claimed.id, id);
        let output = Output::Inline(Bytes::from(id.to_string()));
        for step in [Move::Started { lease: None }, Move::Finished(Box::new(Finish::succeeded(output)))] {
            let transitions = vec![Transition { job: id, epoch: claimed.epoch, step }];
            let tell = Exchange { owner: owner.clone(), transitions, picks: Vec::new() };
            assert_eq!(self.store.exchange(tell).await.expect("memory answers").applied, [Applied::Done]);
        }
    }
}

impl Node {
    pub(super) async fn all(&self, ids: &[JobId]) -> Vec<Option<Job>> {
        // No age at all: of the tier and of memory only what can no longer change will do.
        let now = Consistency::Cached(Duration::ZERO);
        self.cache.get_many(&Scope::All, ids.to_vec(), now).await.expect("memory answers")
    }

    /// Reads with nothing in memory, and says how long that took.
    pub(super) async fn cold(&self, ids: &[JobId]) -> (Vec<Option<Job>>, Duration) {
        self.cache.clear();
        let began = Instant::now();
        (self.all(ids).await, began.elapsed())
    }

    /// How often the store was asked.
    pub(super) fn calls(&self) -> u64 {
        self.calls.calls()
    }
}

/// Sends commands to a Redis past every tier, and waits until each is answered.
pub(super) fn tell(redis: &Redis, commands: &[&[&[u8]]]) {
    let url = redis.url();
    let password = url.split([':', '@']).nth(2).expect("the url has a password");
    let mut text = Vec::new();
    append(&mut text, &[b"AUTH", password.as_bytes()]);
    commands.iter().for_each(|command| append(&mut text, command));
    // It answers what was asked before it says goodbye, and closes the connection then.
    append(&mut text, &[b"QUIT"]);
    let mut stream = TcpStream::connect(redis.address()).expect("Redis listens");
    stream.write_all(&text).expect("Redis listens");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("Redis answers");
    assert!(!answers.lines().any(|line| line.starts_with('-')), "{answers}");
}

fn append(text: &mut Vec<u8>, command: &[&[u8]]) {
    text.extend(format!("*{}\r\n", command.len()).into_bytes());
    for word in command {
        text.extend(format!("${}\r\n", word.len()).into_bytes());
        text.extend([word, b"\r\n".as_slice()].concat());
    }
}
