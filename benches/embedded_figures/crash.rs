//! How fast a file opens whose process was killed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use hodei_benches::BATCH;
use hodei_benches::hodei::fill;
use hodei_benches::report::{Goal, Report, Unit, say};
use hodei_core::store::{JobStore as _, Scope};
use hodei_store_redb::RedbStore;

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
