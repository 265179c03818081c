//! How fast jobs are taken in.

use std::time::Duration;

use hodei_benches::directory;
use hodei_benches::hodei::{dealt, fill, holds, one_by_one, side_by_side, wrote};
use hodei_benches::load::per_second;
use hodei_benches::raw::{self, Puts};
use hodei_benches::report::{Goal, Report, Unit};
use hodei_core::job::State;
use hodei_core::store::JobStore;
use hodei_store_redb::RedbStore;

use crate::{Sizes, typical};

/// What one round took.
#[derive(Clone, Copy, Debug)]
struct Round {
    single: Duration,
    raw_single: Duration,
    side_by_side: Duration,
    bulk: Duration,
    raw_bulk: Duration,
    raw_rows: Duration,
}

impl Round {
    /// The better of each.
    fn best(self, other: Self) -> Self {
        Self {
            single: self.single.min(other.single),
            raw_single: self.raw_single.min(other.raw_single),
            side_by_side: self.side_by_side.min(other.side_by_side),
            bulk: self.bulk.min(other.bulk),
            raw_bulk: self.raw_bulk.min(other.raw_bulk),
            raw_rows: self.raw_rows.min(other.raw_rows),
        }
    }
}

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let (mut best, mut written) = round(sizes).await?;
    for _ in 1..sizes.rounds {
        let (next, wrote) = round(sizes).await?;
        (best, written) = (best.best(next), wrote);
    }
    let Sizes { bulk, single, callers, each, .. } = sizes;
    let rate = |n: usize, took| per_second(n, took);
    let side_by_side = rate(callers * each, best.side_by_side);

    report.group("submit: synced before it is acknowledged, jobs of the typical size");
    report.show("rows per job in bulk", written.rows as f64 / bulk as f64, Unit::Plain);
    report.show("bytes per job in bulk", written.bytes as f64 / bulk as f64, Unit::Plain);
    report.show("1,000 per batch", rate(bulk, best.bulk), Unit::PerSecond);
    report.show(
        "raw: a put of as many bytes per job, same commits",
        rate(bulk, best.raw_bulk),
        Unit::PerSecond,
    );
    report.show(
        "raw: as many rows of as many bytes, same commits",
        rate(bulk, best.raw_rows),
        Unit::PerSecond,
    );
    let share = |of: Duration| of.as_secs_f64() / best.bulk.as_secs_f64();
    report.judge(
        "1,000 per batch / raw put per job",
        share(best.raw_bulk),
        Unit::Percent,
        Goal::AtLeast(0.45),
    );
    report.show("1,000 per batch / raw rows", share(best.raw_rows), Unit::Percent);
    report.show("one caller", rate(single, best.single), Unit::PerSecond);
    report.show(
        "raw: a put of as many bytes in a commit each",
        rate(single, best.raw_single),
        Unit::PerSecond,
    );
    let slower = best.single.as_secs_f64() / best.raw_single.as_secs_f64();
    report.judge("one caller's wait / raw synced commit", slower, Unit::Times, Goal::AtMost(1.3));
    report.show(&format!("{callers} callers, one job at a time"), side_by_side, Unit::PerSecond);
    let faster = side_by_side / rate(single, best.single);
    report.judge(&format!("{callers} callers / one caller"), faster, Unit::Times, Goal::AtLeast(25.0));
    Ok(())
}

/// Measures each once, and returns what the batches wrote.
async fn round(sizes: Sizes) -> Result<(Round, Puts), String> {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let open = |name: &str| RedbStore::open(at(name)).expect("a store");

    let store = open("single");
    let before = store.stats();
    let single = one_by_one(&store, typical(0..sizes.single)).await;
    let puts = Puts { rows: sizes.single as u64, ..wrote(before, store.stats()) };
    holds(&store, State::Pending, sizes.single).await?;
    let raw_single = raw::put(&at("raw-single"), puts);

    let store = open("callers");
    let callers = dealt(typical(0..sizes.callers * sizes.each), sizes.callers);
    let side_by_side = side_by_side(&store, callers).await;
    holds(&store, State::Pending, sizes.callers * sizes.each).await?;

    let store = open("bulk");
    let before = store.stats();
    let bulk = fill(&store, typical(0..sizes.bulk)).await;
    let written = wrote(before, store.stats());
    holds(&store, State::Pending, sizes.bulk).await?;
    let raw_bulk = raw::put(&at("raw-bulk"), Puts { rows: sizes.bulk as u64, ..written });
    let raw_rows = raw::put(&at("raw-rows"), written);
    Ok((Round { single, raw_single, side_by_side, bulk, raw_bulk, raw_rows }, written))
}
