//! How fast preloaded jobs go through the whole engine.

use hodei_benches::load::per_second;
use hodei_benches::report::{Goal, Report, Unit};
use hodei_benches::{directory, hodei, raw};

use crate::Sizes;

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let (drained, raw) = best(sizes).await?;
    let jobs = sizes.bulk as f64;
    report.group("drain: scheduler, agent and store, every transition durable, no-op handlers");
    report.show("rows per job", drained.wrote.rows as f64 / jobs, Unit::Plain);
    report.show("bytes per job", drained.wrote.bytes as f64 / jobs, Unit::Plain);
    report.show("jobs per commit", jobs / drained.wrote.commits as f64, Unit::Plain);
    report.show("drain", per_second(sizes.bulk, drained.took), Unit::PerSecond);
    report.show(
        "raw: as many rows of as many bytes, as many commits",
        per_second(sizes.bulk, raw),
        Unit::PerSecond,
    );
    let share = raw.as_secs_f64() / drained.took.as_secs_f64();
    report.judge("drain / raw loop", share, Unit::Percent, Goal::AtLeast(0.40));
    Ok(())
}

/// Returns the best drain, and the best time of the loop that puts what that round's drain wrote.
async fn best(sizes: Sizes) -> Result<(hodei::Drained, std::time::Duration), String> {
    let mut best: Option<(hodei::Drained, std::time::Duration)> = None;
    for _ in 0..sizes.rounds {
        let directory = directory();
        let drained = hodei::drain(&directory.path().join("drain"), sizes.bulk).await?;
        let raw = raw::put(&directory.path().join("raw"), drained.wrote);
        best = Some(match best {
            None => (drained, raw),
            Some((before, limit)) => {
                (if drained.took < before.took { drained } else { before }, limit.min(raw))
            }
        });
    }
    best.ok_or_else(|| "no round".into())
}
