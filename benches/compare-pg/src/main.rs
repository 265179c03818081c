//! Hodei on PostgreSQL beside the job queues for it, on one server, in one run.
//!
//! `cargo run --release --locked --manifest-path benches/compare-pg/Cargo.toml -- [--quick | --test] [--rounds N]
//! [--jobs N] [--alone]`
//!
//! The server is private and has its default, durable settings. Every engine runs no-op jobs whose arguments are their
//! number, at its best documented settings, which the module of each names, and on two threads. Every round measures all
//! of them one after the other, each part on a new database, and the best of the rounds is compared. A goal that is
//! missed is said and is no failure; a job that did not run just once is one. `--alone` leaves the other engines out.

mod apalis;
mod awa;
mod graphile;
mod hodei;
mod peer;
mod raw;
mod river;

use std::process::ExitCode;

use hodei_benches::load::{Load, Rates};
use hodei_benches::report::{Goal, Report, Unit, say};
use hodei_benches::runtime;
use hodei_test_servers::Postgres;
use peer::{Drained, Peer, Result};
use raw::Limits;

/// How many rounds, and what each engine is given in a round.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    load: Load,
    /// Whether the other engines are left out.
    alone: bool,
}

const FULL: Plan = Plan {
    rounds: 3,
    load: Load { drain: 100_000, single: 1_000, callers: 64, each: 100, bulk: 100_000 },
    alone: false,
};
const QUICK: Plan = Plan {
    rounds: 2,
    load: Load { drain: 30_000, single: 300, callers: 64, each: 20, bulk: 30_000 },
    alone: false,
};
const TEST: Plan = Plan {
    rounds: 1,
    load: Load { drain: 2_000, single: 20, callers: 8, each: 4, bulk: 2_000 },
    alone: false,
};

/// The best of what one engine did.
#[derive(Clone, Copy, Debug, Default)]
struct Best {
    drained: Drained,
    submitted: Rates,
}

impl Best {
    fn or(self, other: Self) -> Self {
        let drained = if self.drained.rate > other.drained.rate { self.drained } else { other.drained };
        let (one, two) = (self.submitted, other.submitted);
        let submitted = Rates {
            drain: 0.0,
            single: one.single.max(two.single),
            concurrent: one.concurrent.max(two.concurrent),
            bulk: one.bulk.max(two.bulk),
        };
        Self { drained, submitted }
    }
}

/// The best of all.
#[derive(Clone, Copy, Debug, Default)]
struct Bests {
    raw: Limits,
    hodei: Best,
    /// Hodei that records ends only, and nothing: of them only the drain is measured.
    hodei_ends: Best,
    hodei_nothing: Best,
    /// Hodei that records nothing and keeps nothing that has ended, as other engines do.
    hodei_bare: Best,
    graphile: Best,
    /// With the larger local queue, of which only the drain is measured.
    graphile_large: Best,
    river: Best,
    apalis: Best,
    awa: Best,
}

fn main() -> ExitCode {
    match plan(std::env::args().skip(1))
        .and_then(|plan| runtime().block_on(compare(plan)).map_err(|e| e.to_string()))
    {
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

fn plan(mut args: impl Iterator<Item = String>) -> std::result::Result<Plan, String> {
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
            "--alone" => plan.alone = true,
            _ => return Err(format!("unknown argument `{arg}`")),
        }
    }
    Ok(plan)
}

async fn compare(Plan { rounds, load, alone }: Plan) -> Result<Report> {
    let server = Postgres::start()?;
    let about = format!("Engines on one PostgreSQL, best of {rounds}: {} no-op jobs drained", load.drain);
    let report = Report::new(&about);
    let mut best = Bests::default();
    for round in 1..=rounds {
        best = measure(&server, load, best).await?;
        if !alone {
            best = peers(&server, load, best).await?;
        }
        say(&format!("round {round} of {rounds} is over"));
    }
    Ok(tell(report, load, best))
}

/// Measures plain SQL and Hodei once.
async fn measure(server: &Postgres, load: Load, best: Bests) -> Result<Bests> {
    Ok(Bests {
        raw: best.raw.or(raw::limits(server, load).await?),
        hodei: best.hodei.or(of::<hodei::Hodei<{ hodei::ALL }>>(server, load, "Hodei").await?),
        hodei_ends: best.hodei_ends.or(drained::<hodei::Hodei<{ hodei::ENDS }>>(server, load).await?),
        hodei_nothing: best
            .hodei_nothing
            .or(drained::<hodei::Hodei<{ hodei::NOTHING }>>(server, load).await?),
        hodei_bare: best.hodei_bare.or(drained::<hodei::Hodei<{ hodei::BARE }>>(server, load).await?),
        ..best
    })
}

/// Measures every other engine once, one after the other.
async fn peers(server: &Postgres, load: Load, best: Bests) -> Result<Bests> {
    Ok(Bests {
        graphile: best.graphile.or(of::<graphile::Graphile<500>>(server, load, "graphile_worker").await?),
        graphile_large: best.graphile_large.or(drained::<graphile::Graphile<5_000>>(server, load).await?),
        river: best.river.or(of::<river::River>(server, load, "riverqueue").await?),
        apalis: best.apalis.or(of::<apalis::Apalis>(server, load, "apalis-postgres").await?),
        awa: best.awa.or(of::<awa::Awa>(server, load, "awa").await?),
        ..best
    })
}

