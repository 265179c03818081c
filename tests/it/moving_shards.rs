//! A node over a cache over three embedded stores, between which tenants move while their jobs run: killed at random
//! moments and started again, it loses nothing and ends nothing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, thread};

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_core::job::{JobKind, JobSpec, JobSpecBuilder, NewJob, State};
use hodei_core::store::{
    CachedStore, Consistency, JobStore, LatestReads, Scope, Shard, ShardedStore, SubmitOptions,
};
use hodei_core::testkit::history::{Recorder, RecordingStore, check};
use hodei_core::{Error, JobId, Tenant};
use hodei_sched::Orchestrator;
use hodei_store_redb::RedbStore;

use crate::kill_nine::mixed;
use crate::program::pause;

/// How often the node is killed; `HODEI_KILLS` sets another number.
const KILLS: u64 = 6;
/// The folder of a process that works until it is killed.
const FOLDER: &str = "HODEI_MOVING_SHARDS";
const SHARDS: usize = 3;
const TENANTS: u64 = 6;
/// At most so many jobs are submitted together.
const TOGETHER: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(serde::Serialize, serde::Deserialize)]
struct Noted;

impl JobKind for Noted {
    const KIND: &'static str = "noted";
}

/// Notes that it runs, where a kill does not reach: each note is one write to the end of a file.
async fn note(context: Context<PathBuf>, _: Noted) {
    let (job, epoch) = context.fence();
    let mut notes = fs::OpenOptions::new().append(true).create(true).open(context.state()).expect("a file");
    notes.write_all(format!("{job} {}\n", epoch.number()).as_bytes()).expect("there is room");
    tokio::time::sleep(Duration::from_millis(mixed(epoch.number()) % 4)).await;
}

fn tenant(number: u64) -> Tenant {
    Tenant::new(format!("tenant-{}", number % TENANTS)).expect("a name")
}

fn notes(folder: &Path) -> PathBuf {
    folder.join("notes")
}

/// The files as one store.
async fn shards(folder: &Path) -> ShardedStore {
    let file = |n| RedbStore::builder(folder.join(format!("{n}.redb"))).cache_bytes(16 << 20).open();
    let shards = (0..SHARDS).map(|n| Arc::new(file(n).expect("the file is sound")) as Arc<dyn Shard>);
    let shards = ShardedStore::open(shards.collect()).await.expect("they are shards of one store");
    shards.resume_moves().await.expect("what was left half done is finished");
    shards
}

struct Node {
    shards: ShardedStore,
    hodei: Orchestrator,
    agent: AgentHandle,
}

impl Node {
    async fn start(folder: &Path) -> Self {
        let shards = shards(folder).await;
        let store = CachedStore::builder(shards.clone()).latest(LatestReads::Acknowledged).build();
        let hodei = Orchestrator::builder().store(store).lost_max(1_000);
        let hodei = hodei.heartbeat(Duration::from_millis(50), Duration::from_secs(5));
        let hodei = hodei.start().await.expect("the node starts");
        let agent = Agent::builder(hodei.gateway()).slots(8).state(notes(folder)).handler(note);
        Self { shards, agent: agent.start().await.expect("the agent starts"), hodei }
    }

    /// Moves one tenant after the other.
    async fn moves(&self, seed: u64) {
        for turn in seed.. {
            let to = usize::try_from(mixed(turn) % SHARDS as u64).expect("few");
            self.shards.move_slot(tenant(mixed(!turn)).slot(), to).await.expect("it moves");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Submits without end, and says what was acknowledged.
    async fn submits(&self, seed: u64) {
        for turn in seed.. {
            let (tenant, count) = (tenant(mixed(turn)), 1 + mixed(!turn) % TOGETHER);
            let spec = JobSpec::of(&Noted).and_then(JobSpecBuilder::build).expect("a valid spec");
            let spec = Arc::new(spec);
            let jobs: Vec<NewJob> =
                (0..count).map(|_| NewJob::of(tenant.clone(), Arc::clone(&spec))).collect();
            let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
            insist(async || self.hodei.submit_many(jobs.clone(), SubmitOptions::atomic()).await).await;
            for id in ids {
                say(format_args!("stored {id}"));
                tokio::spawn(follow(self.hodei.clone(), id));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until all has ended.
    async fn drains(&self) {
        while insist(async || self.hodei.counts().await).await.open() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.agent.shutdown().await;
        self.hodei.shutdown().await;
    }
}

/// Says that a job has ended, as it is read from then on.
async fn follow(hodei: Orchestrator, id: JobId) {
    let ended = loop {
        match hodei.wait(id).await {
            Ok(ended) => break ended,
            Err(error) => pass(error).await,
        }
    };
    assert_eq!(ended.state, State::Succeeded);
    let read = loop {
        match hodei.get(id).await {
            Ok(read) => break read,
            Err(error) => pass(error).await,
        }
    };
    assert_eq!((read.state, read.version), (ended.state, ended.version), "{id} went back");
    say(format_args!("done {id}"));
}

/// Repeats a call until the slot that it needs is open again.
async fn insist<T>(mut call: impl AsyncFnMut() -> Result<T, Error>) -> T {
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) => pass(error).await,
        }
    }
}

/// Lets an error pass that a slot on the move gives.
async fn pass(error: Error) {
    assert!(error.is_retryable(), "{error}");
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Says something to the parent, past the capture of the test harness.
fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the parent listens");
}

#[test]
fn it_works_where_its_environment_says_until_it_is_killed() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        std::process::exit(1);
    }));
    let seed = mixed(u64::from(std::process::id()));
    tokio::runtime::Runtime::new().expect("threads").block_on(async {
        let node = Node::start(&folder).await;
        say("open");
        tokio::join!(node.moves(seed >> 32), node.submits(seed >> 33));
    });
}

