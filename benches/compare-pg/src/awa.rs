//! The load on awa 0.6: 256 workers, its default storage, bulk submissions by COPY.

use std::sync::Arc;
use std::time::Duration;

use awa::{
    Client, InsertOpts, InsertParams, JobArgs, JobResult, QueueConfig, QueueStorage, QueueStorageConfig,
};
use hodei_benches::load::Marks;
use serde::{Deserialize, Serialize};
use sqlx_awa::PgPool;
use sqlx_awa::postgres::PgPoolOptions;

use crate::peer::{Peer, Result};

const QUEUE: &str = "noop";
/// How many jobs run at once.
const WORKERS: u32 = 256;
/// How many are claimed at once at most.
const CLAIMED: usize = 512;
/// How often an idle worker looks again.
const IDLE: Duration = Duration::from_millis(1);
/// Connections at most.
const CONNECTIONS: u32 = 20;
/// How long it may take to stop.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Deserialize, JobArgs, Serialize)]
struct Numbered {
    n: usize,
}

/// The engine.
#[derive(Clone)]
pub(crate) struct Awa {
    pool: PgPool,
    storage: Arc<QueueStorage>,
}

fn params(n: usize) -> Result<InsertParams> {
    let opts = InsertOpts { queue: QUEUE.to_owned(), ..InsertOpts::default() };
    Ok(InsertParams { kind: Numbered::kind().to_owned(), args: serde_json::to_value(Numbered { n })?, opts })
}

impl Peer for Awa {
    type Workers = Client;

    async fn open(url: &str) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(url).await?;
        // Its future is not `Send`: it is driven on a thread of its own.
        let (migrated, runtime) = (pool.clone(), tokio::runtime::Handle::current());
        tokio::task::spawn_blocking(move || runtime.block_on(awa::migrations::run(&migrated))).await??;
        let storage = Arc::new(QueueStorage::new(QueueStorageConfig::default())?);
        storage.install(&pool).await?;
        Ok(Self { pool, storage })
    }

    async fn submit(&self, n: usize) -> Result<()> {
        let opts = InsertOpts { queue: QUEUE.to_owned(), ..InsertOpts::default() };
        awa::insert_with(&self.pool, &Numbered { n }, opts).await?;
        Ok(())
    }

    async fn submit_many(&self, jobs: std::ops::Range<usize>) -> Result<()> {
        let jobs = jobs.map(params).collect::<Result<Vec<_>>>()?;
        self.storage.enqueue_params_copy(&self.pool, &jobs).await?;
        Ok(())
    }

    async fn start(&self, marks: Arc<Marks>) -> Result<Client> {
        let config = QueueConfig {
            max_workers: WORKERS,
            poll_interval: IDLE,
            claim_batch_size: CLAIMED,
            ..QueueConfig::default()
        };
        let client = Client::builder(self.pool.clone())
            .queue(QUEUE, config)
            .register::<Numbered, _, _>(move |job, _| {
                marks.mark(job.n);
                async { Ok(JobResult::Completed) }
            })
            .build()?;
        client.start().await?;
        Ok(client)
    }

    async fn settled(&self, n: usize) -> Result<usize> {
        let counts = self.storage.queue_counts(&self.pool, QUEUE).await?;
        Ok(n.min(usize::try_from(counts.terminal)?))
    }

    async fn stop(&self, client: Client) -> Result<()> {
        client.shutdown(GRACE).await;
        Ok(())
    }

    async fn waiting(&self) -> Result<usize> {
        Ok(usize::try_from(self.storage.queue_counts(&self.pool, QUEUE).await?.available)?)
    }

    async fn close(self) {
        self.pool.close().await;
    }
}