async fn of<P: Peer>(server: &Postgres, load: Load, name: &str) -> Result<Best> {
    let named = |error| format!("{name}: {error}");
    let drained = peer::drain::<P>(server, load.drain).await.map_err(named)?;
    Ok(Best { drained, submitted: peer::submissions::<P>(server, load).await.map_err(named)? })
}

async fn drained<P: Peer>(server: &Postgres, load: Load) -> Result<Best> {
    Ok(Best { drained: peer::drain::<P>(server, load.drain).await?, submitted: Rates::default() })
}

fn tell(mut report: Report, load: Load, best: Bests) -> Report {
    let Bests { hodei, graphile, river, apalis, awa, .. } = best;
    let peers = [
        ("graphile_worker 0.14, local queue of 500; deletes its rows", graphile),
        ("riverqueue 0.5, 1,000 workers", river),
        ("apalis-postgres 1.0, 4 workers that fetch 500", apalis),
        ("awa 0.6, 256 workers", awa),
    ];
    drains(&mut report, &best, &peers);
    report.group("Write-ahead log of a job's whole life, bytes");
    let (all, ends, nothing) =
        (hodei.drained.wal, best.hodei_ends.drained.wal, best.hodei_nothing.drained.wal);
    report.judge("Hodei, every change recorded", all, Unit::Plain, Goal::AtMost(1_200.0));
    report.judge("Hodei, ends recorded", ends, Unit::Plain, Goal::AtMost(1_000.0));
    report.show("Hodei, nothing recorded", nothing, Unit::Plain);
    let bare = best.hodei_bare.drained.wal;
    report.judge("Hodei, nothing recorded and nothing kept", bare, Unit::Plain, Goal::AtMost(700.0));
    for (name, best) in peers {
        report.show(name, best.drained.wal, Unit::Plain);
    }
    submissions(&mut report, load, &best, &peers);
    report
}

fn drains(report: &mut Report, best: &Bests, peers: &[(&str, Best)]) {
    let Bests { raw, hodei, graphile, graphile_large, river, apalis, awa, .. } = best;
    report.group("Drain of preloaded no-op jobs, jobs a second");
    report.show("raw claims of 500 and updates, 4 connections, one table", raw.drain, Unit::PerSecond);
    report.show(
        "Hodei, rows kept, every change recorded, under a limit",
        hodei.drained.rate,
        Unit::PerSecond,
    );
    report.show("Hodei, rows kept, ends recorded", best.hodei_ends.drained.rate, Unit::PerSecond);
    report.show("Hodei, rows kept, nothing recorded", best.hodei_nothing.drained.rate, Unit::PerSecond);
    report.show("Hodei, nothing recorded, nothing kept", best.hodei_bare.drained.rate, Unit::PerSecond);
    for (name, best) in peers {
        report.show(name, best.drained.rate, Unit::PerSecond);
    }
    report.show("graphile_worker 0.14, local queue of 5,000", graphile_large.drained.rate, Unit::PerSecond);
    let fastest = graphile.drained.rate.max(graphile_large.drained.rate);
    let against = [
        ("the faster graphile_worker", fastest, 1.4),
        ("riverqueue", river.drained.rate, 2.5),
        ("apalis-postgres", apalis.drained.rate, 3.0),
        ("awa", awa.drained.rate, 8.0),
        ("raw claims and updates", raw.drain, 1.0),
    ];
    for (name, rate, goal) in against {
        let ratio = hodei.drained.rate / rate;
        report.judge(
            &format!("Hodei, every change recorded / {name}"),
            ratio,
            Unit::Times,
            Goal::AtLeast(goal),
        );
    }
    let bare = best.hodei_bare.drained.rate / fastest;
    let what = "Hodei, nothing recorded, nothing kept / the faster graphile_worker";
    report.judge(what, bare, Unit::Times, Goal::AtLeast(1.7));
}

fn submissions(report: &mut Report, load: Load, best: &Bests, peers: &[(&str, Best)]) {
    let hodei = best.hodei.submitted;
    let most = |way: fn(Rates) -> f64| peers.iter().map(|(_, best)| way(best.submitted)).fold(0.0, f64::max);
    let list = |title: &str, way: fn(Rates) -> f64| {
        report.group(title);
        report.show("Hodei", way(hodei), Unit::PerSecond);
        for (name, best) in peers {
            report.show(name, way(best.submitted), Unit::PerSecond);
        }
    };
    list("Submissions by one caller, one by one", |rates| rates.single);
    list(&format!("Submissions by {} callers, one by one", load.callers), |rates| rates.concurrent);
    list("Submissions in batches of 1,000, one caller", |rates| rates.bulk);
    report.group("Submissions compared");
    report.show("raw inserts one by one, one connection", best.raw.single, Unit::PerSecond);
    report.show("raw inserts of 1,000 by UNNEST, one connection", best.raw.bulk, Unit::PerSecond);
    let ratios = [
        ("one caller / raw", hodei.single / best.raw.single, 0.8),
        ("one caller / best peer", hodei.single / most(|rates| rates.single), 1.0),
        ("many callers / best peer", hodei.concurrent / most(|rates| rates.concurrent), 4.0),
        ("batches / raw", hodei.bulk / best.raw.bulk, 0.6),
        ("batches / best peer", hodei.bulk / most(|rates| rates.bulk), 1.5),
    ];
    for (name, ratio, goal) in ratios {
        report.judge(name, ratio, Unit::Times, Goal::AtLeast(goal));
    }
}
