//! `run` is killed at random moments and started again: nothing is lost, nothing ends twice, nothing is left behind.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hodei_core::job::{Cause, State, next};
use hodei_core::store::{Change, Consistency, JobStore, Scope};
use hodei_store_redb::RedbStore;

/// How many times `run` is killed; `HODEI_KILLS` sets another number.
const KILLS: u64 = 10;
/// A variable of every step, by which what is left of a killed run is found.
const MARK: &str = "KILL_NINE_RUN";
/// How long a restarted run may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn kill_nine_loses_nothing() {
    let kills = std::env::var("HODEI_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let seed = u64::from(std::process::id());
    println!("seed {seed}, {kills} kills");
    let program = build_run();
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

/// Builds `run` and returns where it is.
fn build_run() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "-p", "hodei-examples", "--example", "run", "--message-format=json"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "run does not build");
    let lines = String::from_utf8(output.stdout).unwrap();
    let executables = lines.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "run").then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executables.last().expect("cargo names the executable")
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
        let ran = directory.path().join("ran");
        fs::write(directory.path().join("p.yaml"), pipeline(&mark, &ran)).unwrap();
        Self { program, directory, mark, wait: Duration::from_millis(5 + mixed(seed ^ cycle) % 900) }
    }

    /// Starts a run whose output goes to files: a pipe that nobody reads would stop it.
    fn start(&self, life: &str) -> Child {
        let file = |stream: &str| Stdio::from(fs::File::create(self.output(life, stream)).unwrap());
        Command::new(self.program)
            .arg(self.directory.path().join("p.yaml"))
            .args(["--jobs", "4"])
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap()
    }

    fn output(&self, life: &str, stream: &str) -> PathBuf {
        self.directory.path().join(format!("{life}.{stream}"))
    }

    /// Returns the run that was acknowledged on standard output.
    fn acked(&self, life: &str) -> Option<String> {
        let stdout = fs::read(self.output(life, "stdout")).unwrap();
        let stdout = String::from_utf8_lossy(&stdout);
        // A line without its end was cut off.
        let mut lines = stdout.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        lines.find_map(|line| line.strip_prefix("run ").map(str::to_owned))
    }

    /// Returns what the run said that it had acknowledged, before it was killed.
    fn start_and_kill(&self) -> Option<String> {
        let mut child = self.start("killed");
        let until = Instant::now() + self.wait;
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        // It may have ended by itself: then there is nothing to kill.
        let _ = child.kill();
        child.wait().unwrap();
        self.acked("killed")
    }

    /// Whether the killed run had come to its end.
    fn finished(&self) -> bool {
        fs::read_to_string(self.directory.path().join("ran")).is_ok_and(|ran| ran.contains("end "))
    }

    fn finish(&self, acked_before: Option<&str>) {
        if self.finished() && acked_before.is_some() {
            return;
        }
        let mut child = self.start("restarted");
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "the restarted run hangs in {:?}", self.directory.path());
            std::thread::sleep(Duration::from_millis(1));
        };
        let stderr = fs::read_to_string(self.output("restarted", "stderr")).unwrap();
        let acked_now = self.acked("restarted");
        assert!(status.success(), "the restarted run failed: {status}, {stderr}");
        if let Some(before) = acked_before {
            assert_eq!(acked_now.as_deref(), Some(before), "an acknowledged run was not resumed");
        }
    }

    async fn check(&self) {
        assert_eq!(marked(&self.mark), Vec::<i32>::new(), "processes are left");
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
            let claimed = u64::from(change.cause == Cause::Claimed);
            assert!(change.epoch.number() >= before.epoch.number() + claimed, "{change:?}");
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
        text.push_str(&format!("  - id: {id}\n    needs: [{needs}]\n    run: |\n      {run}\n      echo '{id} ' >> {ran}\n"));
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

/// Returns the processes whose environment carries the mark.
fn marked(mark: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={mark}");
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter(|pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|&b| b == 0).any(|entry| entry == wanted.as_bytes())
        })
        .collect()
}

/// SplitMix64's finaliser: spreads a seed.
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
