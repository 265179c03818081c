//! The figures of the embedded store, each beside what it is measured against and with its goal.
//!
//! `cargo bench --package hodei-benches --bench embedded_figures -- [--quick] [--rounds N] [submit] [drain] [read] [open]`
//!
//! Sections that are named are measured, all where none is. Absolute figures are the best of the rounds; what a ratio
//! compares is measured in the same round, one beside the other, in another order each time: the ratio of each round is
//! told, and their median is what counts. A goal that is missed is said and is no failure; a wrong result is one. Files are put beside the program
//! unless `TMPDIR` names another place: in memory, a synced commit says nothing. `--quick` measures with less and tells
//! the direction only; `--test` only shows that everything runs.

mod crash;
mod drain;
mod read;
mod submit;
mod sys;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hodei_benches::report::{Report, say};
use hodei_benches::{directory, runtime};
use hodei_core::job::NewJob;
use hodei_core::testkit::typical_spec;

/// What can be asked for.
const SECTIONS: [&str; 4] = ["submit", "drain", "read", "open"];

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// How often, for the best of it.
    rounds: usize,
    /// Submitted in batches, and drained.
    bulk: usize,
    /// Submitted by a single caller.
    single: usize,
    /// Callers beside each other, and what each submits.
    callers: usize,
    each: usize,
    /// The jobs in a small, a middle and a large file.
    files: [usize; 3],
    /// Reads of one kind in a round.
    reads: usize,
}

const FULL: Sizes = Sizes {
    rounds: 5,
    bulk: 100_000,
    single: 1_000,
    callers: 256,
    each: 40,
    files: [10_000, 100_000, 1_000_000],
    reads: 1_000,
};
const QUICK: Sizes = Sizes {
    rounds: 3,
    bulk: 20_000,
    single: 300,
    callers: 256,
    each: 10,
    files: [2_000, 20_000, 100_000],
    reads: 300,
};
const TEST: Sizes = Sizes {
    rounds: 1,
    bulk: 2_000,
    single: 10,
    callers: 16,
    each: 2,
    files: [1_000, 1_500, 2_000],
    reads: 10,
};

/// What a job may take on the disk while a file is written, with room to spare.
const BYTES_PER_JOB: u64 = 8 << 10;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == crash::HOLD) {
        let file = args.get(at + 1).map(PathBuf::from);
        return runtime().block_on(crash::hold(&file.expect("the program names a file")));
    }
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let (sizes, how) = match (has("--test"), has("--quick")) {
        (true, _) => (TEST, "a smoke run: its figures mean nothing"),
        (false, true) => (QUICK, "a quick run: smaller than what the goals are about"),
        (false, false) => (FULL, "the full run"),
    };
    let sizes = match args.iter().position(|arg| arg == "--rounds") {
        Some(at) => Sizes {
            rounds: args.get(at + 1).and_then(|n| n.parse().ok()).expect("--rounds needs a number"),
            ..sizes
        },
        None => sizes,
    };
    let named = SECTIONS.iter().any(|section| has(section));
    let wanted = |section: &str| !named || has(section);
    let report = Report::new(&format!("Embedded store, {how}, best of {}", sizes.rounds));
    match runtime().block_on(figures(sizes, wanted, report)) {
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

async fn figures(sizes: Sizes, wanted: impl Fn(&str) -> bool, mut report: Report) -> Result<Report, String> {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let disk = rustix::fs::statvfs(directory.path()).map_err(|error| error.to_string())?;
    let (free, needed) = (disk.f_bavail * disk.f_frsize, sizes.files[2] as u64 * BYTES_PER_JOB);
    if free < needed {
        return Err(format!("{needed} bytes of disk are wanted at {}, {free} are free", at("").display()));
    }
    if wanted("submit") {
        submit::figures(sizes, &mut report).await?;
    }
    if wanted("drain") {
        drain::figures(sizes, &mut report).await?;
    }
    if wanted("read") || wanted("open") {
        let files = read::fill_all(sizes, &at("files")).await?;
        let files =
            if wanted("read") { read::figures(sizes, files, &mut report).await? } else { read::kept(files) };
        if wanted("open") {
            crash::figures(sizes, &files[1..], &mut report).await?;
        }
    }
    Ok(report)
}

/// Returns the numbers below `n`, each round from another one on.
fn rotated(n: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |place| (place + round) % n)
}

/// Returns how many times as long as the others some took, round by round.
fn ratios(some: &[Duration], others: &[Duration]) -> Vec<f64> {
    some.iter().zip(others).map(|(one, other)| one.as_secs_f64() / other.as_secs_f64()).collect()
}

/// Makes jobs of the typical size, each with a spec of its own.
fn typical(jobs: std::ops::Range<usize>) -> Vec<NewJob> {
    let spec = |n| typical_spec().name(format!("frame-{n:06}")).build().expect("a valid spec");
    jobs.map(|n| NewJob::new(spec(n))).collect()
}
