//! The load on apalis-postgres 1.0: four workers that each fetch 500 jobs at once.

use std::sync::Arc;
use std::time::Duration;

use apalis::prelude::{BackendExt as _, Data, TaskSink as _, WorkerBuilder};
use apalis_postgres::{Config, PostgresStorage};
use hodei_benches::load::Marks;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;

use crate::peer::{Peer, Result};

const WORKERS: usize = 4;
/// How many tasks each fetches at once.
const FETCHED: usize = 500;
/// How often an idle worker looks again.
const IDLE: Duration = Duration::from_millis(1);
/// Connections at most.
const CONNECTIONS: u32 = 16;

/// The engine.
#[derive(Clone)]
pub(crate) struct Apalis {
    pool: PgPool,
}

impl Apalis {
    fn storage(&self) -> PostgresStorage<usize> {
        let config =
            Config { batch_size: FETCHED, lock_tasks: false, queue: "noop".into(), ..Config::default() };
        PostgresStorage::new(&self.pool).with_config(config)
    }

    async fn count(&self, state: &str) -> Result<usize> {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM apalis.jobs WHERE status = $1");
        Ok(usize::try_from(count.bind(state).fetch_one(&self.pool).await?)?)
    }
}

async fn noop(n: usize, marks: Data<Arc<Marks>>) {
    marks.mark(n);
}

impl Peer for Apalis {
    type Workers = JoinSet<()>;

    async fn open(url: &str) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(url).await?;
        PostgresStorage::setup(&pool).await?;
        Ok(Self { pool })
    }

    async fn submit(&self, n: usize) -> Result<()> {
        self.storage().push(n).await?;
        Ok(())
    }

    async fn submit_many(&self, jobs: std::ops::Range<usize>) -> Result<()> {
        self.storage().push_bulk(jobs.collect()).await?;
        Ok(())
    }

    async fn start(&self, marks: Arc<Marks>) -> Result<JoinSet<()>> {
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let worker = WorkerBuilder::new(format!("worker-{worker}"))
                .backend(self.storage().poll_with_interval(IDLE))
                .data(Arc::clone(&marks))
                .build(noop);
            workers.spawn(async move {
                // A worker that ends early leaves jobs behind, and the drain does not end.
                drop(worker.run().await);
            });
        }
        Ok(workers)
    }

    async fn settled(&self, _: usize) -> Result<usize> {
        self.count("Done").await
    }

    async fn stop(&self, mut workers: JoinSet<()>) -> Result<()> {
        workers.shutdown().await;
        Ok(())
    }

    async fn waiting(&self) -> Result<usize> {
        self.count("Pending").await
    }

    async fn close(self) {
        self.pool.close().await;
    }
}
