//! How fast jobs are taken in.

use std::path::Path;
use std::time::Duration;

use hodei_benches::directory;
use hodei_benches::hodei::{dealt, fill, holds, one_by_one, side_by_side, wrote};
use hodei_benches::load::per_second;
use hodei_benches::raw::{Puts, Raw, Way};
use hodei_benches::report::{Goal, Report, Unit};
use hodei_core::job::State;
use hodei_core::store::JobStore;
use hodei_store_redb::RedbStore;

use crate::{Sizes, ratios, rotated, typical};

/// In how many pieces a single caller and the raw commits take turns.
const TURNS: usize = 10;

/// What was taken in, in each round.
#[derive(Debug, Default)]
struct Rounds {
    single: Vec<Duration>,
    raw_single: Vec<Duration>,
    side_by_side: Vec<Duration>,
    bulk: Vec<Duration>,
    /// As many rows as there are jobs, of all the bytes.
    raw_jobs: Vec<Duration>,
    /// As many rows of as many bytes.
    raw_rows: Vec<Duration>,
    /// The same as fast as redb can.
    raw_cursor: Vec<Duration>,
}

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let (mut rounds, mut written) = (Rounds::default(), expected(sizes).await?);
    for round in 0..sizes.rounds {
        let directory = directory();
        single(sizes, round, directory.path(), &mut rounds).await?;
        rounds.side_by_side.push(callers(sizes, directory.path()).await?);
        written = bulk(sizes, round, directory.path(), written, &mut rounds).await?;
    }
    tell(sizes, &rounds, written, report);
    Ok(())
}

/// Returns what a bulk writes, about: the first round has to know it beforehand, later ones take what the last one wrote.
async fn expected(sizes: Sizes) -> Result<Puts, String> {
    let directory = directory();
    Ok(fill_new(&directory.path().join("first"), sizes.bulk).await?.1)
}

async fn fill_new(file: &Path, jobs: usize) -> Result<(Duration, Puts), String> {
    let store = RedbStore::open(file).expect("a store");
    let before = store.stats();
    let took = fill(&store, typical(0..jobs)).await;
    let written = wrote(before, store.stats());
    holds(&store, State::Pending, jobs).await?;
    Ok((took, written))
}

/// A single caller and raw commits in turns, so that both find the disk as it is just then.
async fn single(sizes: Sizes, round: usize, at: &Path, rounds: &mut Rounds) -> Result<(), String> {
    let store = RedbStore::open(at.join("single")).expect("a store");
    let mut raw = Raw::new(&at.join("raw-single"));
    let (each, mut of_store, mut of_raw) = (sizes.single / TURNS, Duration::ZERO, Duration::ZERO);
    let mut bytes = 600;
    for turn in 0..TURNS {
        let jobs = typical(turn * each..(turn + 1) * each);
        let puts = Puts { rows: each as u64, bytes: bytes * each as u64, commits: each as u64 };
        let before = store.stats();
        if (turn + round).is_multiple_of(2) {
            of_raw += raw.put(puts, Way::Insert);
            of_store += one_by_one(&store, jobs).await;
        } else {
            of_store += one_by_one(&store, jobs).await;
            of_raw += raw.put(puts, Way::Insert);
        }
        bytes = wrote(before, store.stats()).bytes / (each as u64).max(1);
    }
    holds(&store, State::Pending, each * TURNS).await?;
    rounds.single.push(of_store);
    rounds.raw_single.push(of_raw);
    Ok(())
}

async fn callers(sizes: Sizes, at: &Path) -> Result<Duration, String> {
    let store = RedbStore::open(at.join("callers")).expect("a store");
    let callers = dealt(typical(0..sizes.callers * sizes.each), sizes.callers);
    let took = side_by_side(&store, callers).await;
    holds(&store, State::Pending, sizes.callers * sizes.each).await?;
    Ok(took)
}

/// The store and the raw loops, one after the other, each round beginning with another one.
async fn bulk(
    sizes: Sizes,
    round: usize,
    at: &Path,
    before: Puts,
    rounds: &mut Rounds,
) -> Result<Puts, String> {
    let mut written = before;
    let jobs = Puts { rows: sizes.bulk as u64, ..before };
    for who in rotated(4, round) {
        match who {
            0 => {
                let (took, wrote) = fill_new(&at.join("bulk"), sizes.bulk).await?;
                rounds.bulk.push(took);
                written = wrote;
            }
            1 => rounds.raw_jobs.push(Raw::new(&at.join("raw-jobs")).put(jobs, Way::Insert)),
            2 => rounds.raw_rows.push(Raw::new(&at.join("raw-rows")).put(before, Way::Insert)),
            _ => rounds.raw_cursor.push(Raw::new(&at.join("raw-cursor")).put(before, Way::Cursor)),
        }
    }
    Ok(written)
}

fn tell(sizes: Sizes, rounds: &Rounds, written: Puts, report: &mut Report) {
    let Sizes { bulk, single, callers, each, .. } = sizes;
    let rate = |n: usize, of: &[Duration]| per_second(n, of.iter().min().copied().unwrap_or_default());
    report.group("submit: synced before it is acknowledged, jobs of the typical size");
    report.show("rows per job in bulk", written.rows as f64 / bulk as f64, Unit::Plain);
    report.show("bytes per job in bulk", written.bytes as f64 / bulk as f64, Unit::Plain);
    report.show("1,000 per batch", rate(bulk, &rounds.bulk), Unit::PerSecond);
    report.show("raw: a put of as many bytes per job", rate(bulk, &rounds.raw_jobs), Unit::PerSecond);
    report.show("raw: as many rows of as many bytes", rate(bulk, &rounds.raw_rows), Unit::PerSecond);
    report.show("raw: the same through a cursor", rate(bulk, &rounds.raw_cursor), Unit::PerSecond);
    let shares = |of: &[Duration]| ratios(of, &rounds.bulk);
    let what = "1,000 per batch / raw put per job";
    report.judge_rounds(what, &shares(&rounds.raw_jobs), Unit::Percent, Goal::AtLeast(0.45));
    report.show_rounds("1,000 per batch / raw rows", &shares(&rounds.raw_rows), Unit::Percent);
    report.show_rounds(
        "1,000 per batch / raw rows through a cursor",
        &shares(&rounds.raw_cursor),
        Unit::Percent,
    );
    report.show("one caller", rate(single, &rounds.single), Unit::PerSecond);
    report.show(
        "raw: a put of as many bytes in a commit each",
        rate(single, &rounds.raw_single),
        Unit::PerSecond,
    );
    let slower = ratios(&rounds.single, &rounds.raw_single);
    report.judge_rounds("one caller's wait / raw synced commit", &slower, Unit::Times, Goal::AtMost(1.3));
    report.show(
        &format!("{callers} callers, one job at a time"),
        rate(callers * each, &rounds.side_by_side),
        Unit::PerSecond,
    );
    let faster =
        |(one, all): (&Duration, &Duration)| per_second(callers * each, *all) / per_second(single, *one);
    let faster: Vec<f64> = rounds.single.iter().zip(&rounds.side_by_side).map(faster).collect();
    let what = format!("{callers} callers / one caller");
    report.judge_rounds(&what, &faster, Unit::Times, Goal::AtLeast(25.0));
}
