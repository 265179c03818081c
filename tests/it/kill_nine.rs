//! `run` is killed at random moments and started again: nothing is lost, nothing ends twice, nothing is left behind.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hodei_core::job::{State, next};
use hodei_core::store::{Change, Consistency, JobStore, Scope};
use hodei_store_redb::RedbStore;

use crate::program::{Program, example, marked};

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
        killed_in_flight += u64::from(!cycle.finished());
        acknowledged += u64::from(acked.is_some());
        cycle.finish(acked.as_deref());
        runtime.block_on(cycle.check());
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
        let directory = tempfile::tempdir().unwrap();
        let mark = format!("{seed}-{cycle}");
        fs::write(directory.path().join("p.yaml"), pipeline(&mark, &directory.path().join("ran"))).unwrap();
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
            std::thread::sleep(Duration::from_micros(200));
        }
        run.kill().line("run ").map(str::to_owned)
    }

    /// Whether the killed run had come to its end.
    fn finished(&self) -> bool {
        fs::read_to_string(self.directory.path().join("ran")).is_ok_and(|ran| ran.contains("end "))
    }

    fn finish(&self, acked_before: Option<&str>) {
        if self.finished() && acked_before.is_some() {
            return;
        }
        let ended = self.start("restarted").wait();
        assert_eq!(ended.code(), Some(0), "the restarted run failed: {ended:?}");
        if let Some(before) = acked_before {
            assert_eq!(ended.line("run "), Some(before), "an acknowledged run was not resumed");
        }
    }

    async fn check(&self) {
        assert_eq!(marked(MARK, &self.mark), Vec::<i32>::new(), "processes are left");
        let store = RedbStore::open(self.directory.path().join(".hodei/p/store.redb")).unwrap();
        assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
        let mut log = Vec::new();
        let mut cursor = None;
        loop {
            let page = store.changes(&Scope::All, cursor, 1_000).await.unwrap();
            if page.changes.is_empty() {
                break;
            }
            log.extend(page.changes);
            cursor = Some(page.next);
        }
        let mut by_job: HashMap<_, Vec<&Change>> = HashMap::new();
        for change in &log {
            by_job.entry(change.job).or_default().push(change);
        }
        assert_eq!(by_job.len(), STEPS, "jobs were lost or made up");
        for (job, changes) in &by_job {
            legal(changes);
            let terminal = changes.iter().filter(|change| change.to.is_terminal()).count();
            assert_eq!(terminal, 1, "{job} ended {terminal} times");
        }
        let jobs: Vec<_> = by_job.keys().copied().collect();
        for job in store.get_many(&Scope::All, jobs, Consistency::Latest).await.unwrap() {
            assert_eq!(job.unwrap().state, State::Succeeded);
        }
    }
}

/// Each version once and in order, each move one of the table, the epoch never lower.
fn legal(changes: &[&Change]) {
    for (n, change) in changes.iter().enumerate() {
        assert_eq!(change.version as usize, n + 1, "{change:?}");
        let before = n.checked_sub(1).map(|n| changes[n]);
        assert_eq!(change.from, before.map(|before| before.to), "{change:?}");
        if let (Some(from), Some(before)) = (change.from, before) {
            assert_eq!(next(from, change.cause), Some(change.to), "{change:?}");
            assert!(change.epoch.number() >= before.epoch.number(), "{change:?}");
        }
    }
}

/// How many steps the pipeline has.
const STEPS: usize = 10;

/// A pipeline of some 600 ms with parallel steps, one of which leaves processes behind in a session of their own.
fn pipeline(mark: &str, ran: &Path) -> String {
    let ran = ran.display();
    let mut text = format!("env: {{{MARK}: \"{mark}\"}}\nsteps:\n");
    let mut step = |id: &str, needs: &str, run: &str| {
        text.push_str(&format!(
            "  - id: {id}\n    needs: [{needs}]\n    run: |\n      {run}\n      echo '{id} ' >> {ran}\n"
        ));
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
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
