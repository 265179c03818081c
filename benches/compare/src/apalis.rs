//! The load on apalis-sqlite 1.0.
//!
//! Settings: its own `setup` (write-ahead log, `synchronous = OFF`: what it acknowledges may be lost with the power), 128
//! workers, a batch of 100 rather than 10, since "larger batches can improve throughput", and no second lock of a task
//! that was locked when it was fetched (`lock_tasks(false)`). With one worker, whatever its batch, it drained 200 to 400
//! jobs a second, and fewer the longer it ran: to write an end it looks through all tasks that the worker ever had.
//! The pool has one connection: its pragmas hold for the connection that they were said to, SQLite writes one at a
//! time anyway, and with four connections fetches failed as `database is locked`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apalis::prelude::{BackendExt as _, Data, TaskSink as _, WorkerBuilder};
use apalis_sqlite::{Config, SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteStorage};
use hodei_benches::load::{BATCH, Load, Marks, Rates, per_second};
use tokio::task::JoinSet;

/// How many workers there are.
const WORKERS: usize = 128;
/// How many tasks each fetches at once.
const FETCHED: usize = 100;
/// How often an idle worker looks again.
const IDLE: Duration = Duration::from_millis(1);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What was done, in which time, and how many jobs must be in the file afterwards, in which state.
struct Done {
    jobs: usize,
    took: Duration,
    state: &'static str,
}

/// Measures the whole load, each part on a new file.
pub(crate) async fn rates(directory: &Path, load: Load) -> Result<Rates> {
    let at = |name: &str| directory.join(name);
    Ok(Rates {
        drain: in_new_file(&at("drain"), async |pool| drain(pool, load.drain).await).await?,
        single: in_new_file(&at("single"), async |pool| single(pool, load.single).await).await?,
        concurrent: in_new_file(&at("concurrent"), async |pool| concurrent(pool, load).await).await?,
        bulk: in_new_file(&at("bulk"), async |pool| bulk(pool, load.bulk).await).await?,
    })
}

async fn in_new_file(file: &Path, measure: impl AsyncFnOnce(&SqlitePool) -> Result<Done>) -> Result<f64> {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    SqliteStorage::setup(&pool).await?;
    let done = measure(&pool).await?;
    let (all, right) = (count(&pool, "%").await?, count(&pool, done.state).await?);
    pool.close().await;
    if (all, right) != (done.jobs, done.jobs) {
        return Err(format!("{right} of {all} jobs are {}, not {}", done.state, done.jobs).into());
    }
    Ok(per_second(done.jobs, done.took))
}

async fn count(pool: &SqlitePool, state: &str) -> Result<usize> {
    let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM Jobs WHERE status LIKE ?1");
    Ok(usize::try_from(count.bind(state).fetch_one(pool).await?)?)
}

fn storage(pool: &SqlitePool) -> SqliteStorage<usize> {
    let config = Config::default().queue("noop").batch_size(FETCHED).lock_tasks(false);
    SqliteStorage::new(pool).with_config(config)
}

async fn noop(n: usize, marks: Data<Arc<Marks>>) {
    marks.mark(n);
}

async fn fill(pool: &SqlitePool, n: usize) -> Result<()> {
    let mut storage = storage(pool);
    for start in (0..n).step_by(BATCH) {
        storage.push_bulk((start..n.min(start + BATCH)).collect()).await?;
    }
    Ok(())
}

async fn drain(pool: &SqlitePool, n: usize) -> Result<Done> {
    fill(pool, n).await?;
    let marks = Arc::new(Marks::new(n));
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let worker = WorkerBuilder::new(format!("worker-{worker}"))
            .backend(storage(pool).poll_with_interval(IDLE))
            .data(Arc::clone(&marks))
            .build(noop);
        workers.spawn(worker.run());
    }
    tokio::select! {
        settled = settled(pool, &marks, n) => settled?,
        ended = workers.join_next() => return Err(format!("a worker ended: {ended:?}").into()),
    }
    let took = start.elapsed();
    workers.shutdown().await;
    marks.check()?;
    Ok(Done { jobs: n, took, state: "Done" })
}

/// Waits until all jobs have run, and then until all ends are written.
async fn settled(pool: &SqlitePool, marks: &Marks, n: usize) -> Result<()> {
    marks.all().await;
    while count(pool, "Done").await? < n {
        tokio::time::sleep(IDLE).await;
    }
    Ok(())
}

async fn single(pool: &SqlitePool, n: usize) -> Result<Done> {
    let mut storage = storage(pool);
    let start = Instant::now();
    for n in 0..n {
        storage.push(n).await?;
    }
    Ok(Done { jobs: n, took: start.elapsed(), state: "Pending" })
}

async fn concurrent(pool: &SqlitePool, load: Load) -> Result<Done> {
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..load.callers {
        let pool = pool.clone();
        callers.spawn(async move { single(&pool, load.each).await });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(Done { jobs: load.callers * load.each, took: start.elapsed(), state: "Pending" })
}

async fn bulk(pool: &SqlitePool, n: usize) -> Result<Done> {
    let start = Instant::now();
    fill(pool, n).await?;
    Ok(Done { jobs: n, took: start.elapsed(), state: "Pending" })
}
