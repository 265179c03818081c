//! What a leader does, shard by shard: the term is checked in each, and in the home before any.
//!
//! Each call begins with another shard: one that always has more to do leaves the others their turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::{Change, Fired, Pruned, Reaped, Retention, Term};
use super::store::ShardedStore;
use crate::error::{Error, Result};
use crate::id::{Name, Tenant};
use crate::job::Cause;
use crate::time::Timestamp;

/// How many jobs a reap counted: children that were told of an end are not among them.
fn reaped(changes: &[Change]) -> usize {
    use Cause::{Cancelled, DeadlinePassed, Lost, LostTooOften};
    let counted = |change: &&Change| matches!(change.cause, Lost | LostTooOften | DeadlinePassed | Cancelled);
    changes.iter().filter(counted).count()
}

/// With which shard the next reaping and the next pruning begin: each goes round by itself, for they may alternate.
#[derive(Debug, Default)]
pub(super) struct Turns {
    reap: AtomicUsize,
    prune: AtomicUsize,
}

/// Returns the numbers of the shards from the one on whose turn it is.
fn in_turn(turn: &AtomicUsize, shards: usize) -> impl Iterator<Item = usize> + use<> {
    // Relaxed: it orders nothing else, and a turn that is taken twice does no harm.
    let first = turn.fetch_add(1, Ordering::Relaxed) % shards;
    (first..shards).chain(0..first)
}

impl ShardedStore {
    /// Says whether a term is over by the home, where another shard is asked first: that one may not have heard of a later
    /// one. While the home does not answer, each shard goes by what it knows.
    async fn is_over(&self, term: &Term, first: Option<usize>) -> bool {
        first != Some(0) && matches!(self.ask_one(0, self.home().term_life(term)).await, Ok(None))
    }

    /// Reaps shard by shard, as long as the limit lasts; behind it each is asked only whether there is more.
    pub(super) async fn reap_each(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        let mut all = Reaped::default();
        let mut failure: Option<Error> = None;
        let mut shards = in_turn(&self.turns().reap, self.shards().len()).peekable();
        if self.is_over(term, shards.peek().copied()).await {
            return Ok(Reaped { term_lost: true, ..all });
        }
        for shard in shards {
            let left = limit.saturating_sub(reaped(&all.changes));
            match self.reap_in(shard, term, lost_max, left).await {
                Ok(done) if done.term_lost && all.changes.is_empty() => {
                    return Ok(Reaped { partial: failure.is_some(), ..done });
                }
                Ok(done) if done.term_lost => {
                    all.more = true;
                    break;
                }
                Ok(done) => {
                    all.changes.extend(done.changes);
                    all.more |= done.more;
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) if all.changes.is_empty() => Err(error),
            // What was done is told now, and the failure by the call that has nothing else to tell.
            Some(_) => Ok(Reaped { more: true, partial: true, ..all }),
            None => Ok(all),
        }
    }

    async fn reap_in(&self, shard: usize, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        let store = &self.shards()[shard];
        let done = self.ask_one(shard, store.reap(term, lost_max, limit)).await?;
        if done.term_lost && self.teach_term(shard, term).await? {
            return self.ask_one(shard, store.reap(term, lost_max, limit)).await;
        }
        Ok(done)
    }

    /// Prunes shard by shard, as long as the limit lasts.
    pub(super) async fn prune_each(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        let mut all = Pruned::default();
        let mut failure: Option<Error> = None;
        let mut shards = in_turn(&self.turns().prune, self.shards().len()).peekable();
        if self.is_over(term, shards.peek().copied()).await {
            return Ok(Pruned { term_lost: true, ..all });
        }
        for shard in shards {
            let gone = usize::try_from(all.jobs.max(all.changes)).unwrap_or(usize::MAX);
            let nothing = (all.jobs, all.changes) == (0, 0);
            match self.prune_in(shard, term, retention, limit.saturating_sub(gone)).await {
                Ok(done) if done.term_lost && nothing => {
                    return Ok(Pruned { partial: failure.is_some(), ..done });
                }
                Ok(done) if done.term_lost => {
                    all.more = true;
                    break;
                }
                Ok(done) => {
                    all.jobs += done.jobs;
                    all.gone.extend(done.gone);
                    all.changes += done.changes;
                    all.more |= done.more;
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) if (all.jobs, all.changes) == (0, 0) => Err(error),
            Some(_) => Ok(Pruned { more: true, partial: true, ..all }),
            None => Ok(all),
        }
    }

    async fn prune_in(
        &self,
        shard: usize,
        term: &Term,
        retention: Retention,
        limit: usize,
    ) -> Result<Pruned> {
        let store = &self.shards()[shard];
        let done = self.ask_one(shard, store.prune(term, retention, limit)).await?;
        if done.term_lost && self.teach_term(shard, term).await? {
            return self.ask_one(shard, store.prune(term, retention, limit)).await;
        }
        Ok(done)
    }

    pub(super) async fn fire_in_shard(
        &self,
        term: &Term,
        tenant: &Tenant,
        schedule: &Name,
        at: Timestamp,
    ) -> Result<Fired> {
        let slot = tenant.slot();
        let fired = self.write_slot(slot, |shard| shard.fire(term, tenant, schedule, at)).await?;
        let shard = self.map().shard_of(slot);
        if fired == Fired::TermLost && self.teach_term(shard, term).await? {
            return self.write_slot(slot, |shard| shard.fire(term, tenant, schedule, at)).await;
        }
        Ok(fired)
    }
}
