//! What is asked of every engine alike, on a new database for each part.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hodei_benches::load::{BATCH, Load, Marks, Rates, per_second};
use hodei_test_servers::{Database, Postgres};
use tokio::task::JoinSet;

/// What can go wrong with an engine.
pub(crate) type Wrong = Box<dyn std::error::Error + Send + Sync>;
/// What an engine gives back.
pub(crate) type Result<T> = std::result::Result<T, Wrong>;

/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// How long a drain may take at most.
const PATIENCE: Duration = Duration::from_secs(180);

/// An engine that takes numbered no-op jobs and runs them.
pub(crate) trait Peer: Clone + Send + Sync + Sized + 'static {
    /// What keeps the workers running.
    type Workers: Send;

    /// Installs its schema into an empty database.
    fn open(url: &str) -> impl Future<Output = Result<Self>> + Send;
    /// Submits one job.
    fn submit(&self, n: usize) -> impl Future<Output = Result<()>> + Send;
    /// Submits many at once, in the fastest way that it documents.
    fn submit_many(&self, jobs: std::ops::Range<usize>) -> impl Future<Output = Result<()>> + Send;
    /// Starts workers that mark every job.
    fn start(&self, marks: Arc<Marks>) -> impl Future<Output = Result<Self::Workers>> + Send;
    /// Counts the jobs whose end is written, out of n.
    fn settled(&self, n: usize) -> impl Future<Output = Result<usize>> + Send;
    /// Stops the workers.
    fn stop(&self, workers: Self::Workers) -> impl Future<Output = Result<()>> + Send;
    /// Counts the jobs that wait.
    fn waiting(&self) -> impl Future<Output = Result<usize>> + Send;
    /// Closes the connections.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// What a drain cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Drained {
    /// Jobs a second.
    pub(crate) rate: f64,
    /// Bytes of the write-ahead log a job, from its submission in bulk to its end.
    pub(crate) wal: f64,
}

/// Preloads n jobs, then drains them.
pub(crate) async fn drain<P: Peer>(server: &Postgres, n: usize) -> Result<Drained> {
    let database = server.database()?;
    let peer = P::open(&database.url()).await?;
    let before = position(server, &database)?;
    fill(&peer, n).await?;
    let marks = Arc::new(Marks::new(n));
    let start = Instant::now();
    let workers = peer.start(Arc::clone(&marks)).await?;
    tokio::time::timeout(PATIENCE, ended(&peer, &marks, n)).await.map_err(|_| "the drain does not end")??;
    let took = start.elapsed();
    let wal = position(server, &database)?.saturating_sub(before);
    peer.stop(workers).await?;
    peer.close().await;
    marks.check()?;
    Ok(Drained { rate: per_second(n, took), wal: wal as f64 / n as f64 })
}

/// Waits until all jobs have run, and then until all ends are written.
async fn ended<P: Peer>(peer: &P, marks: &Marks, n: usize) -> Result<()> {
    marks.all().await;
    while peer.settled(n).await? < n {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Returns where the write-ahead log is, in bytes.
fn position(server: &Postgres, database: &Database) -> Result<u64> {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
    Ok(server.sql(database.name(), sql)?.trim().parse()?)
}

async fn fill<P: Peer>(peer: &P, n: usize) -> Result<()> {
    for start in (0..n).step_by(BATCH) {
        peer.submit_many(start..n.min(start + BATCH)).await?;
    }
    Ok(())
}

/// Measures the three ways to submit. The drain is left at zero.
pub(crate) async fn submissions<P: Peer>(server: &Postgres, load: Load) -> Result<Rates> {
    Ok(Rates {
        drain: 0.0,
        single: in_new_database::<P>(server, load.single, async |peer| one_by_one(&peer, load.single).await)
            .await?,
        concurrent: {
            let n = load.callers * load.each;
            in_new_database::<P>(server, n, async |peer| side_by_side(&peer, load).await).await?
        },
        bulk: in_new_database::<P>(server, load.bulk, async |peer| fill(&peer, load.bulk).await).await?,
    })
}

async fn in_new_database<P: Peer>(
    server: &Postgres,
    n: usize,
    measure: impl AsyncFnOnce(P) -> Result<()>,
) -> Result<f64> {
    let database = server.database()?;
    let peer = P::open(&database.url()).await?;
    let start = Instant::now();
    measure(peer.clone()).await?;
    let took = start.elapsed();
    let waiting = peer.waiting().await?;
    peer.close().await;
    if waiting == n { Ok(per_second(n, took)) } else { Err(format!("{waiting} jobs wait, not {n}").into()) }
}

async fn one_by_one<P: Peer>(peer: &P, n: usize) -> Result<()> {
    for n in 0..n {
        peer.submit(n).await?;
    }
    Ok(())
}

async fn side_by_side<P: Peer>(peer: &P, load: Load) -> Result<()> {
    let mut callers = JoinSet::new();
    for _ in 0..load.callers {
        let peer = peer.clone();
        callers.spawn(async move { one_by_one(&peer, load.each).await });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(())
}
