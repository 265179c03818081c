//! How fast preloaded jobs go through the whole engine.

use std::path::Path;
use std::time::Duration;

use hodei_benches::load::per_second;
use hodei_benches::raw::{Puts, Raw, Way};
use hodei_benches::report::{Goal, Report, Unit};
use hodei_benches::{directory, hodei};

use crate::{Sizes, ratios, rotated};

/// What each round took.
#[derive(Debug, Default)]
struct Rounds {
    engine: Vec<Duration>,
    raw: Vec<Duration>,
    cursor: Vec<Duration>,
}

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let warm = directory();
    let mut wrote = hodei::drain(&warm.path().join("drain"), sizes.bulk).await?.wrote;
    drop(warm);
    let mut rounds = Rounds::default();
    for round in 0..sizes.rounds {
        let directory = directory();
        wrote = one(sizes, round, directory.path(), wrote, &mut rounds).await?;
    }
    let (jobs, best) = (sizes.bulk as f64, |of: &[Duration]| of.iter().min().copied().unwrap_or_default());
    report.group("drain: scheduler, agent and store, every transition durable, no-op handlers");
    report.show("rows per job", wrote.rows as f64 / jobs, Unit::Plain);
    report.show("bytes per job", wrote.bytes as f64 / jobs, Unit::Plain);
    report.show("jobs per commit", jobs / wrote.commits as f64, Unit::Plain);
    report.show("drain", per_second(sizes.bulk, best(&rounds.engine)), Unit::PerSecond);
    report.show(
        "raw: as many rows of as many bytes, as many commits",
        per_second(sizes.bulk, best(&rounds.raw)),
        Unit::PerSecond,
    );
    report.show(
        "raw: the same through a cursor",
        per_second(sizes.bulk, best(&rounds.cursor)),
        Unit::PerSecond,
    );
    let shares = |of: &[Duration]| ratios(of, &rounds.engine);
    report.judge_rounds("drain / raw loop", &shares(&rounds.raw), Unit::Percent, Goal::AtLeast(0.40));
    report.show_rounds("drain / raw loop through a cursor", &shares(&rounds.cursor), Unit::Percent);
    Ok(())
}

/// The engine and the loops that put what it wrote, each round beginning with another one.
async fn one(
    sizes: Sizes,
    round: usize,
    at: &Path,
    before: Puts,
    rounds: &mut Rounds,
) -> Result<Puts, String> {
    let mut wrote = before;
    for who in rotated(3, round) {
        match who {
            0 => {
                let drained = hodei::drain(&at.join("drain"), sizes.bulk).await?;
                rounds.engine.push(drained.took);
                wrote = drained.wrote;
            }
            1 => rounds.raw.push(Raw::new(&at.join("raw")).put(before, Way::Insert)),
            _ => rounds.cursor.push(Raw::new(&at.join("cursor")).put(before, Way::Cursor)),
        }
    }
    Ok(wrote)
}
