//! Hodei beside the engines that one would embed instead of it, in one run.
//!
//! `cargo run --release --locked --manifest-path benches/compare/Cargo.toml -- [--quick | --test] [--rounds N] [--jobs N]`
//!
//! Every engine runs no-op jobs whose arguments are their number, at its best documented settings, which the module of
//! each names, and on two threads. Every round measures all of them one after the other, and the best of the rounds is
//! compared. Slow engines get fewer jobs; rates are compared. Files are put beside the program unless `TMPDIR` names
//! another place. A goal that is missed is said and is no failure; a job that did not run just once is one.

mod apalis;
mod effectum;

use std::process::ExitCode;

use effectum::{Mode, Peer};
use hodei_benches::hodei::Drained;
use hodei_benches::load::{Load, Rates, per_second};
use hodei_benches::report::{Goal, Report, Unit, say};
use hodei_benches::{directory, hodei, raw, runtime};

/// How many rounds, and what each engine is given in a round.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    load: Load,
    /// What the peers drain.
    peers: usize,
}

const FULL: Plan = Plan {
    rounds: 5,
    load: Load { drain: 100_000, single: 1_000, callers: 256, each: 40, bulk: 100_000 },
    peers: 20_000,
};
const QUICK: Plan = Plan {
    rounds: 3,
    load: Load { drain: 50_000, single: 300, callers: 256, each: 10, bulk: 20_000 },
    peers: 5_000,
};
const TEST: Plan = Plan {
    rounds: 1,
    load: Load { drain: 2_000, single: 10, callers: 16, each: 2, bulk: 2_000 },
    peers: 300,
};

/// What one engine did, at its best.
#[derive(Clone, Copy, Debug, Default)]
struct Bests {
    hodei: Rates,
    /// Rows and bytes as Hodei's drain writes them, as jobs a second.
    raw: f64,
    shipped: Rates,
    wal: Rates,
    apalis: Rates,
}

impl Bests {
    /// Returns the better of each.
    fn or(self, other: Self) -> Self {
        Self {
            hodei: better(self.hodei, other.hodei),
            raw: self.raw.max(other.raw),
            shipped: better(self.shipped, other.shipped),
            wal: better(self.wal, other.wal),
            apalis: better(self.apalis, other.apalis),
        }
    }
}

fn better(one: Rates, other: Rates) -> Rates {
    Rates {
        drain: one.drain.max(other.drain),
        single: one.single.max(other.single),
        concurrent: one.concurrent.max(other.concurrent),
        bulk: one.bulk.max(other.bulk),
    }
}

fn main() -> ExitCode {
    let outcome = plan(std::env::args().skip(1)).and_then(|plan| runtime().block_on(compare(plan)));
    match outcome {
        Ok(report) => {
            report.end();
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            say(&format!("WRONG: {wrong}"));
            ExitCode::FAILURE
        }
    }
}

fn plan(mut args: impl Iterator<Item = String>) -> Result<Plan, String> {
    let mut plan = FULL;
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().and_then(|value| value.parse().ok()).filter(|n| *n > 0);
            value.ok_or_else(|| format!("{arg} needs a number above zero"))
        };
        match arg.as_str() {
            "--quick" => plan = QUICK,
            "--test" => plan = TEST,
            "--rounds" => plan.rounds = number()?,
            "--jobs" => plan.load.drain = number()?,
            "--peer-jobs" => plan.peers = number()?,
            _ => return Err(format!("unknown argument `{arg}`")),
        }
    }
    Ok(plan)
}

async fn compare(plan: Plan) -> Result<Report, String> {
    let Plan { rounds, load, peers } = plan;
    let effectum = Peer::build().await?;
    let report = Report::new(&format!(
        "Embedded engines, best of {rounds}: {} no-op jobs drained by Hodei, {peers} by each peer",
        load.drain
    ));
    let (mut best, mut last) = (Bests::default(), None);
    for round in 1..=rounds {
        let (bests, drained) = measure(&effectum, plan).await?;
        best = best.or(bests);
        let Bests { hodei, raw, shipped, wal, apalis } = bests;
        say(&format!(
            "round {round}, drained a second: Hodei {:.0}, raw loop {raw:.0}, effectum {:.0} and {:.0}, apalis-sqlite {:.0}",
            hodei.drain, shipped.drain, wal.drain, apalis.drain
        ));
        last = Some(drained);
    }
    Ok(tell(report, load, best, last.ok_or("no round")?))
}

/// Measures every engine once, one after the other.
async fn measure(effectum: &Peer, plan: Plan) -> Result<(Bests, Drained), String> {
    let directory = directory();
    let (load, peers) = (plan.load, Load { drain: plan.peers, ..plan.load });
    let (hodei, drained) = hodei::rates(directory.path(), load).await?;
    let raw = raw::put(&directory.path().join("raw"), drained.wrote);
    let shipped = effectum.rates(Mode::Shipped, peers).await?;
    let wal = effectum.rates(Mode::Wal, peers).await?;
    let apalis =
        apalis::rates(directory.path(), peers).await.map_err(|error| format!("apalis-sqlite: {error}"))?;
    Ok((Bests { hodei, raw: per_second(load.drain, raw), shipped, wal, apalis }, drained))
}

fn tell(mut report: Report, load: Load, best: Bests, drained: Drained) -> Report {
    let engines = [
        ("Hodei on redb, every commit synced", best.hodei),
        ("effectum 0.7, as it comes: rollback journal", best.shipped),
        ("effectum 0.7, given a write-ahead log: commits are not synced", best.wal),
        ("apalis-sqlite 1.0: nothing is synced", best.apalis),
    ];
    let show = |title: &str, rate: fn(Rates) -> f64| {
        report.group(title);
        for (engine, rates) in engines {
            report.show(engine, rate(rates), Unit::PerSecond);
        }
    };
    show("enqueue, 1 caller", |rates| rates.single);
    show(&format!("enqueue, {} callers", load.callers), |rates| rates.concurrent);
    show("enqueue, 1,000 in bulk", |rates| rates.bulk);
    show("drain", |rates| rates.drain);
    let jobs = load.drain as f64;
    report.show("raw redb loop: the rows and bytes of Hodei's drain", best.raw, Unit::PerSecond);
    report.show("  rows per job", drained.wrote.rows as f64 / jobs, Unit::Plain);
    report.show("  bytes per job", drained.wrote.bytes as f64 / jobs, Unit::Plain);
    report.show("  jobs per commit", jobs / drained.wrote.commits as f64, Unit::Plain);

    report.group("drain, Hodei / the other");
    let over = |rate: f64| best.hodei.drain / rate;
    report.judge("effectum, as it comes", over(best.shipped.drain), Unit::Times, Goal::AtLeast(12.0));
    report.show("effectum, given a write-ahead log", over(best.wal.drain), Unit::Times);
    report.judge("apalis-sqlite", over(best.apalis.drain), Unit::Times, Goal::AtLeast(12.0));
    report.judge("raw redb loop", over(best.raw), Unit::Percent, Goal::AtLeast(0.40));
    report
}
