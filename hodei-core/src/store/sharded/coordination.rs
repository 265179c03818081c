//! Owners and terms: the home gives them out, the other shards adopt them.

use std::time::Duration;

use async_trait::async_trait;

use super::super::{Beat, Coordination, Living, Round, Rounded, Shard, Term, round_by_verbs};
use super::store::{Asked, ShardedStore};
use crate::error::Result;
use crate::id::{Name, OwnerId};
use crate::job::Lease;
use crate::time::Timestamp;

impl ShardedStore {
    /// Asks the shards other than the home. One that fails now learns later what it missed, when it calls an owner or a
    /// term lost.
    async fn tell_others<'a, T: Send>(
        &'a self,
        tell: impl Fn(&'a dyn Shard) -> Asked<'a, T>,
    ) -> Vec<(usize, T)> {
        let others = self.shards().iter().enumerate().skip(1).map(|(n, shard)| (n, tell(&**shard))).collect();
        let answers = self.ask(others).await;
        answers.into_iter().filter_map(|(n, answer)| Some((n, answer.ok()?))).collect()
    }

    /// Tells a shard of an owner that the home has registered; says whether the owner lives there now.
    pub(super) async fn teach_owner(&self, shard: usize, owner: &Lease) -> Result<bool> {
        if shard == 0 {
            return Ok(false);
        }
        match self.ask_one(0, self.home().owner_life(owner)).await? {
            Some(left) => self.ask_one(shard, self.shards()[shard].adopt_owner(owner, left)).await,
            None => Ok(false),
        }
    }

    /// Tells a shard of a term that the home has given out; says whether it counts there now.
    pub(super) async fn teach_term(&self, shard: usize, term: &Term) -> Result<bool> {
        if shard == 0 {
            return Ok(false);
        }
        match self.ask_one(0, self.home().term_life(term)).await? {
            Some(left) => self.ask_one(shard, self.shards()[shard].adopt_term(term, left)).await,
            None => Ok(false),
        }
    }

    /// Says whether an owner that beats lives in a shard that calls it dead: it does when it was not known there.
    async fn lives_in(&self, shard: usize, owner: &Lease, ttl: Duration) -> bool {
        self.ask_one(shard, self.shards()[shard].adopt_owner(owner, ttl)).await.unwrap_or(true)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Coordination for ShardedStore {
    async fn register(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
        let lease = self.ask_one(0, self.home().register(owner, ttl)).await?;
        self.doubts().retain(|(_, known), _| known.owner != lease.owner);
        self.tell_others(|shard| shard.adopt_owner(&lease, ttl)).await;
        Ok(lease)
    }

    async fn beat(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>> {
        let mut beats = self.ask_one(0, self.home().beat(owners.clone(), ttl)).await?;
        let alive: Vec<usize> = (0..beats.len()).filter(|n| beats[*n].alive).collect();
        let living: Vec<Lease> = alive.iter().map(|n| owners[*n].clone()).collect();
        if living.is_empty() {
            return Ok(beats);
        }
        let told = self.tell_others(|shard| shard.beat(living.clone(), ttl)).await;
        for (shard, of_shard) in told {
            for (n, beat) in alive.iter().copied().zip(of_shard) {
                if !beat.alive && beats[n].alive && !self.lives_in(shard, &owners[n], ttl).await {
                    beats[n] = Beat::default();
                } else if beats[n].alive {
                    beats[n].cancel.extend(beat.cancel);
                }
            }
        }
        for n in alive {
            beats[n].cancel.sort_unstable();
            if !beats[n].alive {
                // It is dead somewhere, so everywhere; what fails here ends with its time to live.
                let _ = self.retire(&owners[n]).await;
            }
        }
        Ok(beats)
    }

    async fn retire(&self, owner: &Lease) -> Result<()> {
        self.doubts().retain(|(_, known), _| known != owner);
        self.ask_all(|shard| shard.retire(owner)).await?;
        Ok(())
    }

    async fn take_term(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>> {
        let term = self.ask_one(0, self.home().take_term(duty, holder, ttl)).await?;
        if let Some(term) = &term {
            self.tell_others(|shard| shard.adopt_term(term, ttl)).await;
        }
        Ok(term)
    }

    async fn keep_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        let kept = self.ask_one(0, self.home().keep_term(term, ttl)).await?;
        if kept {
            self.tell_others(|shard| shard.adopt_term(term, ttl)).await;
        }
        Ok(kept)
    }

    async fn round(&self, round: Round) -> Result<Rounded> {
        round_by_verbs(self, round).await
    }

    async fn owners(&self) -> Result<Vec<Living>> {
        self.ask_one(0, self.home().owners()).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.ask_one(0, self.home().now()).await
    }
}
