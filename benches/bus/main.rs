//! The figures of the bus, each beside what it is measured against and with its goal.
//!
//! `cargo bench --package hodei-benches --bench bus -- [--quick]`
//!
//! Events have 64 bytes, reach every subscriber, and are checked for order, count and sum. A rate is the best of five
//! rounds; what a ratio compares is measured in turn, round by round. `--quick` measures with less and tells the direction
//! only; `--test` only shows that everything runs. Other crates are in `benches/compare/bus`.

mod filtered;
mod page;
mod wake;

#[path = "../fanout.rs"]
mod fanout;

use fanout::{BATCH, Broadcast, BroadcastWaiting, CELLS, Cell, Mpsc, OurRing, Peer};
use hodei_benches::report::{Goal, Report, Unit};
use hodei_benches::runtime;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    rounds: usize,
    /// Events of a round of a cell.
    events: usize,
    /// Events whose wake-up is timed.
    wakes: usize,
    /// Events published to filtered subscribers.
    filtered: usize,
    /// How many of those there are.
    subscribers: usize,
}

const FULL: Sizes =
    Sizes { rounds: 5, events: 1_000_000, wakes: 20_000, filtered: 1_000_000, subscribers: 10_000 };
const QUICK: Sizes =
    Sizes { rounds: 3, events: 400_000, wakes: 5_000, filtered: 200_000, subscribers: 10_000 };
const TEST: Sizes = Sizes { rounds: 1, events: 10_000, wakes: 50, filtered: 1_000, subscribers: 100 };

fn main() {
    let has = |name: &str| std::env::args().any(|arg| arg == name);
    let (sizes, how) = match (has("--test"), has("--quick")) {
        (true, _) => (TEST, "a smoke run: its figures mean nothing"),
        (false, true) => (QUICK, "a quick run"),
        (false, false) => (FULL, "the full run"),
    };
    let mut report = Report::new(&format!("Bus, {how}, best of {}", sizes.rounds));
    report.group("Publish to subscribers, lossless, two workers");
    CELLS.iter().for_each(|cell| one(*cell, sizes, &mut report));
    wake::figures(sizes.wakes, sizes.rounds, &mut report);
    filtered::figures(sizes, &mut report);
    page::figures(sizes, &mut report);
    report.end();
}

/// One cell, every bus in turn in each round.
fn one(cell: Cell, sizes: Sizes, report: &mut Report) {
    let runtime = runtime();
    let mut best = [0.0_f64; 4];
    for _ in 0..sizes.rounds {
        let rates = [
            fanout::run::<OurRing>(&runtime, cell, sizes.events),
            fanout::run::<Broadcast>(&runtime, cell, sizes.events / 2),
            fanout::run::<BroadcastWaiting>(&runtime, cell, sizes.events / 4),
            fanout::run::<Mpsc>(&runtime, cell, sizes.events / 2),
        ];
        best = std::array::from_fn(|bus| best[bus].max(rates[bus]));
    }
    let names = [OurRing::NAME, Broadcast::NAME, BroadcastWaiting::NAME, Mpsc::NAME];
    for (name, rate) in names.into_iter().zip(best) {
        report.show(&format!("{}: {name}", cell.name()), rate, Unit::PerSecond);
    }
    let goal = match cell {
        Cell { batch: BATCH, .. } => 5.0,
        Cell { producers: 1, subscribers: 1, .. } => 1.25,
        _ => 1.5,
    };
    let ratio = best[0] / best[1].max(best[2]);
    report.judge(
        &format!("{}: ring / best of broadcast", cell.name()),
        ratio,
        Unit::Times,
        Goal::AtLeast(goal),
    );
}
