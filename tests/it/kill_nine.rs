//! `run` is killed at random moments and started again: nothing is lost, nothing ends twice, nothing is left behind.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hodei_core::job::State;
use hodei_core::store::{JobStore, Query, Scope};
use hodei_core::testkit::history::{Recorder, RecordingStore, check};
use hodei_store_redb::RedbStore;

use crate::program::{Program, example, marked, pause};

/// How many times `run` is killed; `HODEI_KILLS` sets another number.
const KILLS: u64 = 10;
/// A variable of every step, by which what is left of a killed run is found.
const MARK: &str = "KILL_NINE_RUN";

#[test]
fn kill_nine_loses_nothing() {
    let kills = std::env::var("HODEI_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let seed = u64::from(std::process::id());
    println!("seed {seed}, {kills} kills");
    let program = example("run");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut killed_in_flight, mut acknowledged) = (0, 0);
    for cycle in 0..kills {
        let cycle = Cycle::new(&program, seed, cycle);
        let acked = cycle.start_and_kill();
        acknowledged += u64::from(acked.is_some());
        // A run that has ended is not resumed: the same file would begin another.
        if !runtime.block_on(cycle.has_ended()) {
            killed_in_flight += 1;
            cycle.finish(acked.as_deref());
        }
        runtime.block_on(cycle.check(acked.as_deref()));
    }
    println!("{kills} kills, {acknowledged} acknowledged runs, {killed_in_flight} killed in flight, 0 lost");
    assert!(killed_in_flight > 0, "no kill met a running pipeline");
}

/// One run in a directory of its own.
struct Cycle<'a> {
    program: &'a Path,
    directory: tempfile::TempDir,
    mark: String,
    wait: Duration,
}

impl<'a> Cycle<'a> {
    fn new(program: &'a Path, seed: u64, cycle: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mark = format!("{seed}-{cycle}");
        let file = pipeline(&mark, &directory.path().join("ran"));
        fs::write(directory.path().join("p.yaml"), file).expect("the pipeline file");
        Self { program, directory, mark, wait: Duration::from_micros(mixed(seed ^ cycle) % 900_000) }
    }

    fn start(&self, life: &str) -> Program {
        Program::start(self.program, self.directory.path(), life, ["p.yaml", "--jobs", "4"])
    }

    /// Returns the run that was acknowledged on standard output, before it was killed.
    fn start_and_kill(&self) -> Option<String> {
        let mut run = self.start("killed");
        let until = Instant::now() + self.wait;
        while Instant::now() < until && !run.has_ended() {
            pause(Duration::from_micros(200));
        }
        run.kill().line("run ").map(str::to_owned)
    }

    /// Whether the store says that everything had ended before the kill.
    async fn has_ended(&self) -> bool {
        if !self.store().exists() {
            return false;
        }
        let store = RedbStore::open(self.store()).expect("the store opens");
        let counts = store.counts(&Scope::All).await.expect("counts");
        counts.total() > 0 && counts.open() == 0
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join(".hodei/p/store.redb")
    }

    fn finish(&self, acked_before: Option<&str>) {
        let ended = self.start("restarted").wait();
        assert_eq!(ended.code(), Some(0), "the restarted run failed: {ended:?}");
        if let Some(before) = acked_before {
            assert_eq!(ended.line("run "), Some(before), "an acknowledged run was not resumed");
        }
    }

    /// Reads what the runs left behind and holds it to the invariants.
    async fn check(&self, acknowledged: Option<&str>) {
        assert_eq!(marked(MARK, &self.mark), Vec::<i32>::new(), "processes are left");
        let store = RedbStore::open(self.store()).expect("the store opens");
        let store = RecordingStore::new(store, Recorder::new());
        assert_eq!(store.verify_indexes().await.expect("a sound file"), Vec::<String>::new());
        let mut query = Query::new().limit(1_000);
        if let Some(run) = acknowledged {
            query = query.pipeline(run.parse().expect("the id of a run"));
        }
        let steps = store.query(&Scope::All, query).await.expect("a list").jobs;
        assert_eq!(steps.len(), STEPS, "jobs were lost or made up");
        assert!(steps.iter().all(|step| step.state == State::Succeeded), "{steps:?}");
        steps.iter().for_each(|step| store.recorder().acknowledged(step.id));
        store.recorder().restarted();
        store.survey().await.expect("a whole reading");
        let report = check(&store.recorder().history());
        assert!(report.is_clean(), "{report}");
    }
}

/// How many steps the pipeline has.
const STEPS: usize = 10;

/// A pipeline of some 600 ms with parallel steps, one of which leaves processes behind in a session of their own.
fn pipeline(mark: &str, ran: &Path) -> String {
    let ran = ran.display();
    let mut text = format!("env: {{{MARK}: \"{mark}\"}}\nsteps:\n");
    let mut step = |id: &str, needs: &str, run: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  - id: {id}\n    needs: [{needs}]\n    run: |");
        let _ = writeln!(text, "      {run}\n      echo '{id} ' >> {ran}");
    };
    step("begin", "", "sleep 0.05");
    for n in 0..6 {
        step(&format!("work-{n}"), "begin", &format!("seq {}; sleep 0.{n}", 1_000 * (n + 1)));
    }
    step("stray", "begin", "setsid sleep 600 & sleep 0.2");
    step("join", "work-0, work-1, work-2, work-3, work-4, work-5, stray", "sleep 0.05");
    step("end", "join", "true");
    text
}

/// SplitMix64's finaliser: spreads a seed.
pub(crate) fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
