//! A process that is killed at any moment loses nothing that it acknowledged.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hodei_core::JobId;
use hodei_core::job::State;
use hodei_core::store::{Consistency, Scope, Store};
use hodei_core::testkit::history::{Recorder, RecordingStore, check};
use hodei_core::testkit::lines;
use hodei_store_redb::RedbStore;
use hodei_store_redb::testkit::{as_schema_5, counted_to};

use crate::child::{Order, say, spawn, spawn_under};
use crate::env::{Env, claim, done, job, owner, report, submit};
use crate::faults::{Numbers, variable};

/// How often a process is killed; the environment variable `HODEI_STORE_KILLS` sets another number.
const KILLS: usize = 24;
/// How many processes are killed on one file.
const KILLS_PER_FILE: usize = 8;

/// How many submit at once in the process that will be killed.
const SUBMITTERS: usize = 8;

/// Submits and settles until somebody kills the process.
pub(crate) fn work(store: RedbStore) {
    say("open");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(async move {
        for _ in 0..SUBMITTERS {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    for id in submit(&store, vec![job()]).await {
                        say(format_args!("stored {id}"));
                    }
                }
            });
        }
        let node = owner(&store, "node").await;
        loop {
            for of in claim(&store, &node, 4).await {
                report(&store, &node, (of.job.id, of.job.epoch), done()).await;
                say(format_args!("done {}", of.job.id));
            }
            tokio::task::yield_now().await;
        }
    });
}

/// What a process said before it was killed.
#[derive(Debug, Default)]
pub(crate) struct Said {
    open: bool,
    stored: Vec<JobId>,
    done: Vec<JobId>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let id = |text: &str| text.parse().expect("an id");
        match line.split_once(' ') {
            Some(("stored", text)) => self.stored.push(id(text)),
            Some(("done", text)) => self.done.push(id(text)),
            // The harness of the tests begins a line before the first of ours.
            _ => self.open |= line.ends_with("open"),
        }
    }
}

/// Lets a process work and kills it after a while: of its work, or of its life.
pub(crate) fn kill_after(order: Order, wait: Duration, of_its_work: bool, file: &Path) -> Said {
    let mut child = spawn(order, file, &[]);
    let (lines, mut said) = (lines(child.stdout.take().expect("a pipe")), Said::default());
    while of_its_work && !said.open {
        said.hear(&lines.recv().expect("it begins to work"));
    }
    let until = Instant::now() + wait;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        match lines.recv_timeout(left) {
            Ok(line) => said.hear(&line),
            Err(mpsc::RecvTimeoutError::Timeout) => break,
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("it ended by itself: {said:?}"),
        }
    }
    child.kill().expect("it lives");
    child.wait().expect("it was killed");
    lines.iter().for_each(|line| said.hear(&line));
    said
}

/// All that was ever acknowledged on a file.
#[derive(Default)]
pub(crate) struct Acknowledged {
    stored: Vec<JobId>,
    done: Vec<JobId>,
}

impl Acknowledged {
    pub(crate) fn add(&mut self, said: Said) {
        self.stored.extend(said.stored);
        self.done.extend(said.done);
    }

    /// Returns how much it is.
    pub(crate) fn len(&self) -> usize {
        self.stored.len() + self.done.len()
    }

    /// Holds a file to what was acknowledged and to the guarantees; returns how long it took to open, and how many jobs
    /// are stored that nobody was told of.
    async fn hold(&self, env: &Env) -> (Duration, u64) {
        let began = Instant::now();
        let store = env.open();
        let opened = began.elapsed();
        (opened, self.hold_store(store).await)
    }

    /// Holds a store to what was acknowledged and to the guarantees; returns how many jobs are stored that nobody was
    /// told of.
    pub(crate) async fn hold_store(&self, store: impl Store) -> u64 {
        let done = store.get_many(&Scope::All, self.done.clone(), Consistency::Latest).await;
        let done = done.expect("the file is sound");
        assert!(done.iter().all(|job| job.as_ref().is_some_and(|job| job.state == State::Succeeded)));
        assert_eq!(store.verify_indexes().await.expect("the file is sound"), Vec::<String>::new());
        let total = store.counts(&Scope::All).await.expect("the file is sound").total();
        let store = RecordingStore::new(store, Recorder::new());
        self.stored.iter().for_each(|id| store.recorder().acknowledged(*id));
        store.recorder().restarted();
        store.survey().await.expect("the file is sound");
        let report = check(&store.recorder().history());
        assert!(report.is_clean(), "{report}");
        total - self.stored.len() as u64
    }
}

