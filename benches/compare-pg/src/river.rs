//! The load on riverqueue 0.5: 1,000 workers, the shortest pause between fetches that it allows.

use std::sync::Arc;
use std::time::Duration;

use hodei_benches::load::Marks;
use riverqueue::migrate::PostgresMigrator;
use riverqueue::{BoxError, Client, Job, JobArgs, QueueConfig, RunHandle, WorkContext, WorkOutcome, Workers};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::peer::{Peer, Result};

/// How many jobs run at once.
const WORKERS: usize = 1_000;
/// How long it waits between two fetches.
const PAUSE: Duration = Duration::from_millis(1);
/// Connections at most.
const CONNECTIONS: u32 = 16;

#[derive(Clone, Debug, Deserialize, JobArgs, Serialize)]
#[river(kind = "noop")]
struct Numbered {
    n: usize,
}

/// The engine.
#[derive(Clone)]
pub(crate) struct River {
    pool: PgPool,
    submitter: Client,
}

impl Peer for River {
    type Workers = RunHandle;

    async fn open(url: &str) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(url).await?;
        PostgresMigrator::new(pool.clone()).migrate_up().await?;
        Ok(Self { submitter: Client::builder(pool.clone()).build()?, pool })
    }

    async fn submit(&self, n: usize) -> Result<()> {
        self.submitter.insert(Numbered { n }).await?;
        Ok(())
    }

    async fn submit_many(&self, jobs: std::ops::Range<usize>) -> Result<()> {
        self.submitter.insert_many(jobs.map(|n| Numbered { n })).await?;
        Ok(())
    }

    async fn start(&self, marks: Arc<Marks>) -> Result<RunHandle> {
        let mut workers = Workers::new();
        workers.add_fn(move |_: WorkContext, job: Job<Numbered>| {
            marks.mark(job.args.n);
            async { Ok::<_, BoxError>(WorkOutcome::Complete) }
        })?;
        let client = Client::builder(self.pool.clone())
            .workers(workers)
            .queue(
                "default",
                QueueConfig::new(WORKERS).with_fetch_cooldown(PAUSE).with_fetch_poll_interval(PAUSE),
            )
            .build()?;
        Ok(client.start()?)
    }

    async fn settled(&self, _: usize) -> Result<usize> {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM river_job WHERE state = 'completed'");
        Ok(usize::try_from(count.fetch_one(&self.pool).await?)?)
    }

    async fn stop(&self, mut running: RunHandle) -> Result<()> {
        Ok(running.stop().await?)
    }

    async fn waiting(&self) -> Result<usize> {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM river_job WHERE state = 'available'");
        Ok(usize::try_from(count.fetch_one(&self.pool).await?)?)
    }

    async fn close(self) {
        self.pool.close().await;
    }
}
