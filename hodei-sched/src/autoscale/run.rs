//! Looking at the load, deciding, and having it carried out.

use std::time::Duration;

use hodei_core::job::State;
use hodei_core::store::{Scope, Served, Store};
use hodei_core::{Result, Timestamp};

use super::policy::{Autoscaler, Decision, Load};
use super::target::ScaleTarget;

/// Reads the load of the queues served, by the clock of the store.
///
/// Jobs that are delayed, blocked, held back by a limit or in a paused queue are no load. Of each lane the jobs of its highest
/// level are counted; those below come into sight when these are gone, and count by how long they wait. What runs and what has ended is counted over all
/// queues: give queues that are scaled apart a store or a tenant apart.
///
/// # Errors
///
/// What the store says.
pub async fn load_of(store: &dyn Store, scope: &Scope, served: &Served) -> Result<Load> {
    let lanes = store.lanes(served).await?;
    let counts = store.counts(scope).await?;
    let now = store.now().await?;
    let heads = lanes.heads.iter().filter(|head| scope.covers(&head.lane.tenant));
    let (mut queued, mut since) = (0, now);
    for head in heads {
        queued += head.depth;
        since = since.min(head.eligible_at);
    }
    let oldest = if queued > 0 { now.saturating_since(since) } else { Duration::ZERO };
    let running = counts.of(State::Scheduled) + counts.of(State::Running);
    Ok(Load { at: now, queued, running, oldest, ended: counts.total() - counts.open() })
}

/// Scales a target with the load of a store until the future is dropped, with a look at every interval; tells each decision
/// that changes something, and each failure. What fails is tried again at the next look.
///
/// # Cancel safety
///
/// Cancel safe: the target stays as it was asked to be last.
pub async fn scale(
    store: &dyn Store,
    (scope, served): (&Scope, &Served),
    target: &dyn ScaleTarget,
    mut autoscaler: Autoscaler,
    every: Duration,
    mut told: impl FnMut(Timestamp, Result<Decision>) + Send,
) {
    let mut at = Timestamp::EPOCH;
    loop {
        let look = async {
            let load = load_of(store, scope, served).await?;
            at = load.at;
            let current = target.current().await?;
            let decision = autoscaler.decide(&load, current);
            if decision.agents != current {
                target.scale_to(decision.agents).await?;
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
