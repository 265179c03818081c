//! Looking at the load, deciding, and having it carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hodei_core::gateway::Offer;
use hodei_core::job::State;
use hodei_core::store::{
    Change, ChangeSink, Counts, Feed, LaneHead, Query, QueueQuery, Scope, Served, Store,
};
use hodei_core::{Name, Result, Timestamp};

use super::policy::{Autoscaler, Decision, Load};
use super::target::ScaleTarget;

/// Counts the jobs of a scope and of queues that end. What retention removes later has ended all the same.
#[derive(Debug)]
struct Ends {
    scope: Scope,
    served: Served,
    count: AtomicU64,
}

impl ChangeSink for Ends {
    fn committed(&self, changes: &[Change]) {
        // Of what another node did the log does not say in which queue.
        let is_served = |change: &Change| change.queue.as_ref().is_none_or(|queue| self.served.covers(queue));
        let ended = |change: &&Change| {
            change.to.is_terminal() && self.scope.covers(&change.tenant) && is_served(change)
        };
        let ended = changes.iter().filter(ended).count() as u64;
        // A count that nobody orders anything by.
        self.count.fetch_add(ended, Ordering::Relaxed);
    }
}

/// Reads the load of a store.
///
/// A job that runs on several workers at once counts once for each of them while it waits, and once while it runs.
///
/// Jobs that are delayed, blocked, held back by a limit or its rate, or in a paused queue are no load. Of each lane the jobs of its highest
/// level are counted; those below come into sight when these are gone, and count by how long they wait. What runs and what has
/// ended is counted in the queues that are served, but that ends which another node commits to a store that is shared count
/// in all of them.
#[derive(Debug)]
pub struct LoadReader<'s> {
    store: &'s dyn Store,
    scope: Scope,
    served: Served,
    offer: Option<Offer>,
    ends: Arc<Ends>,
    _feed: Feed,
}

impl<'s> LoadReader<'s> {
    /// Reads the load of all queues of a scope. What has ended is counted from now on.
    #[must_use]
    pub fn new(store: &'s dyn Store, scope: Scope) -> Self {
        let (ends, feed) = counting(store, &scope, Served::default());
        Self { store, scope, served: Served::default(), offer: None, ends, _feed: feed }
    }

    /// Counts only what waits, runs and ends in these queues. What has ended is counted from now on.
    #[must_use]
    pub fn served(mut self, served: Served) -> Self {
        (self.ends, self._feed) = counting(self.store, &self.scope, served.clone());
        self.served = served;
        self
    }

    /// Counts only what an agent could run that offers this, as those do that are started: what nobody could run is no reason
    /// to start more. It goes by what a job runs, by the resources that it asks for and by the labels that it requires.
    ///
    /// It does not go by what only a node knows: the rules of queues ([`Policy`](crate::machine::Policy)), and the groups that
    /// jobs want to be beside or apart from, which depend on who runs where.
    #[must_use]
    pub fn offer(mut self, offer: Offer) -> Self {
        self.offer = Some(offer);
        self
    }

    fn counts(&self, head: &LaneHead) -> bool {
        let resources = &head.request.resources;
        // Where a job may run that says so in a form that is not known here, nobody can tell.
        let placed = |offer: &Offer| {
            resources
                .placement()
                .is_some_and(|place| place.required().iter().all(|selector| selector.applies(&offer.labels)))
        };
        let could = |offer: &Offer| {
            offer.runs.contains(&head.request.runs) && resources.fits(&offer.capacity) && placed(offer)
        };
        self.scope.covers(&head.lane.tenant) && self.offer.as_ref().is_none_or(could)
    }

    /// Counts what is leased in the queues that are served.
    async fn running(&self) -> Result<u64> {
        let leased = |counts: Counts| counts.of(State::Scheduled) + counts.of(State::Running);
        let Some(queues) = &self.served.queues else {
            return Ok(leased(self.store.counts(&self.scope).await?));
        };
        let mut queues: Vec<&Name> = queues.iter().collect();
        queues.sort_unstable();
        queues.dedup();
        let mut running = 0;
        for queue in queues {
            let mut query = QueueQuery::new().queue(queue.clone()).limit(Query::LIMIT_MAX);
            loop {
                let page = self.store.queue_counts(&self.scope, query.clone()).await?;
                running += page.iter().map(|of| leased(of.counts)).sum::<u64>();
                match page.last() {
                    Some(last) if page.len() == Query::LIMIT_MAX => query = query.after(last),
                    _ => break,
                }
            }
        }
        Ok(running)
    }

    /// Reads it, by the clock of the store.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn read(&self) -> Result<Load> {
        let lanes = self.store.lanes(&self.served).await?;
        let running = self.running().await?;
        let now = self.store.now().await?;
        let (mut queued, mut since) = (0, now);
        for head in lanes.heads.iter().filter(|head| self.counts(head)) {
            queued += head.depth.saturating_mul(head.request.resources.worker_count().into());
            since = since.min(head.eligible_at);
        }
        let oldest = if queued > 0 { now.saturating_since(since) } else { Duration::ZERO };
        Ok(Load { at: now, queued, running, oldest, ended: self.ends.count.load(Ordering::Relaxed) })
    }
}

/// Begins to count what ends.
fn counting(store: &dyn Store, scope: &Scope, served: Served) -> (Arc<Ends>, Feed) {
    let ends = Arc::new(Ends { scope: scope.clone(), served, count: AtomicU64::new(0) });
    let feed = store.feed(Arc::<Ends>::clone(&ends));
    (ends, feed)
}

/// Scales a target with the load that is read until the future is dropped, with a look at every interval; tells each decision
/// that changes something, and each failure. What fails is tried again at the next look.
///
/// # Cancel safety
///
/// Cancel safe: the target stays as it was asked to be last.
pub async fn scale(
    reader: &LoadReader<'_>,
    target: &dyn ScaleTarget,
    mut autoscaler: Autoscaler,
    every: Duration,
    mut told: impl FnMut(Timestamp, Result<Decision>) + Send,
) {
    let mut at = Timestamp::EPOCH;
    loop {
        let look = async {
            let load = reader.read().await?;
            at = load.at;
            let current = target.current().await?;
            let decision = autoscaler.decide(&load, current);
            if decision.agents != current {
                target.scale_to(decision.agents).await?;
                autoscaler.carried_out();
                return Ok(Some(decision));
            }
            Ok(None)
        };
        match look.await {
            Ok(Some(decision)) => told(at, Ok(decision)),
            Ok(None) => {}
            Err(error) => told(at, Err(error)),
        }
        tokio::time::sleep(every).await;
    }
}
