//! How a node and its store stand.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use futures_util::future::try_join5;
use hodei_core::Result;
use hodei_core::job::Priority;
use hodei_core::store::{LaneHead, LimitUse, Scope};
use hodei_core::{Name, Tenant};
use tokio::sync::oneshot;

use super::handle::Orchestrator;
use crate::driver::Message;
use crate::machine::{QueueLoad, Snapshot, StoreLoad};

/// So many limits are told at most.
const LIMITS_MAX: usize = 1_000;

impl Orchestrator {
    /// Says how the node stands: its workers, what they run, and what waits for them; and how its store does, which is the same
    /// for all nodes on it: what is ready by tenant, queue and level, how old that is, which limits are in use,
    /// and which dispatchers of which nodes are alive and lead.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the node has stopped. A store that does not answer is no error: then it says nothing.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    ///
    /// # Performance
    ///
    /// Looks at each job that the node's workers have, at each lane with ready work and at each limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use hodei_core::job::{JobSpec, NewJob};
    /// use hodei_sched::Orchestrator;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> hodei_core::Result<()> {
    /// let orchestrator = Orchestrator::builder().start().await?;
    /// orchestrator.submit(NewJob::new(JobSpec::command(["true"]).queue("mail").build()?)).await?;
    /// let store = orchestrator.snapshot().await?.store.unwrap_or_default();
    /// assert_eq!((store.queues[0].queue.as_str(), store.queues[0].jobs), ("mail", 1));
    /// assert_eq!(store.owners.len(), 1);
    /// # Ok(()) }
    /// ```
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let mut all: Option<Snapshot> = None;
        for driver in self.drivers() {
            let (reply, snapshot) = oneshot::channel();
            if driver.send(Message::Snapshot(reply)).await.is_ok()
                && let Ok(snapshot) = snapshot.await
            {
                all = Some(all.map_or_else(|| snapshot.clone(), |all| all.with(snapshot.clone())));
            }
        }
        let mut all = all.ok_or_else(|| super::handle::stopped("orchestrator.snapshot"))?;
        all.store = self.store_load().await.ok();
        Ok(all)
    }

    async fn store_load(&self) -> Result<StoreLoad> {
        let store = self.store();
        let (now, owners, counts, lanes, limits) = try_join5(
            store.now(),
            store.owners(),
            store.counts(&Scope::All),
            store.lanes(self.served()),
            store.limits(&Scope::All),
        )
        .await?;
        let (queues, limits) = (by_queue(lanes.heads), fullest(limits));
        Ok(StoreLoad { now, owners, counts, queues, limits, next_due: lanes.next_due })
    }
}

/// Adds up the lanes of a queue at a level.
fn by_queue(heads: Vec<LaneHead>) -> Vec<QueueLoad> {
    let mut queues: BTreeMap<(Reverse<Priority>, Tenant, Name), QueueLoad> = BTreeMap::new();
    for LaneHead { lane, level, depth, eligible_at, .. } in heads {
        let place = (Reverse(level), lane.tenant.clone(), lane.queue.clone());
        let load = queues.entry(place).or_insert_with(|| QueueLoad {
            tenant: lane.tenant,
            queue: lane.queue,
            level,
            jobs: 0,
            since: eligible_at,
        });
        load.jobs += depth;
        load.since = load.since.min(eligible_at);
    }
    queues.into_values().collect()
}

fn fullest(mut limits: Vec<LimitUse>) -> Vec<LimitUse> {
    limits.retain(|limit| limit.in_use > 0);
    let free = |limit: &LimitUse| {
        // In thousandths, so that large and small ones compare.
        u64::from(limit.limit.max.saturating_sub(limit.in_use)) * 1_000 / u64::from(limit.limit.max.max(1))
    };
    limits.sort_by_key(free);
    limits.truncate(LIMITS_MAX);
    limits
}
