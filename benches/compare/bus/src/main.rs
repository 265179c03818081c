//! The ring beside the channels that one would use instead, in the same run: the eight cells of fan-out.
//!
//! `cargo run --release --manifest-path benches/compare/bus/Cargo.toml -- [--quick] [PEER] [--cell=N]`
//!
//! Every event has 64 bytes, reaches every subscriber, and is checked for order, count and sum. Async peers run on two
//! workers of tokio; the others on threads that spin. A rate is the best of the rounds.

#[path = "../../../fanout.rs"]
mod fanout;
mod peers;
#[path = "../../../report.rs"]
#[expect(dead_code, reason = "other benchmarks use more of it")]
mod report;
mod threads;

use fanout::{BATCH, Broadcast, BroadcastWaiting, CELLS, Cell, Mpsc, OurRing, Peer};
use report::{Goal, Report, Unit};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Size {
    rounds: usize,
    events: usize,
}

/// What a row stands for in the goals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ours,
    /// A lossless, cancel-safe channel for tasks.
    Async,
    /// Threads that spin: the limit of the machine.
    Threads,
}

/// A row of the table: what it is called, and its rate in a cell, if it has that cell.
struct Row {
    name: &'static str,
    kind: Kind,
    rate: fn(Cell, Size) -> Option<f64>,
}

const ROWS: [Row; 10] = [
    row::<OurRing>(Kind::Ours),
    row::<Broadcast>(Kind::Async),
    row::<BroadcastWaiting>(Kind::Async),
    row::<Mpsc>(Kind::Async),
    row::<peers::AsyncBroadcast>(Kind::Async),
    row::<peers::Flume>(Kind::Async),
    row::<peers::Crossfire>(Kind::Async),
    Row { name: "threads: disruptor", kind: Kind::Threads, rate: |cell, size| Some(threads::disruptor(cell, size)) },
    Row {
        name: "threads: crossbeam queue",
        kind: Kind::Threads,
        rate: |cell, size| Some(threads::crossbeam(cell, size)),
    },
    Row {
        name: RTRB,
        kind: Kind::Threads,
        rate: |cell, size| {
            let alone = cell.producers == 1 && cell.subscribers == 1;
            alone.then(|| threads::rtrb(cell.batch, size))
        },
    },
];

const RTRB: &str = "threads: rtrb";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    let only = args.iter().find(|arg| !arg.starts_with("--"));
    let cell = args.iter().find_map(|arg| arg.strip_prefix("--cell=")?.parse::<usize>().ok());
    let cells = cell.map_or(&CELLS[..], |cell| &CELLS[cell..=cell]);
    let size =
        if quick { Size { rounds: 3, events: 500_000 } } else { Size { rounds: 5, events: 1_000_000 } };
    let mut report = Report::new("Events of 64 bytes to every subscriber, lossless");
    for cell in cells {
        report.group(&cell.name());
        let wanted = ROWS.iter().filter(|row| only.is_none_or(|only| row.name.contains(only.as_str())));
        let rates: Vec<(&Row, f64)> =
            wanted.filter_map(|row| Some((row, (row.rate)(*cell, size)?))).collect();
        rates.iter().for_each(|(row, rate)| report.show(row.name, *rate, Unit::PerSecond));
        if only.is_none() {
            judge(*cell, &rates, &mut report);
        }
    }
    report.end();
}

/// Holds the ring to what it is measured against.
fn judge(cell: Cell, rates: &[(&Row, f64)], report: &mut Report) {
    let best = |wanted: &dyn Fn(&Row) -> bool| {
        rates.iter().filter(|(row, _)| wanted(row)).map(|(_, rate)| *rate).fold(0.0, f64::max)
    };
    let ours = best(&|row| row.kind == Kind::Ours);
    let goal = match cell {
        Cell { batch: BATCH, .. } => 3.0,
        Cell { subscribers: 1, .. } => 0.9,
        _ => 1.0,
    };
    let peers = best(&|row| row.kind == Kind::Async);
    report.judge("ring / best for tasks", ours / peers, Unit::Times, Goal::AtLeast(goal));
    let limit = best(&|row| row.name == RTRB);
    if limit > 0.0 && cell.batch == BATCH {
        report.judge("ring / rtrb", ours / limit, Unit::Times, Goal::AtLeast(0.5));
    }
}

const fn row<P: Peer>(kind: Kind) -> Row {
    let rate: fn(Cell, Size) -> Option<f64> = |cell, size| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        // Batches are fast: more of them, so that a round takes long enough.
        let events = if cell.batch > 1 { 2 * size.events } else { size.events };
        Some((0..size.rounds).map(|_| fanout::run::<P>(&runtime, cell, events)).fold(0.0, f64::max))
    };
    Row { name: P::NAME, kind, rate }
}
