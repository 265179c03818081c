//! What submitters notice of a pruning of a million rows: their throughput while it runs, beside that of windows without.
//!
//! `cargo bench --package hodei-benches --bench embedded_prune -- [--quick]`
//!
//! Callers submit without end, each batch synced before the next. Windows follow one another, two seconds with pruning and
//! one without, until everything is pruned; the pruning goes as a node's does, with as many jobs per call and as long a pause
//! behind each. What counts is the sum over all windows of one kind against that of the others. Then callers bring jobs at a
//! steady pace, and as many have to go in the same time as come. Files are put beside the program unless `TMPDIR` names
//! another place. `--quick` prunes a tenth; `--test` only shows that it runs.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hodei_benches::report::{Goal, Report, Unit, say};
use hodei_benches::{directory, runtime};
use hodei_core::job::{JobSpec, NewJob, State};
use hodei_core::store::{Coordination, JobStore, Retention, Scope, SubmitOptions, Term};
use hodei_core::testkit::typical_spec;
use hodei_core::{Clock, JobId, ManualClock, Name, OwnerId, SystemClock};
use hodei_store_redb::RedbStore;

/// How many jobs one call prunes at most, and how many times as long as the call the pause behind it is: as in a node.
const BATCH: usize = 500;
const PAUSE: u32 = 16;
/// Callers beside each other, and what each submits at a time.
const CALLERS: usize = 16;
const EACH: usize = 10;
/// Longer than jobs are kept.
const AGES: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How much is measured.
#[derive(Clone, Copy)]
struct Sizes {
    /// Ended jobs, of four rows each.
    ended: usize,
    window: Duration,
    /// For how long jobs come at a steady pace.
    steady: Duration,
}

impl Sizes {
    fn of(ended: usize, window_millis: u64, steady_millis: u64) -> Self {
        let [window, steady] = [window_millis, steady_millis].map(Duration::from_millis);
        Self { ended, window, steady }
    }
}

fn main() -> ExitCode {
    let has = |name: &str| std::env::args().any(|arg| arg == name);
    let (sizes, how) = match (has("--test"), has("--quick")) {
        (true, _) => (Sizes::of(500, 20, 100), "a smoke run"),
        (false, true) => (Sizes::of(25_000, 1_000, 3_000), "a quick run"),
        (false, false) => (Sizes::of(250_000, 1_000, 10_000), "the full run"),
    };
    let mut report = Report::new(&format!("Pruning under load, {how}"));
    let measured = runtime().block_on(async {
        figures(sizes, &mut report).await?;
        pace(sizes, &mut report).await
    });
    match measured {
        Ok(()) => {
            report.end();
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            say(&format!("WRONG: {wrong}"));
            ExitCode::FAILURE
        }
    }
}

/// What was submitted in windows of one kind.
#[derive(Default)]
struct Windows {
    jobs: u64,
    time: Duration,
    slowest: f64,
}

impl Windows {
    fn add(&mut self, jobs: u64, time: Duration) {
        let rate = jobs as f64 / time.as_secs_f64();
        self.slowest = if self.time.is_zero() { rate } else { self.slowest.min(rate) };
        self.jobs += jobs;
        self.time += time;
    }

    fn rate(&self) -> f64 {
        self.jobs as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let wrong = |error: hodei_core::Error| error.to_string();
    let directory = directory();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let given: Arc<ManualClock> = Arc::clone(&clock);
    let store = RedbStore::builder(directory.path().join("jobs")).clock(given).open().map_err(wrong)?;
    let before = store.stats();
    end(&store, sizes.ended).await.map_err(wrong)?;
    let rows = store.stats().rows_written - before.rows_written;
    clock.advance(AGES);
    let term = term(&store).await.map_err(wrong)?;

    let spec = Arc::new(typical_spec().build().map_err(wrong)?);
    let (submitted, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            tokio::spawn(submit(store.clone(), Arc::clone(&spec), Arc::clone(&submitted), Arc::clone(&over)))
        })
        .collect();
    let prunes = Arc::new(AtomicBool::new(false));
    let pruner = tokio::spawn(prune(store.clone(), term, Arc::clone(&prunes)));
    let (mut clean, mut pruning, mut warm) = (Windows::default(), Windows::default(), false);
    while !pruner.is_finished() {
        for on in [false, true] {
            prunes.store(on, Ordering::Release);
            let (at, since) = (Instant::now(), submitted.load(Ordering::Acquire));
            tokio::time::sleep(sizes.window * (1 + u32::from(on))).await;
            let (took, jobs) = (at.elapsed(), submitted.load(Ordering::Acquire) - since);
            // In the last window it may have ended; in the first the callers begin.
            match on {
                true if !pruner.is_finished() => pruning.add(jobs, took),
                false if warm => clean.add(jobs, took),
                _ => {}
            }
            warm = true;
        }
    }
    over.store(true, Ordering::Release);
    for caller in callers {
        caller.await.map_err(|error| error.to_string())?.map_err(wrong)?;
    }
    let (pruned, calls) = pruner.await.map_err(|error| error.to_string())?.map_err(wrong)?;
    let counts = store.counts(&Scope::All).await.map_err(wrong)?;
    if pruned != sizes.ended as u64 || counts.of(State::Cancelled) != 0 {
        return Err(format!("{pruned} of {} jobs were pruned", sizes.ended));
    }
    if counts.of(State::Pending) != submitted.load(Ordering::Acquire) {
        return Err("other jobs than were submitted".to_owned());
    }
    report.group("submitters while old jobs are pruned, synced before each is acknowledged");
    report.show("jobs pruned", pruned as f64, Unit::Plain);
    report.show("rows that they were written with", rows as f64, Unit::Plain);
    report.show("calls that pruned", calls as f64, Unit::Plain);
    report.show("seconds of windows with pruning", pruning.time.as_secs_f64(), Unit::Plain);
    report.show("submitted in windows without", clean.rate(), Unit::PerSecond);
    report.show("the slowest of them", clean.slowest, Unit::PerSecond);
    report.show("submitted in windows with", pruning.rate(), Unit::PerSecond);
    report.show("the slowest of them", pruning.slowest, Unit::PerSecond);
    report.judge("with / without", pruning.rate() / clean.rate(), Unit::Percent, Goal::AtLeast(0.95));
    Ok(())
}

