//! The ring beside the channels that one would use instead, in the same run: the eight cells of fan-out.
//!
//! `cargo run --release --manifest-path benches/compare/bus/Cargo.toml -- [--quick] [PEER] [--cell=N]`
//!
//! Every event has 64 bytes, reaches every subscriber, and is checked for order, count and sum. Async peers run on two
//! workers of tokio; the others on threads that spin. A rate is the best of the rounds.

#[path = "../../../fanout.rs"]
mod fanout;
mod peers;
mod threads;

use fanout::{BATCH, Broadcast, BroadcastWaiting, CELLS, Cell, Mpsc, OurRing, Peer};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Size {
    rounds: usize,
    events: usize,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    let only = args.iter().find(|arg| !arg.starts_with("--"));
    let cell = args.iter().find_map(|arg| arg.strip_prefix("--cell=")?.parse::<usize>().ok());
    let cells = cell.map_or(&CELLS[..], |cell| &CELLS[cell..=cell]);
    let size =
        if quick { Size { rounds: 3, events: 500_000 } } else { Size { rounds: 5, events: 1_000_000 } };
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only.as_str()));
    print!("{:<26}", "M events/s");
    cells.iter().for_each(|cell| print!("{:>16}", cell.name()));
    println!();
    let rows: [(&str, fn(Cell, Size) -> f64); 9] = [
        row::<OurRing>(),
        row::<Broadcast>(),
        row::<BroadcastWaiting>(),
        row::<Mpsc>(),
        row::<peers::AsyncBroadcast>(),
        row::<peers::Flume>(),
        row::<peers::Crossfire>(),
        ("threads: disruptor", threads::disruptor),
        ("threads: crossbeam queue", threads::crossbeam),
    ];
    for (name, rate) in rows.into_iter().filter(|(name, _)| wanted(name)) {
        print!("{name:<26}");
        for cell in cells {
            print!("{:>16.1}", rate(*cell, size) / 1e6);
        }
        println!();
    }
    if wanted("threads: rtrb") && cell.is_none() {
        let [single, batches] = [1, BATCH].map(|batch| threads::rtrb(batch, size) / 1e6);
        println!("{:<26}{single:>16.1}{:>48}{batches:>16.1}", "threads: rtrb", "");
    }
}

fn row<P: Peer>() -> (&'static str, fn(Cell, Size) -> f64) {
    (P::NAME, |cell, size| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        // Batches are fast: more of them, so that a round takes long enough.
        let events = if cell.batch > 1 { 2 * size.events } else { size.events };
        (0..size.rounds).map(|_| fanout::run::<P>(&runtime, cell, events)).fold(0.0, f64::max)
    })
}
