//! The load on graphile_worker 0.14: its own local queue, 500 jobs at once, completions written every 5 ms.
//!
//! It deletes the rows of what it completed and records nothing of it.

use std::sync::Arc;
use std::time::Duration;

use graphile_worker::{
    Database, IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, Worker,
    WorkerContext, WorkerOptions, WorkerUtils,
};
use hodei_benches::load::Marks;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinHandle;

use crate::peer::{Peer, Result};

const SCHEMA: &str = "graphile_worker";
/// How many jobs run at once.
const CONCURRENCY: usize = 500;
/// How often the queue is filled, and how long completions are gathered.
const DELAY: Duration = Duration::from_millis(5);
/// Connections at most.
const CONNECTIONS: u32 = 16;

#[derive(Clone, Debug)]
struct Marker(Arc<Marks>);

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Numbered {
    n: usize,
}

impl TaskHandler for Numbered {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        if let Some(marker) = context.get_ext::<Marker>() {
            marker.0.mark(self.n);
        }
        Ok::<(), String>(())
    }
}

/// The engine, with a local queue of so many jobs.
#[derive(Clone)]
pub(crate) struct Graphile<const LOCAL: usize> {
    pool: PgPool,
    utils: Arc<WorkerUtils>,
}

impl<const LOCAL: usize> Peer for Graphile<LOCAL> {
    type Workers = (Arc<Worker>, JoinHandle<Result<()>>);

    async fn open(url: &str) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(url).await?;
        let utils = WorkerUtils::new(Database::from(pool.clone()), SCHEMA);
        utils.migrate().await?;
        Ok(Self { pool, utils: Arc::new(utils) })
    }

    async fn submit(&self, n: usize) -> Result<()> {
        self.utils.add_job(Numbered { n }, JobSpec::default()).await?;
        Ok(())
    }

    async fn submit_many(&self, jobs: std::ops::Range<usize>) -> Result<()> {
        let spec = |n| RawJobSpec {
            identifier: Numbered::IDENTIFIER.to_owned(),
            payload: serde_json::json!({ "n": n }),
            spec: JobSpec::default(),
        };
        self.utils.add_raw_jobs(&jobs.map(spec).collect::<Vec<_>>()).await?;
        Ok(())
    }

    async fn start(&self, marks: Arc<Marks>) -> Result<Self::Workers> {
        let worker = WorkerOptions::default()
            .database(Database::from(self.pool.clone()))
            .schema(SCHEMA)
            .concurrency(CONCURRENCY)
            .poll_interval(DELAY)
            .complete_job_batch_delay(DELAY)
            .local_queue(LocalQueueConfig::default().with_size(LOCAL))
            .listen_os_shutdown_signals(false)
            .add_extension(Marker(marks))
            .define_job::<Numbered>()
            .init()
            .await?;
        let worker = Arc::new(worker);
        let running = Arc::clone(&worker);
        Ok((worker, tokio::spawn(async move { running.run().await.map_err(Into::into) })))
    }

    async fn settled(&self, n: usize) -> Result<usize> {
        Ok(n - self.waiting().await?)
    }

    async fn stop(&self, (worker, running): Self::Workers) -> Result<()> {
        worker.request_shutdown();
        running.await?
    }

    async fn waiting(&self) -> Result<usize> {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM graphile_worker._private_jobs");
        Ok(usize::try_from(count.fetch_one(&self.pool).await?)?)
    }

    async fn close(self) {
        self.pool.close().await;
    }
}