/// How many jobs come in a second, and how many at a time.
const PACE: u32 = 3_000;
const TOGETHER: u32 = 100;

/// Whether as many jobs go as come, with their changes, while there is more than enough to be removed.
async fn pace(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let wrong = |error: hodei_core::Error| error.to_string();
    let directory = directory();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let given: Arc<ManualClock> = Arc::clone(&clock);
    let store = RedbStore::builder(directory.path().join("jobs")).clock(given).open().map_err(wrong)?;
    let enough = 4 * sizes.steady.as_millis() * u128::from(PACE) / 1_000;
    end(&store, usize::try_from(enough).unwrap_or(usize::MAX)).await.map_err(wrong)?;
    clock.advance(AGES);
    let term = term(&store).await.map_err(wrong)?;
    let retention = Retention { changes: 1_000, ..Retention::default() };
    let spec = Arc::new(typical_spec().build().map_err(wrong)?);
    let (submitted, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let caller = tokio::spawn({
        let (store, submitted, over) = (store.clone(), Arc::clone(&submitted), Arc::clone(&over));
        async move {
            let mut next = tokio::time::Instant::now();
            while !over.load(Ordering::Acquire) {
                let jobs = (0..TOGETHER).map(|_| NewJob::new(Arc::clone(&spec))).collect();
                store.submit(jobs, SubmitOptions::each()).await?;
                submitted.fetch_add(TOGETHER.into(), Ordering::AcqRel);
                next += Duration::from_secs(1) * TOGETHER / PACE;
                tokio::time::sleep_until(next).await;
            }
            Ok::<_, hodei_core::Error>(())
        }
    });
    let (began, mut jobs, mut changes) = (Instant::now(), 0, 0);
    while began.elapsed() < sizes.steady {
        let call = Instant::now();
        let pruned = store.prune(&term, retention, BATCH).await.map_err(wrong)?;
        (jobs, changes) = (jobs + pruned.jobs, changes + pruned.changes);
        tokio::time::sleep(call.elapsed() * PAUSE).await;
    }
    let (took, came) = (began.elapsed().as_secs_f64(), submitted.load(Ordering::Acquire));
    over.store(true, Ordering::Release);
    caller.await.map_err(|error| error.to_string())?.map_err(wrong)?;
    report.group("jobs that come at a steady pace, each of which will make four changes");
    report.show("submitted", came as f64 / took, Unit::PerSecond);
    report.judge("pruned / submitted", jobs as f64 / came as f64, Unit::Times, Goal::AtLeast(1.0));
    report.judge(
        "changes pruned / four of each",
        changes as f64 / (4 * came) as f64,
        Unit::Times,
        Goal::AtLeast(1.0),
    );
    Ok(())
}

/// Stores jobs that have ended.
async fn end(store: &RedbStore, n: usize) -> hodei_core::Result<()> {
    let spec = Arc::new(JobSpec::command(["/bin/true"]).build()?);
    for left in (0..n).rev().step_by(1_000) {
        let size = 1_000.min(left + 1);
        let jobs: Vec<NewJob> = (0..size).map(|_| NewJob::new(Arc::clone(&spec))).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        store.submit(jobs, SubmitOptions::each()).await?;
        store.request_cancel(&Scope::All, ids).await?;
    }
    Ok(())
}

async fn term(store: &RedbStore) -> hodei_core::Result<Term> {
    let owner = store.register(&OwnerId::new("node")?, AGES).await?;
    let term = store.take_term(&Name::literal("maintain"), &owner, AGES).await?;
    term.ok_or_else(|| hodei_core::Error::new(hodei_core::ErrorKind::Bug, "bench.term"))
}

async fn submit(
    store: RedbStore,
    spec: Arc<JobSpec>,
    submitted: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
) -> hodei_core::Result<()> {
    while !over.load(Ordering::Acquire) {
        let jobs = (0..EACH).map(|_| NewJob::new(Arc::clone(&spec))).collect();
        store.submit(jobs, SubmitOptions::each()).await?;
        submitted.fetch_add(EACH as u64, Ordering::AcqRel);
    }
    Ok(())
}

/// Prunes while it is let, until nothing is left; returns how many jobs went, in how many calls.
async fn prune(store: RedbStore, term: Term, on: Arc<AtomicBool>) -> hodei_core::Result<(u64, u64)> {
    let retention = Retention { changes: 1_000_000, ..Retention::default() };
    let (mut jobs, mut calls) = (0, 0);
    loop {
        while !on.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let began = Instant::now();
        let pruned = store.prune(&term, retention, BATCH).await?;
        jobs += pruned.jobs;
        calls += 1;
        // Changes come with every submission; when the jobs are gone it is over.
        if pruned.jobs == 0 {
            return Ok((jobs, calls));
        }
        tokio::time::sleep(began.elapsed() * PAUSE).await;
    }
}