#[tokio::test]
async fn every_acknowledged_job_is_there_after_each_kill() {
    let kills = variable("HODEI_STORE_KILLS", KILLS);
    let seed = variable("HODEI_STORE_KILLS_SEED", u64::from(std::process::id()));
    println!("seed {seed}, {kills} kills");
    let (mut numbers, began) = (Numbers::new(seed), Instant::now());
    let (mut opened, mut acknowledged, mut untold) = (Vec::new(), 0, 0);
    while opened.len() < kills {
        let (env, mut known, mut untold_before) = (Env::new(), Acknowledged::default(), 0);
        for _ in 0..KILLS_PER_FILE.min(kills - opened.len()) {
            let wait = Duration::from_micros(2_000 + numbers.next() % 58_000);
            known.add(kill_after(Order::Work, wait, numbers.chance(75), &env.path()));
            let (open, untold_now) = known.hold(&env).await;
            opened.push(open);
            untold += usize::from(untold_now > untold_before);
            untold_before = untold_now;
        }
        acknowledged += known.len();
    }
    opened.sort();
    let at = |percent: usize| opened[(opened.len() - 1) * percent / 100];
    let rate = kills as f64 / began.elapsed().as_secs_f64();
    println!(
        "{kills} kills, {acknowledged} acknowledgements, 0 lost; after {untold} something was stored untold"
    );
    println!("opened in {:?} (p50), {:?} (p99), {:?} (max); {rate:.1} cycles/s", at(50), at(99), at(100));
    assert!(acknowledged > 0, "some were killed at work");
}

/// A file of an older schema is counted while it is in use: a process that is killed meanwhile loses neither what was
/// acknowledged nor the count, and the next one goes on with it.
#[tokio::test]
async fn every_acknowledged_job_is_there_after_kills_while_an_older_file_is_counted() {
    const OLDER: usize = 4_000;
    let (env, mut known) = (Env::new(), Acknowledged::default());
    {
        let store = env.open();
        known.stored = submit(&store, (0..OLDER).map(|_| job()).collect()).await;
        let node = owner(&store, "node").await;
        for of in claim(&store, &node, 100).await {
            report(&store, &node, (of.job.id, of.job.epoch), done()).await;
        }
    }
    as_schema_5(&env.path()).unwrap();
    let (mut places, mut kills, mut wait) = (BTreeSet::new(), 0, Duration::from_millis(60));
    while places.len() < 4 {
        known.add(kill_after(Order::Count, wait, true, &env.path()));
        let place = counted_to(&env.path()).unwrap().expect("it takes longer than that");
        assert!(
            places.last().is_none_or(|last| *last <= place),
            "it goes on where it was: {places:?}, {place}"
        );
        if !places.insert(place) {
            // A slow disk: few commits in that time.
            wait *= 2;
        }
        kills += 1;
        assert!(kills < 20, "it goes on: {places:?}");
    }
    assert!(known.len() > OLDER, "and something was done meanwhile");
    known.hold(&env).await;
    assert_eq!(counted_to(&env.path()).unwrap(), None);
}

/// The kernel says that a sync failed, from some sync on: the process ends with it, and what it acknowledged is there.
/// It is strace that makes the kernel say so: `scripts/test` installs it.
#[tokio::test]
async fn every_acknowledged_job_is_there_after_the_kernel_failed_to_sync() {
    let there = Command::new("strace").arg("--version").output().is_ok_and(|ended| ended.status.success());
    assert!(there, "missing: strace, which makes syncs fail; scripts/test installs it");
    for sync in [1, 2, 7, 30] {
        let (env, mut known, mut said) = (Env::new(), Acknowledged::default(), Said::default());
        drop(env.open());
        let mut strace = Command::new("strace");
        strace.args(["--follow-forks", "--output=/dev/null", "--trace=fsync,fdatasync"]);
        strace.arg(format!("--inject=fsync,fdatasync:error=EIO:when={sync}+"));
        let mut child = spawn_under(strace, Order::Work, &env.path());
        lines(child.stdout.take().expect("a pipe")).iter().for_each(|line| said.hear(&line));
        assert!(!child.wait().expect("it ends").success(), "a store that cannot sync does not work on");
        assert!(said.stored.len() < 8 * sync, "{} are acknowledged by {sync} syncs", said.stored.len());
        known.add(said);
        known.hold(&env).await;
    }
}
