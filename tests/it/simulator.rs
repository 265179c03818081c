//! The whole engine in virtual time: schedulers, store, duties and the machine of the real agent, under faults.
//!
//! `HODEI_SIM_SEEDS=from..to` says which seeds are run, `HODEI_SIM_JOBS` with how many jobs each, `HODEI_SIM_TAIL` how
//! many lines of the trace a failure shows, and `HODEI_SIM_BUG` which bug is planted.

use std::ops::Range;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::program::{Program, example};
use hodei_agent::machine::{Effect, Machine};
use hodei_core::gateway::{Assignment, Desired, News, Offer, SessionState};
use hodei_core::job::{Cause, Epoch};
use hodei_core::store::Change;
use hodei_core::{JobId, Name, Timestamp};
use hodei_sched::sim::{
    Act, Action, AgentModel, Bug, Campaign, MixedLoad, Options, RunPlan, Scene, Simulation, Workload,
};

/// How many jobs a seed has, about.
const JOBS: u32 = 200;
/// A run of so many seeds is the proof: it has at least so many jobs, and simulates as many in a minute.
const PROOF_SEEDS: u64 = 5_000;
const PROOF_JOBS: u64 = 1_000_000;
/// Within how many seeds a planted bug must show.
const BUG_SEEDS: u64 = 200;

fn action(effect: Effect) -> Action {
    match effect {
        Effect::Start(assignment) => Action::Start(assignment),
        Effect::Stop(stop) => Action::Stop(stop),
    }
}

/// The agent of the workspace.
#[derive(Debug)]
struct RealAgent(Machine);

impl AgentModel for RealAgent {
    fn new(worker: Name, incarnation: u64, offer: Arc<Offer>) -> Self {
        Self(Machine::new(worker, incarnation, offer))
    }

    fn desired(&mut self, desired: Desired, now: Timestamp) -> Vec<Action> {
        self.0.desired(desired, now).into_iter().map(action).collect()
    }

    fn ended(&mut self, job: JobId, epoch: Epoch, news: News) {
        self.0.ended(job, epoch, news);
    }

    fn tick(&mut self, now: Timestamp) -> Vec<Action> {
        self.0.tick(now).into_iter().map(action).collect()
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.0.poll_timeout()
    }

    fn state(&mut self) -> SessionState {
        self.0.state()
    }

    fn reconnect(&mut self) {
        self.0.reconnect();
    }
}

fn set<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().ok().unwrap_or_else(|| panic!("{name}={text} says nothing")))
}

fn seeds(few: Range<u64>) -> Range<u64> {
    let Some(text) = set::<String>("HODEI_SIM_SEEDS") else { return few };
    let ends = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    ends.unwrap_or_else(|| panic!("HODEI_SIM_SEEDS={text} is not from..to"))
}

fn options(seed: u64) -> Options {
    let options = Options::swarm(seed).tail(set("HODEI_SIM_TAIL").unwrap_or(0));
    match set::<Bug>("HODEI_SIM_BUG") {
        Some(bug) => options.bug(bug),
        None => options,
    }
}

#[test]
fn no_seed_breaks_a_guarantee() {
    let jobs = set("HODEI_SIM_JOBS").unwrap_or(JOBS);
    let began = Instant::now();
    let campaign = Campaign::run::<RealAgent>(seeds(0..400), jobs, 3, options).unwrap();
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!("{campaign}");
    println!("{:.0} simulated jobs per minute on one core", campaign.figures.submitted as f64 / minutes);
    for failed in &campaign.failed {
        let (seed, next) = (failed.seed, failed.seed + 1);
        println!("{}", failed.told);
        println!(
            "replay: HODEI_SIM_SEEDS={seed}..{next} HODEI_SIM_JOBS={jobs} cargo test --package hodei-tests --test it -- \
             simulator::no_seed --nocapture"
        );
    }
    if campaign.seeds >= PROOF_SEEDS {
        assert!(campaign.figures.submitted >= PROOF_JOBS, "{} jobs", campaign.figures.submitted);
        let rate = campaign.figures.submitted as f64 / minutes;
        // What was built without optimisation says nothing of speed.
        assert!(cfg!(debug_assertions) || rate >= PROOF_JOBS as f64, "{rate:.0} jobs per minute");
    }
    let seeds: Vec<u64> = campaign.failed.iter().map(|failed| failed.seed).collect();
    assert!(seeds.is_empty(), "seeds that failed: {seeds:?}");
}

