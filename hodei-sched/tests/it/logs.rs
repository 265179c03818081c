//! Logs go with their jobs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::job::{JobSpec, NewJob};
use hodei_core::log::{LogKey, LogRead, LogReader, LogStore};
use hodei_core::store::{MemoryStore, Retention, Store};
use hodei_core::{Error, ErrorKind, JobId, ManualClock, Result, Tenant, Timestamp};
use hodei_sched::Orchestrator;
use tokio::sync::mpsc;

/// Logs that tell what they are to forget.
#[derive(Debug)]
struct Told(mpsc::UnboundedSender<Vec<(Tenant, JobId)>>);

#[async_trait]
impl LogReader for Told {
    async fn read(&self, _: &LogKey, _: u64, _: usize) -> Result<LogRead> {
        Err(Error::new(ErrorKind::NotFound, "log.read"))
    }

    async fn follow(&self, _: &LogKey, _: u64, _: usize) -> Result<LogRead> {
        Err(Error::new(ErrorKind::NotFound, "log.follow"))
    }
}

#[async_trait]
impl LogStore for Told {
    async fn forget(&self, jobs: Vec<(Tenant, JobId)>) -> Result<()> {
        // The others are to be told all the same.
        drop(self.0.send(jobs));
        Err(Error::new(ErrorKind::Io, "log.forget"))
    }
}

#[tokio::test(start_paused = true)]
async fn the_logs_of_a_job_that_retention_removes_are_forgotten() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_750_000_000_000_000)));
    let store = Arc::new(MemoryStore::with_clock(Arc::<ManualClock>::clone(&clock)));
    let retention = Retention { jobs: Retention::KEYS_MIN, ..Retention::default() };
    let hodei = Orchestrator::builder().shared_store(Arc::clone(&store) as Arc<dyn Store>);
    let hodei = hodei.retention(retention).start().await.unwrap();
    let job = || NewJob::new(JobSpec::command(["true"]).build().expect("a valid spec"));
    let (old, open) = (job(), job());
    hodei.submit(old.clone()).await.unwrap();
    hodei.submit(open).await.unwrap();
    hodei.cancel(old.id).await.unwrap();

    let (first, mut first_told) = mpsc::unbounded_channel();
    let (second, mut second_told) = mpsc::unbounded_channel();
    let kept = [first, second].map(|told| Arc::new(Told(told)) as Arc<dyn LogStore>);
    let (gone, mut gone_told) = mpsc::unbounded_channel();
    let gone = Arc::new(Told(gone)) as Arc<dyn LogStore>;
    kept.iter().chain([&gone]).for_each(|logs| hodei.prune_logs(logs));
    drop(gone);
    clock.advance(Retention::KEYS_MIN + Duration::from_secs(1));
    for told in [&mut first_told, &mut second_told] {
        assert_eq!(told.recv().await, Some(vec![(Tenant::default(), old.id)]));
    }
    assert_eq!(gone_told.recv().await, None, "the node does not keep the logs of others");
    hodei.shutdown().await;
}
