//! Logs go with their jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::checkpoint::{CheckpointStore, MemoryCheckpoints};
use hodei_core::job::{Epoch, JobSpec, Lease, NewJob};
use hodei_core::log::{LogKey, LogRead, LogReader, LogStore};
use hodei_core::store::{JobStore, MemoryStore, Retention, Scope, Shard, Store, SubmitOptions};
use hodei_core::{Error, ErrorKind, JobId, ManualClock, OwnerId, Result, Tenant, Timestamp};
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

/// Logs on a slow disk: what it is told first is forgotten after a while, and what comes then never.
#[derive(Debug)]
struct Slow(mpsc::UnboundedSender<usize>, AtomicBool);

#[async_trait]
impl LogReader for Slow {
    async fn read(&self, _: &LogKey, _: u64, _: usize) -> Result<LogRead> {
        Err(Error::new(ErrorKind::NotFound, "log.read"))
    }

    async fn follow(&self, _: &LogKey, _: u64, _: usize) -> Result<LogRead> {
        Err(Error::new(ErrorKind::NotFound, "log.follow"))
    }
}

#[async_trait]
impl LogStore for Slow {
    async fn forget(&self, jobs: Vec<(Tenant, JobId)>) -> Result<()> {
        let _ = self.0.send(jobs.len());
        if self.1.swap(true, Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(1_900)).await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn slow_logs_do_not_hold_up_the_beats() {
    const TTL: Duration = Duration::from_secs(1_000_000);
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_750_000_000_000_000)));
    let store = Arc::new(MemoryStore::with_clock(Arc::<ManualClock>::clone(&clock)));
    let retention = Retention { jobs: Retention::KEYS_MIN, ..Retention::default() };
    let hodei = Orchestrator::builder().shared_store(Arc::clone(&store) as Arc<dyn Store>).node("node");
    let hodei = hodei.retention(retention).heartbeat(Duration::from_secs(2), TTL).start().await.unwrap();
    let spec = Arc::new(JobSpec::command(["true"]).build().expect("a valid spec"));
    let jobs: Vec<_> = (0..1_001).map(|_| NewJob::new(Arc::clone(&spec))).collect();
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    store.submit(jobs, SubmitOptions::each()).await.unwrap();
    store.request_cancel(&Scope::All, ids).await.unwrap();
    let (told, mut slow) = mpsc::unbounded_channel();
    let logs = Arc::new(Slow(told, AtomicBool::default())) as Arc<dyn LogStore>;
    hodei.prune_logs(&logs);
    clock.advance(Retention::KEYS_MIN + Duration::from_secs(1));
    assert_eq!((slow.recv().await, slow.recv().await), (Some(1_000), Some(1)));
    // 1.9 s after the last beat. A tenth of a second more for the logs, and two seconds to the next beat.
    let node = Lease { owner: OwnerId::new("node").expect("a name"), incarnation: 1 };
    clock.advance(Duration::from_secs(1));
    let life = store.owner_life(&node).await.unwrap();
    assert_eq!(life, Some(TTL - Duration::from_secs(1)), "it has not beaten");
    tokio::time::sleep(Duration::from_millis(2_150)).await;
    assert_eq!(store.owner_life(&node).await.unwrap(), Some(TTL), "it has beaten");
    hodei.shutdown().await;
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
    let checkpoints = Arc::new(MemoryCheckpoints::new()) as Arc<dyn CheckpointStore>;
    checkpoints.save(&Tenant::default(), old.id, Epoch::default(), "half".into()).await.unwrap();
    hodei.prune_checkpoints(&checkpoints);
    let (gone, mut gone_told) = mpsc::unbounded_channel();
    let gone = Arc::new(Told(gone)) as Arc<dyn LogStore>;
    kept.iter().chain([&gone]).for_each(|logs| hodei.prune_logs(logs));
    drop(gone);
    clock.advance(Retention::KEYS_MIN + Duration::from_secs(1));
    for told in [&mut first_told, &mut second_told] {
        assert_eq!(told.recv().await, Some(vec![(Tenant::default(), old.id)]));
    }
    while checkpoints.open(&Tenant::default(), old.id, Epoch::default()).await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(gone_told.recv().await, None, "the node does not keep the logs of others");
    hodei.shutdown().await;
}
