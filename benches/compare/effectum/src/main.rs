//! Runs a load on effectum and prints its rates: `hodei-compare-effectum (shipped|wal) DRAIN SINGLE CALLERS EACH BULK`.
//!
//! Settings: one worker that runs 512 jobs at once and asks for more below 256 (`max_concurrency`, `min_concurrency`),
//! which is how its documentation says that throughput is had. Its writer batches up to 50 calls by itself.
//!
//! `shipped` takes it as it is: its pragma for the write-ahead log is misspelt (`journal`), so that SQLite keeps a
//! rollback journal. `wal` gives it a file that is in that mode already, which is what its authors meant.

#[path = "../../../load.rs"]
mod load;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use effectum::{Job, JobRunner, Queue, RunningJob, Worker};
use load::{BATCH, Load, Marks, Rates, per_second};
use rusqlite::Connection;

/// How many jobs run at once.
const AT_ONCE: u16 = 512;
/// How long the queue may take to close.
const CLOSING: Duration = Duration::from_secs(60);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    match rates() {
        Ok(rates) => {
            println!("{rates}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("effectum: {error}");
            ExitCode::FAILURE
        }
    }
}

fn rates() -> Result<Rates> {
    let mut args = std::env::args().skip(1);
    let wal = match args.next().as_deref() {
        Some("shipped") => false,
        Some("wal") => true,
        other => return Err(format!("`shipped` or `wal` expected, not {other:?}").into()),
    };
    let load: Load = args.collect::<Vec<_>>().join(" ").parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let drain = in_new_file(wal, async |queue| drain(queue, load.drain).await).await?;
        let single = in_new_file(wal, async |queue| single(queue, load.single).await).await?;
        let concurrent = in_new_file(wal, async |queue| concurrent(queue, load).await).await?;
        let bulk = in_new_file(wal, async |queue| bulk(queue, load.bulk).await).await?;
        Ok(Rates { drain, single, concurrent, bulk })
    })
}

/// What was done, in which time, and how many jobs must be in the file afterwards, in which state.
struct Done {
    jobs: usize,
    took: Duration,
    state: &'static str,
}

/// Measures on a new file, then counts what is in it.
async fn in_new_file(wal: bool, measure: impl AsyncFnOnce(&Arc<Queue>) -> Result<Done>) -> Result<f64> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("effectum.sqlite");
    if wal {
        keep_a_log(&path)?;
    }
    let queue = Arc::new(Queue::new(&path).await?);
    let done = measure(&queue).await?;
    queue.close(CLOSING).await?;
    let stored = stored(&path, done.state)?;
    if stored != done.jobs {
        return Err(format!("{stored} of {} jobs are {} in its file", done.jobs, done.state).into());
    }
    Ok(per_second(done.jobs, done.took))
}

/// Makes a file that keeps a write-ahead log from now on.
fn keep_a_log(path: &Path) -> Result<()> {
    let mode: String =
        Connection::open(path)?.query_row("PRAGMA journal_mode = wal", [], |row| row.get(0))?;
    if mode == "wal" { Ok(()) } else { Err(format!("the journal stays `{mode}`").into()) }
}

/// Counts the jobs of a state in the file, and none where there are others beside them.
fn stored(path: &Path, state: &str) -> Result<usize> {
    let count =
        "SELECT count(*) FROM jobs WHERE status = ?1 AND (SELECT count(*) FROM jobs WHERE status <> ?1) = 0";
    Ok(Connection::open(path)?.query_row(count, [state], |row| row.get::<_, usize>(0))?)
}

fn job(n: usize) -> Result<Job> {
    Ok(Job::builder("noop").json_payload(&n)?.build())
}

async fn noop(job: RunningJob, marks: Arc<Marks>) -> std::result::Result<(), effectum::Error> {
    marks.mark(job.json_payload()?);
    Ok(())
}

async fn fill(queue: &Queue, n: usize) -> Result<()> {
    for start in (0..n).step_by(BATCH) {
        let batch: Result<Vec<Job>> = (start..n.min(start + BATCH)).map(job).collect();
        queue.add_jobs(batch?).await?;
    }
    Ok(())
}

async fn drain(queue: &Queue, n: usize) -> Result<Done> {
    fill(queue, n).await?;
    let marks = Arc::new(Marks::new(n));
    let start = Instant::now();
    let worker = Worker::builder(queue, Arc::clone(&marks))
        .max_concurrency(AT_ONCE)
        .min_concurrency(AT_ONCE / 2)
        .jobs([JobRunner::builder("noop", noop).build()])
        .build()
        .await?;
    marks.all().await;
    // A job counts as finished when its end is committed.
    while worker.counts().finished < n as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = start.elapsed();
    worker.unregister(None).await?;
    marks.check()?;
    Ok(Done { jobs: n, took, state: "succeeded" })
}

async fn single(queue: &Queue, n: usize) -> Result<Done> {
    let start = Instant::now();
    for n in 0..n {
        queue.add_job(job(n)?).await?;
    }
    Ok(Done { jobs: n, took: start.elapsed(), state: "pending" })
}

async fn concurrent(queue: &Arc<Queue>, load: Load) -> Result<Done> {
    let start = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..load.callers {
        let queue = Arc::clone(queue);
        callers.spawn(async move { single(&queue, load.each).await });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(Done { jobs: load.callers * load.each, took: start.elapsed(), state: "pending" })
}

async fn bulk(queue: &Queue, n: usize) -> Result<Done> {
    let start = Instant::now();
    fill(queue, n).await?;
    Ok(Done { jobs: n, took: start.elapsed(), state: "pending" })
}
