//! The figures of the scheduler, each beside what it is measured against and with its goal.
//!
//! `cargo bench --package hodei-benches --bench scheduler_figures -- [--quick] [queue] [verbs] [decide] [beside] [crowd] [over_one] [idle]
//! [dispatch] [explain] [pipelines]`
//!
//! Absolute figures are the best of five rounds; what a ratio compares is measured in the same rounds, one beside the
//! other. A goal that is missed is said and is no failure; a wrong result is one. `--quick` measures with less and
//! tells the direction only; `--test` only shows that everything runs.

mod crowd;
mod decide;
mod elsewhere;
mod engine;
mod explain;
mod floor;
mod over_one;
mod queue;
mod rivals;

use std::process::ExitCode;

use hodei_benches::report::{Report, say};

/// Measures one part.
type Part = fn(Sizes, &mut Report) -> Result<(), String>;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// How often, for the best of it.
    rounds: usize,
    /// Jobs that wait while a queue is measured, and ten times as many.
    preload: usize,
    /// Pushes and pops in a round.
    pairs: usize,
}

const FULL: Sizes = Sizes { rounds: 5, preload: 100_000, pairs: 2_000_000 };
const QUICK: Sizes = Sizes { rounds: 3, preload: 100_000, pairs: 300_000 };
const TEST: Sizes = Sizes { rounds: 1, preload: 1_000, pairs: 2_000 };

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let (sizes, how) = match (has("--test"), has("--quick")) {
        (true, _) => (TEST, "a smoke run: its figures mean nothing"),
        (false, true) => (QUICK, "a quick run: smaller than what the goals are about"),
        (false, false) => (FULL, "the full run"),
    };
    let mut report = Report::new(&format!("Scheduler, {how}, best of {}", sizes.rounds));
    let parts: [(&str, Part); 10] = [
        ("queue", queue::figures),
        ("verbs", queue::verbs),
        ("decide", decide::figures),
        ("beside", decide::beside),
        ("crowd", crowd::figures),
        ("over_one", over_one::figures),
        ("idle", engine::idle_figures),
        ("dispatch", engine::dispatch_figures),
        ("explain", explain::figures),
        ("pipelines", engine::pipelines),
    ];
    let all = !parts.iter().any(|(part, _)| has(part));
    let only = |name: &str| all || has(name);
    let figures =
        parts.iter().filter(|(name, _)| only(name)).try_for_each(|(_, part)| part(sizes, &mut report));
    match figures {
        Ok(()) => {
            report.end();
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            say(&format!("WRONG: {wrong}"));
            ExitCode::FAILURE
        }
    }
}
