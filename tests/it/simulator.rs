//! The whole engine in virtual time: schedulers, store, duties and the machine of the real agent, under faults.
//!
//! `HODEI_SIM_SEEDS=from..to` says which seeds are run, `HODEI_SIM_JOBS` with how many jobs each, `HODEI_SIM_TAIL` how
//! many lines of the trace a failure shows, and `HODEI_SIM_BUG` which bug is planted.

use std::ops::Range;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use hodei_agent::machine::{Effect, Machine};
use hodei_core::gateway::{Desired, News, Offer, SessionState};
use hodei_core::job::Epoch;
use hodei_core::{JobId, Name, Timestamp};
use hodei_sched::sim::{Action, AgentModel, Bug, Campaign, Options, Simulation};

/// How many jobs a seed has, about.
const JOBS: u32 = 200;
/// Within how many seeds a planted bug must show.
const BUG_SEEDS: u64 = 200;

/// The agent of the workspace.
#[derive(Debug)]
struct RealAgent(Machine);

impl AgentModel for RealAgent {
    fn new(worker: Name, incarnation: u64, offer: Arc<Offer>) -> Self {
        Self(Machine::new(worker, incarnation, offer))
    }

    fn desired(&mut self, desired: Desired, now: Timestamp) -> Vec<Action> {
        let action = |effect| match effect {
            Effect::Start(assignment) => Action::Start(assignment),
            Effect::Stop(stop) => Action::Stop(stop),
        };
        self.0.desired(desired, now).into_iter().map(action).collect()
    }

    fn ended(&mut self, job: JobId, epoch: Epoch, news: News) {
        self.0.ended(job, epoch, news);
    }

    fn tick(&mut self, now: Timestamp) {
        self.0.tick(now);
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
    let seeds: Vec<u64> = campaign.failed.iter().map(|failed| failed.seed).collect();
    assert!(seeds.is_empty(), "seeds that failed: {seeds:?}");
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let planted = |seed| Options::swarm(seed).bug(bug);
        let campaign = Campaign::run::<RealAgent>(0..BUG_SEEDS, JOBS, 1, planted).unwrap();
        match campaign.failed.first() {
            Some(failed) => println!("{bug}: found by seed {}: {}", failed.seed, failed.first),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {BUG_SEEDS} seeds: {missed:?}");
}

/// The hashes of the traces of some seeds, as text.
fn hashes() -> String {
    let hash = |seed| {
        let outcome = Simulation::<RealAgent>::swarm(Options::swarm(seed), JOBS).unwrap().run();
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
