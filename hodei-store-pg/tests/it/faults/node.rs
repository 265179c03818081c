//! Nodes that are processes: one is frozen and thawed, another killed, while a third takes their work over.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hodei_core::job::{Finish, Lease, Output, Priority, State};
use hodei_core::store::{
    Applied, Claimed, Consistency, Coordination, Exchange, JobStore, Move, Pick, Scope, Served,
    SubmitOptions, Term, Transition,
};
use hodei_core::testkit::history::{Recorder, RecordingStore, check};
use hodei_core::testkit::typical_job;
use hodei_core::{JobId, Name, OwnerId};
use hodei_store_pg::PgStore;
use hodei_test_servers::{Database, Postgres};
use rustix::process::{Pid, Signal, kill_process};

use super::fleet::PATIENCE;
use super::killed;
use super::variable::variable;

/// How many jobs a node holds.
const JOBS: usize = 5;
/// How long a node lives without a beat.
const TTL: Duration = Duration::from_secs(1);
/// How often a node is frozen; `HODEI_PG_FREEZES` sets another number.
const FREEZES: u64 = 2;
/// How often a node is killed; `HODEI_PG_NODE_KILLS` sets another number.
const KILLS: u64 = 3;

/// Set for another process: the database that it works on.
pub(super) const URL: &str = "HODEI_PG_TEST_URL";

fn done() -> Move {
    Move::Finished(Box::new(Finish::succeeded(Output::none())))
}

/// Claims up to [`JOBS`] from the lanes that have work.
async fn claim(store: &dyn JobStore, owner: &Lease) -> Vec<Claimed> {
    let lanes = store.lanes(&Served::default()).await.expect("the server is well");
    let most = u32::try_from(JOBS).expect("a small number");
    let pick = |lane| Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n: most };
    let picks = lanes.heads.into_iter().map(|head| pick(head.lane)).collect();
    let exchange = Exchange { owner: owner.clone(), transitions: Vec::new(), picks };
    store.exchange(exchange).await.expect("the server is well").claimed
}

async fn tell(store: &dyn JobStore, owner: &Lease, of: &Claimed, step: Move) -> Applied {
    let transitions = vec![Transition { job: of.job.id, epoch: of.job.epoch, step }];
    let exchange = Exchange { owner: owner.clone(), transitions, picks: Vec::new() };
    store.exchange(exchange).await.expect("the server is well").applied[0]
}

pub(super) fn say(line: impl Display) {
    let mut out = stdout().lock();
    writeln!(out, "said: {line}").and_then(|()| out.flush()).expect("the parent listens");
}

/// What the other process does: it takes jobs and the duty of upkeep, and when it is asked, it tries to act on both.
async fn live(url: String) {
    let store = PgStore::builder(url).connections(2).connect().await.expect("the store opens");
    let owner =
        store.register(&OwnerId::new("victim").expect("a name"), PATIENCE).await.expect("the server is well");
    let duty = Name::literal("upkeep");
    let term =
        store.take_term(&duty, &owner, PATIENCE).await.expect("the server is well").expect("nobody leads");
    let (mut held, end) = (Vec::new(), Instant::now() + PATIENCE);
    while held.len() < JOBS {
        assert!(Instant::now() < end, "{} of {JOBS} jobs are there", held.len());
        held.extend(claim(&store, &owner).await);
    }
    for of in held.iter().skip(1) {
        assert_eq!(tell(&store, &owner, of, Move::Started { lease: None }).await, Applied::Done);
    }
    // From here on it lives from beat to beat.
    assert!(store.beat(vec![owner.clone()], TTL).await.expect("the server is well")[0].alive);
    assert!(store.keep_term(&term, TTL).await.expect("the server is well"));
    say("ready");
    let asked = tokio::task::spawn_blocking(|| stdin().lines().next());
    let beating = async {
        loop {
            tokio::time::sleep(TTL / 5).await;
            if !store.beat(vec![owner.clone()], TTL).await.is_ok_and(|beats| beats[0].alive) {
                return std::future::pending::<()>().await;
            }
            store.keep_term(&term, TTL).await.expect("the server is well");
        }
    };
    tokio::select! { _ = asked => {}, () = beating => {} }
    act(&store, &owner, &term, &held).await;
}

/// Tries everything that only the living may do, and says what came of it.
async fn act(store: &PgStore, owner: &Lease, term: &Term, held: &[Claimed]) {
    say(format_args!(
        "alive {}",
        store.beat(vec![owner.clone()], TTL).await.expect("the server is well")[0].alive
    ));
    say(format_args!("leads {}", store.keep_term(term, TTL).await.expect("the server is well")));
    say(format_args!("reaps {}", !store.reap(term, 9, 9).await.expect("the server is well").term_lost));
    say(format_args!("holds {}", store.leases_of(owner).await.expect("the server is well").len()));
    let exchange = Exchange { owner: owner.clone(), transitions: Vec::new(), picks: Vec::new() };
    say(format_args!("lost {}", store.exchange(exchange).await.expect("the server is well").owner_lost));
    say(format_args!("claims {}", claim(store, owner).await.len()));
    for of in held {
        for step in [Move::Started { lease: None }, Move::Returned, Move::Lost { lost_max: 9 }, done()] {
            let refused = matches!(tell(store, owner, of, step).await, Applied::LeaseLost { .. });
            say(format_args!("refused {refused}"));
        }
    }
    say("over");
}

/// Does what the environment says, in the process that was started for it; whether it said anything.
pub(crate) fn obey() -> bool {
    let Ok(url) = std::env::var(URL) else { return false };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a thread").block_on(async {
        match killed::name() {
            Some(name) => killed::work(url, name).await,
            None => live(url).await,
        }
    });
    true
}

