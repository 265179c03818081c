//! How fast a file opens whose process was killed, and one of an older schema.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use hodei_benches::BATCH;
use hodei_benches::hodei::fill;
use hodei_benches::report::{Goal, Report, Unit, say};
use hodei_core::store::{JobStore as _, QueueQuery, Scope};
use hodei_core::{JobId, SystemClock, Tenant};
use hodei_store_redb::RedbStore;
use hodei_store_redb::testkit::{as_schema_5, grow_schema_1};

use crate::read::Kept;
use crate::{Sizes, typical};

/// Asks the program to hold a file, writing, until it is killed.
pub(crate) const HOLD: &str = "--hold";
/// What it says once a batch is acknowledged.
const HELD: &str = "held";

/// Opens the file and submits batches without end.
pub(crate) async fn hold(file: &Path) -> ExitCode {
    let store = RedbStore::open(file).expect("a store");
    loop {
        fill(&store, typical(0..BATCH)).await;
        say(HELD);
    }
}

pub(crate) async fn figures(sizes: Sizes, files: &[Kept], report: &mut Report) -> Result<(), String> {
    report.group("open: after kill -9 of a process that was writing; the file is in the system's cache");
    for (Kept { file, jobs }, goal) in files.iter().zip([200.0, 2_000.0]) {
        let (mut best, mut stored) = (Duration::MAX, *jobs as u64);
        for _ in 0..sizes.rounds {
            hold_and_kill(file)?;
            let start = Instant::now();
            let store = RedbStore::open(file).expect("a store opens after a kill");
            best = best.min(start.elapsed());
            let total = store.counts(&Scope::All).await.expect("counts").total();
            if total < stored + BATCH as u64 {
                return Err(format!("{total} jobs after {stored} and a batch that was acknowledged"));
            }
            stored = total;
        }
        let millis = best.as_secs_f64() * 1e3;
        report.judge(&format!("open a file of {jobs} jobs"), millis, Unit::Millis, Goal::AtMost(goal));
    }
    older(sizes, files.last().ok_or("no file")?, report).await
}

/// A small file of the first schema.
const FIRST: &[u8] = include_bytes!("../../hodei-store-redb/tests/golden/store-schema-1.redb");

/// Opens files of older schemas: as many jobs counted by tenant as by queue, and those of the first schema.
async fn older(sizes: Sizes, Kept { file, jobs }: &Kept, report: &mut Report) -> Result<(), String> {
    report.group("open: files of older schemas");
    // Closed, as all that follow.
    drop(RedbStore::open(file).expect("a store"));
    let (mut today, mut before, mut counted) = (Vec::new(), Vec::new(), Duration::MAX);
    for round in 0..sizes.rounds {
        for which in crate::rotated(2, round) {
            if which == 0 {
                as_schema_5(file).map_err(|error| error.to_string())?;
            }
            let start = Instant::now();
            let store = RedbStore::open(file).expect("a store");
            let opened = start.elapsed();
            let of = store.queue_counts(&Scope::All, QueueQuery::new()).await.expect("counts");
            if of.iter().map(|of| of.counts.total()).sum::<u64>() < *jobs as u64 {
                return Err(format!("{of:?} of {jobs} jobs"));
            }
            if which == 0 {
                before.push(opened);
                counted = counted.min(start.elapsed() - opened);
            } else {
                today.push(opened);
            }
        }
    }
    let what = format!("open a closed file of schema 5 with {jobs} jobs / one of today");
    report.judge_rounds(&what, &crate::ratios(&before, &today), Unit::Times, Goal::AtMost(2.0));
    report.show_rounds(
        "  open it",
        &before.iter().map(|took| took.as_secs_f64() * 1e3).collect::<Vec<_>>(),
        Unit::Millis,
    );
    report.show("count its jobs by queue, for somebody who waits", counted.as_secs_f64() * 1e3, Unit::Millis);
    let first = file.with_extension("first");
    std::fs::write(&first, FIRST).map_err(|error| error.to_string())?;
    let ids: Vec<_> = (0..*jobs).map(|_| JobId::mint(&Tenant::default(), &SystemClock)).collect();
    grow_schema_1(&first, &ids).map_err(|error| error.to_string())?;
    let start = Instant::now();
    let store = RedbStore::open(&first).expect("a store");
    let took = start.elapsed().as_secs_f64();
    let total = store.counts(&Scope::All).await.expect("counts").total();
    if total < *jobs as u64 {
        return Err(format!("{total} jobs of {jobs}"));
    }
    report.show(
        &format!("open a file of schema 1 with {jobs} jobs, which is rewritten"),
        took * 1e3,
        Unit::Millis,
    );
    Ok(())
}

/// Kills a process that holds the file, once it has acknowledged a batch and while it writes the next ones.
fn hold_and_kill(file: &Path) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    let holder = command.arg(HOLD).arg(file).stdout(Stdio::piped()).spawn();
    let mut holder = holder.map_err(|error| error.to_string())?;
    let mut line = String::new();
    if let Some(output) = holder.stdout.take() {
        BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
    }
    holder.kill().map_err(|error| error.to_string())?;
    holder.wait().map_err(|error| error.to_string())?;
    if line.trim_end() == HELD { Ok(()) } else { Err(format!("the holder of a file said `{line}`")) }
}