#[test]
fn every_planted_bug_is_found() {
    let only = set::<Bug>("HODEI_SIM_BUG");
    let mut wrong = Vec::new();
    for bug in Bug::ALL.into_iter().filter(|bug| only.is_none_or(|only| only == *bug)) {
        let planted = |seed| Options::swarm(seed).bug(bug);
        let campaign = Campaign::run::<RealAgent>(0..BUG_SEEDS, JOBS, 1, planted).unwrap();
        let Some(failed) = campaign.failed.first() else {
            wrong.push(format!("{bug} was found by none of {BUG_SEEDS} seeds"));
            continue;
        };
        println!("{bug}: found by seed {}: {}", failed.seed, failed.first);
        // A seed that fails without the bug has not found it.
        let without = |seed| {
            let mut options = planted(seed);
            options.bug = None;
            options
        };
        let control = Campaign::run::<RealAgent>(failed.seed..failed.seed + 1, JOBS, 1, without).unwrap();
        wrong.extend(control.failed.iter().map(|failed| format!("without {bug}: {}", failed.told)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_example_tells_how_long_mails_wait_under_each_policy() {
    let directory = tempfile::tempdir().unwrap();
    let program = example("simulate");
    let ended = Program::start(&program, directory.path(), "simulate", std::iter::empty::<&str>()).wait();
    assert!(ended.status.success(), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{ended:?}");
    assert!(
        lines[1].starts_with("mails first") && lines[3].starts_with("mails first, under faults"),
        "{ended:?}"
    );
}

/// The mixed workload, and how many jobs were lost with an owner.
#[derive(Debug)]
struct Watched {
    load: MixedLoad,
    lost: Arc<AtomicU32>,
}

impl Workload for Watched {
    fn next(&mut self, scene: &mut Scene<'_>) -> Option<(Duration, Act)> {
        self.load.next(scene)
    }

    fn run(&mut self, assignment: &Assignment, scene: &mut Scene<'_>) -> RunPlan {
        self.load.run(assignment, scene)
    }

    fn committed(&mut self, change: &Change) {
        self.lost.fetch_add(u32::from(change.cause == Cause::Lost), Ordering::Relaxed);
    }

    fn relent(&mut self, scene: &mut Scene<'_>) -> Vec<Act> {
        self.load.relent(scene)
    }
}

/// Nodes drain, end and start again one after the other, and their agents go over to others meanwhile.
#[test]
fn rolling_restarts_lose_no_attempt() {
    let lost = Arc::new(AtomicU32::new(0));
    let mut restarts = 0;
    for seed in 0..40 {
        let mut options = Options::calm(seed);
        (options.nodes, options.agents, options.trouble) = (3, 4, Duration::from_secs(60));
        (options.faults.node_drains, options.faults.roaming) = (true, true);
        options.faults.apart = Duration::from_secs(3);
        let load = MixedLoad::of_seed(seed, JOBS).unwrap();
        let outcome = Simulation::<RealAgent>::new(options, Watched { load, lost: Arc::clone(&lost) }).run();
        assert!(outcome.is_clean(), "{outcome}");
        restarts += outcome.figures.faults;
    }
    println!("{restarts} restarts of nodes");
    assert_eq!((lost.load(Ordering::Relaxed), restarts > 200), (0, true));
}

/// The hashes of the traces of some seeds, as text.
fn hashes() -> String {
    let hash = |seed| {
        let outcome = Simulation::<RealAgent>::swarm(Options::swarm(seed), JOBS).expect("a valid load").run();
        format!("{:016x}/{}", outcome.trace_hash, outcome.trace_lines)
    };
    (0..12).map(hash).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_seed_gives_the_same_trace_in_every_process() {
    if std::env::var_os("HODEI_SIM_TELL").is_some() {
        return println!("hashes: {}", hashes());
    }
    let here = hashes();
    assert_eq!(here, hashes(), "twice in one process");
    let this = std::env::current_exe().unwrap();
    let name = "simulator::a_seed_gives_the_same_trace_in_every_process";
    let child = Command::new(this)
        .args([name, "--exact", "--nocapture"])
        .env("HODEI_SIM_TELL", "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(told.contains(&format!("hashes: {here}\n")), "another process has other traces: {told}");
}