/// Another process, which is killed when the value goes.
struct Victim {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Victim {
    fn start(database: &Database) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "it_does_what_its_environment_says", "--nocapture", "--test-threads=1"]);
        let piped = command.env(URL, database.url()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().expect("a process more");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, said }
    }

    /// What it says until it says `last`.
    fn hear(&mut self, last: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).expect("a pipe"), 0, "it died after {heard:?}");
            let Some((_, said)) = line.trim_end().rsplit_once("said: ") else { continue };
            if said == last {
                return heard;
            }
            heard.push(said.to_owned());
        }
    }

    fn ask(&mut self) {
        writeln!(self.child.stdin.as_mut().expect("a pipe"), "act").expect("it listens");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node that lives, in this process.
struct Heir {
    store: RecordingStore<PgStore>,
    owner: Lease,
    ids: Vec<JobId>,
}

impl Heir {
    async fn start(database: &Database) -> Self {
        let store = PgStore::builder(database.url()).connections(2).connect().await.expect("the store opens");
        let store = RecordingStore::new(store, Recorder::new());
        let owner = OwnerId::new("heir").expect("a name");
        let owner = store.register(&owner, PATIENCE).await.expect("the server is well");
        Self { store, owner, ids: Vec::new() }
    }

    async fn submit(&mut self) {
        let jobs: Vec<_> = (0..JOBS).map(|_| typical_job()).collect();
        self.ids = jobs.iter().map(|job| job.id).collect();
        self.store.submit(jobs, SubmitOptions::each()).await.expect("the server is well");
    }

    /// Takes over and runs every job of the dead; returns how long that took.
    async fn inherit(&self) -> Duration {
        let began = Instant::now();
        let (duty, mut running) = (Name::literal("upkeep"), BTreeSet::new());
        let mut term = None;
        while running.len() < JOBS {
            assert!(began.elapsed() < PATIENCE, "{running:?}");
            if term.is_none() {
                term = self.store.take_term(&duty, &self.owner, PATIENCE).await.expect("the server is well");
            }
            if let Some(held) = &term {
                let reaped = self.store.reap(held, 9, 100).await.expect("the server is well");
                term = term.filter(|_| !reaped.term_lost);
            }
            for of in claim(&self.store, &self.owner).await {
                assert_eq!(
                    tell(&self.store, &self.owner, &of, Move::Started { lease: None }).await,
                    Applied::Done
                );
                assert!(running.insert(of.job.id), "claimed twice");
                assert_eq!(tell(&self.store, &self.owner, &of, done()).await, Applied::Done);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(running, self.ids.iter().copied().collect());
        began.elapsed()
    }

    async fn is_sound(&self) {
        let jobs = self.store.get_many(&Scope::All, self.ids.clone(), Consistency::Latest).await;
        for job in jobs.expect("the server is well").into_iter().flatten() {
            assert_eq!((job.state, job.lost_count), (State::Succeeded, 1));
        }
        assert_eq!(self.store.verify_indexes().await.expect("the server is well"), Vec::<String>::new());
        // What the other process did is known from the change log alone.
        let other = RecordingStore::new(self.store.inner().clone(), Recorder::new());
        self.ids.iter().for_each(|id| other.recorder().acknowledged(*id));
        other.survey().await.expect("the server is well");
        let report = check(&other.recorder().history());
        assert!(report.is_clean(), "{report}");
    }
}

#[tokio::test]
async fn what_a_frozen_node_tries_when_it_thaws_is_refused() {
    let freezes = variable("HODEI_PG_FREEZES", FREEZES);
    let postgres = Postgres::shared().unwrap();
    for _ in 0..freezes {
        let database = postgres.database().unwrap();
        let mut heir = Heir::start(&database).await;
        heir.submit().await;
        let mut victim = Victim::start(&database);
        victim.hear("ready");
        victim.signal(Signal::STOP);
        heir.inherit().await;
        victim.ask();
        victim.signal(Signal::CONT);
        let heard = victim.hear("over");
        let refused = heard.iter().filter(|line| *line == "refused true").count();
        assert_eq!(refused, JOBS * 4, "{heard:?}");
        let others: Vec<&String> = heard.iter().filter(|line| !line.starts_with("refused")).collect();
        assert_eq!(others, ["alive false", "leads false", "reaps false", "holds 0", "lost true", "claims 0"]);
        heir.is_sound().await;
    }
    println!("{freezes} nodes frozen and thawed: all {} stale writes refused", freezes * JOBS as u64 * 4);
}

#[tokio::test]
async fn the_jobs_of_a_killed_node_run_elsewhere() {
    let kills = variable("HODEI_PG_NODE_KILLS", KILLS);
    let postgres = Postgres::shared().unwrap();
    let mut times = Vec::new();
    for _ in 0..kills {
        let database = postgres.database().unwrap();
        let mut heir = Heir::start(&database).await;
        heir.submit().await;
        let mut victim = Victim::start(&database);
        victim.hear("ready");
        victim.signal(Signal::KILL);
        times.push(heir.inherit().await);
        heir.is_sound().await;
    }
    let slowest = times.into_iter().max().unwrap_or_default();
    println!(
        "{kills} nodes killed: their jobs ran elsewhere within {slowest:?} (time to live {TTL:?}), 0 lost, 0 settled twice"
    );
    // How soon is a figure of the proof, which has the machine for itself.
    assert!(kills <= KILLS || slowest < TTL * 3 + Duration::from_secs(2), "{slowest:?}");
}
