//! The figures of the PostgreSQL store that are about many nodes and about what stands in the way: how soon another node
//! begins, what nodes without work send, and what queues, deferred jobs, readers, tenants and the death of a node cost.
//!
//! `cargo bench --package hodei-benches --bench pg_figures -- [--quick] [pickup] [silence] [queues] [deferred] [readers]
//! [death] [lanes] [limits]`
//!
//! Every part has a private server of its own with the durability of a default installation, or shares none with another.
//! What a ratio compares is measured in turns on the same server; the ratio is the median of those of the turns. A goal
//! that is missed is said and is no failure; a wrong result is one. `--quick` measures with less; `--test` only shows that
//! everything runs. How fast jobs come in and go through is measured by `pg_burn` and by `benches/compare-pg`.

mod death;
mod deferred;
mod lanes;
mod limits;
mod pickup;
mod queues;
mod readers;
mod silence;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use hodei_benches::report::{Report, say};
use hodei_benches::runtime;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// How often two loads are measured in turns.
    pub(crate) turns: usize,
    /// Jobs of a load that is drained.
    pub(crate) burn: usize,
    /// Jobs that are picked up one by one by an idle node.
    pub(crate) pickups: usize,
    /// Heartbeats over which statements are counted.
    pub(crate) beats: u32,
    /// Jobs that are not due for long.
    pub(crate) deferred: usize,
    /// How long a steady load is served, without and with readers in its way.
    pub(crate) clean: Duration,
    pub(crate) pinned: Duration,
    /// How many nodes are killed with default heartbeats, and with short ones.
    pub(crate) kills: [usize; 2],
    /// Lanes, and tenants with a limit.
    pub(crate) lanes: usize,
}

const FULL: Sizes = Sizes {
    turns: 5,
    burn: 50_000,
    pickups: 1_000,
    beats: 48,
    deferred: 1_000_000,
    clean: Duration::from_secs(60),
    pinned: Duration::from_secs(300),
    kills: [3, 10],
    lanes: 10_000,
};
const QUICK: Sizes = Sizes {
    turns: 3,
    burn: 30_000,
    pickups: 500,
    beats: 18,
    deferred: 200_000,
    clean: Duration::from_secs(40),
    pinned: Duration::from_secs(60),
    kills: [1, 4],
    lanes: 10_000,
};
const TEST: Sizes = Sizes {
    turns: 1,
    burn: 640,
    pickups: 3,
    beats: 1,
    deferred: 1_000,
    clean: Duration::from_secs(1),
    pinned: Duration::from_secs(1),
    kills: [0, 1],
    lanes: 100,
};

/// The parts by their names, in the order in which they run.
const PARTS: [&str; 8] = ["pickup", "silence", "queues", "deferred", "readers", "death", "lanes", "limits"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == death::NODE) {
        return runtime().block_on(death::live(&args[at + 1..]));
    }
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let (sizes, how) = match (has("--test"), has("--quick")) {
        (true, _) => (TEST, "a smoke run: its figures mean nothing"),
        (false, true) => (QUICK, "a quick run"),
        (false, false) => (FULL, "the full run"),
    };
    let mut report = Report::new(&format!("Nodes on PostgreSQL, {how}, the median of {} turns", sizes.turns));
    let chosen = PARTS.iter().filter(|part| has(part) || !PARTS.iter().any(|part| has(part)));
    for part in chosen {
        if let Err(wrong) = runtime().block_on(measure(part, sizes, &mut report)) {
            say(&format!("WRONG: {wrong}"));
            return ExitCode::FAILURE;
        }
    }
    report.end();
    ExitCode::SUCCESS
}

async fn measure(part: &str, sizes: Sizes, report: &mut Report) -> Result<(), String> {
    match part {
        "pickup" => pickup::figures(sizes, report).await,
        "silence" => silence::figures(sizes, report).await,
        "queues" => queues::figures(sizes, report).await,
        "deferred" => deferred::figures(sizes, report).await,
        "readers" => readers::figures(sizes, report).await,
        "death" => death::figures(sizes, report).await,
        "lanes" => lanes::figures(sizes, report).await,
        _ => limits::figures(sizes, report).await,
    }
}