/// What was acknowledged, in all lives together.
#[derive(Debug, Default)]
struct Said {
    stored: BTreeSet<JobId>,
    done: BTreeSet<JobId>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let id = |text: &str| text.parse().expect("an id");
        match line.split_once(' ') {
            Some(("stored", text)) => drop(self.stored.insert(id(text))),
            Some(("done", text)) => drop(self.done.insert(id(text))),
            // The test harness says something too.
            _ => {}
        }
    }

    /// Lets a process work for a while, and kills it.
    fn of_a_life(&mut self, folder: &Path, wait: Duration) {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "moving_shards::it_works_where_its_environment_says_until_it_is_killed"])
            .args(["--nocapture", "--test-threads=1"])
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process more");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let opened = lines.by_ref().find(|line| line.as_ref().is_ok_and(|line| line.ends_with("open")));
        opened.expect("it begins to work").expect("text");
        let hearing = thread::spawn(move || lines.collect::<Result<Vec<_>, _>>().expect("text"));
        pause(wait);
        child.kill().expect("it lives");
        assert_eq!(child.wait().expect("it was killed").signal(), Some(9), "it ended by itself");
        hearing.join().expect("it hears to the end").iter().for_each(|line| self.hear(line));
    }

    /// Holds what is stored to what was acknowledged, and to the guarantees; returns how many runs were lost.
    async fn hold(&self, folder: &Path) -> usize {
        let store = CachedStore::new(shards(folder).await);
        let ids: Vec<JobId> = self.stored.iter().copied().collect();
        let jobs = store.get_many(&Scope::All, ids, Consistency::Latest).await.expect("the files are sound");
        let jobs: Vec<_> = jobs.into_iter().map(|job| job.expect("it was acknowledged")).collect();
        assert!(jobs.iter().all(|job| job.state == State::Succeeded));
        let lost: usize = jobs.iter().map(|job| usize::from(job.lost_count)).sum();
        assert_eq!(store.verify_indexes().await.expect("the files are sound"), Vec::<String>::new());
        let (mut ends, mut after) = (BTreeMap::new(), None);
        loop {
            let page = store.changes(&Scope::All, after, 1_000).await.expect("the log is whole");
            if page.changes.is_empty() {
                break;
            }
            for change in page.changes.iter().filter(|change| change.to.is_terminal()) {
                *ends.entry(change.job).or_insert(0) += 1;
            }
            after = Some(page.next);
        }
        assert!(ends.values().all(|ends| *ends == 1), "a job ended twice");
        assert!(self.stored.iter().all(|id| ends.contains_key(id)));
        let store = RecordingStore::new(store, Recorder::new());
        self.stored.iter().for_each(|id| store.recorder().acknowledged(*id));
        store.recorder().restarted();
        store.survey().await.expect("the files are sound");
        let report = check(&store.recorder().history());
        assert!(report.is_clean(), "{report}");
        lost
    }
}

/// Whoever runs is fenced by its epoch: under each of them a job was begun at most once.
fn hold_runs(folder: &Path, stored: &BTreeSet<JobId>) {
    let notes = fs::read_to_string(notes(folder)).expect("something ran");
    let (mut runs, mut ran) = (BTreeSet::new(), BTreeSet::new());
    for line in notes.lines() {
        assert!(runs.insert(line), "{line} ran twice");
        let (job, _) = line.split_once(' ').expect("a job and its epoch");
        ran.insert(job.parse::<JobId>().expect("an id"));
    }
    assert!(stored.is_subset(&ran), "some jobs ended that never ran");
}

#[test]
fn a_node_over_moving_shards_loses_nothing_when_it_is_killed() {
    let kills = env::var("HODEI_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let (seed, folder) = (u64::from(std::process::id()), tempfile::tempdir().expect("a folder"));
    println!("seed {seed}, {kills} kills");
    let (folder, mut said) = (folder.path(), Said::default());
    for kill in 0..kills {
        said.of_a_life(folder, Duration::from_millis(100 + mixed(seed ^ kill) % 500));
    }
    tokio::runtime::Runtime::new().expect("threads").block_on(async {
        let node = Node::start(folder).await;
        let drained = async {
            tokio::select! {
                () = node.moves(seed) => {}
                () = node.drains() => {}
            }
        };
        tokio::time::timeout(PATIENCE, drained).await.expect("everything ends");
        // What was read lately is answered by the cache, which whoever holds the store as any other can see.
        let some = *said.stored.first().expect("something was acknowledged");
        for _ in 0..2 {
            assert_eq!(insist(async || node.hodei.get(some).await).await.state, State::Succeeded);
        }
        let cache = node.hodei.shared_store().stats().cache.expect("there is one");
        assert!(cache.hits > 0 && cache.hit_ratio() > 0.0, "{cache:?}");
        node.end().await;
        let lost = said.hold(folder).await;
        assert!(lost > 0 || kills == 0, "no kill met a run");
        println!("{} acknowledged, {} told as ended, {lost} runs lost", said.stored.len(), said.done.len());
    });
    hold_runs(folder, &said.stored);
}
