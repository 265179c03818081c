//! Settle and claim in every shard that answers.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::{
    Applied, Claimed, Exchange, Exchanged, JobStore, Lane, LaneHead, Lanes, Pick, Served, Transition,
};
use super::map::ShardMap;
use super::store::{Asked, ShardedStore};
use crate::error::{Error, Result};
use crate::job::{Lease, State};
use crate::time::Timestamp;

/// What goes to one shard, each item with its place in the whole.
#[derive(Default)]
struct Part {
    transitions: Vec<Transition>,
    /// The places of the transitions.
    places: Vec<usize>,
    picks: Vec<(usize, Pick)>,
}

impl Part {
    fn is_empty(&self) -> bool {
        self.places.is_empty() && self.picks.is_empty()
    }

    /// Gives its transitions away, and copies of its picks.
    fn exchange(&mut self, owner: &Lease) -> Exchange {
        let transitions = std::mem::take(&mut self.transitions);
        Exchange { owner: owner.clone(), transitions, picks: self.picks() }
    }

    fn picks(&self) -> Vec<Pick> {
        self.picks.iter().map(|(_, pick)| pick.clone()).collect()
    }
}

/// What a shard answered: to its part, or, having none, when its next delayed job is due.
enum Answer {
    Exchanged(Box<Exchanged>),
    Due(Option<Timestamp>),
}

/// What the shards have answered so far.
struct Merged {
    done: Exchanged,
    /// The claims with the places of their picks.
    claimed: Vec<(usize, Claimed)>,
    failures: Vec<Error>,
}

impl ShardedStore {
    /// Gives each shard its part, and merges the answers of those that answer.
    pub(super) async fn exchange_split(&self, exchange: Exchange) -> Result<Exchanged> {
        let Exchange { owner, transitions, picks } = exchange;
        let map = self.map();
        let mut merged = Merged {
            done: Exchanged {
                applied: vec![Applied::Unavailable; transitions.len()],
                ..Exchanged::default()
            },
            claimed: Vec::new(),
            failures: Vec::new(),
        };
        let mut parts = self.parts(&map, transitions, picks);
        // Whoever is asked only for its next job commits nothing.
        let asked: Vec<bool> = parts.iter().map(|part| !part.is_empty()).collect();
        let mut answered = Vec::new();
        for (shard, answer) in self.ask_parts(&owner, &mut parts).await {
            match answer {
                Ok(Answer::Due(due)) => {
                    merged.done.next_due = earlier(merged.done.next_due, due);
                }
                Ok(Answer::Exchanged(done)) => {
                    let done = self.with_owner_known(shard, &owner, &parts[shard], &map, *done).await;
                    merged.take(&parts[shard], done);
                }
                Err(error) => {
                    if !parts[shard].picks.is_empty() {
                        self.doubt(shard, &owner, &map);
                    }
                    merged.done.partial |= asked[shard];
                    merged.failures.push(error);
                    continue;
                }
            }
            answered.push(shard);
        }
        merged.done.reclaimed = self.claims_in_doubt(&answered, &owner, &merged.claimed).await;
        if merged.done.applied.contains(&Applied::Unavailable) {
            // A slot has moved or is about to; whoever tells it again finds it. What fails here fails again there.
            let _ = self.renew(&map).await;
        }
        merged.finish(answered.is_empty())
    }

    fn parts(&self, map: &ShardMap, transitions: Vec<Transition>, picks: Vec<Pick>) -> Vec<Part> {
        let mut parts: Vec<Part> = self.shards().iter().map(|_| Part::default()).collect();
        for (n, transition) in transitions.into_iter().enumerate() {
            let part = &mut parts[map.shard_of(transition.job.slot())];
            part.transitions.push(transition);
            part.places.push(n);
        }
        for (n, pick) in picks.into_iter().enumerate() {
            parts[map.shard_of(pick.lane.tenant.slot())].picks.push((n, pick));
        }
        parts
    }

    async fn ask_parts(&self, owner: &Lease, parts: &mut [Part]) -> Vec<(usize, Result<Answer>)> {
        let nothing = Served { queues: Some(Vec::new()), ..Served::default() };
        let empty = parts.iter().all(Part::is_empty);
        let asked = parts.iter_mut().zip(self.shards()).enumerate().map(|(n, (part, shard))| {
            let answer: Asked<'_, Answer> = if !part.is_empty() || (empty && n == 0) {
                let exchange = part.exchange(owner);
                Box::pin(async move {
                    shard.exchange(exchange).await.map(|done| Answer::Exchanged(Box::new(done)))
                })
            } else {
                let nothing = &nothing;
                Box::pin(async move { shard.lanes(nothing).await.map(|lanes| Answer::Due(lanes.next_due)) })
            };
            (n, answer)
        });
        self.ask(asked.collect()).await
    }

    /// Where a shard calls the owner lost and the home does not, tells the shard of it and picks there again.
    async fn with_owner_known(
        &self,
        shard: usize,
        owner: &Lease,
        part: &Part,
        map: &Arc<ShardMap>,
        mut done: Exchanged,
    ) -> Exchanged {
        if !done.owner_lost || shard == 0 {
            return done;
        }
        match self.teach_owner(shard, owner).await {
            Ok(true) => done.owner_lost = false,
            Ok(false) => return done,
            Err(_) => {
                // Nobody can say; until the home answers nothing is claimed here.
                done.owner_lost = false;
                return done;
            }
        }
        let again = Exchange { owner: owner.clone(), transitions: Vec::new(), picks: part.picks() };
        match self.ask_one(shard, self.shards()[shard].exchange(again)).await {
            Ok(more) => {
                done.claimed = more.claimed;
                done.changes.extend(more.changes);
                (done.owner_lost, done.next_due) = (more.owner_lost, more.next_due);
            }
            Err(_) => {
                done.partial = true;
                self.doubt(shard, owner, map);
            }
        }
        done
    }

    /// Notes that the claims of an owner from a shard are unknown, since a map.
    fn doubt(&self, shard: usize, owner: &Lease, map: &Arc<ShardMap>) {
        self.doubts().entry((shard, owner.clone())).or_insert_with(|| Arc::clone(map));
    }

    /// After a lost reply of a shard that answers again: what the owner holds there and was perhaps never told of.
    async fn claims_in_doubt(
        &self,
        answered: &[usize],
        owner: &Lease,
        told: &[(usize, Claimed)],
    ) -> Vec<Claimed> {
        let mut found: Vec<Claimed> = Vec::new();
        for shard in answered {
            let doubt = (*shard, owner.clone());
            let since = self.doubts().get(&doubt).cloned();
            let Some(since) = since else { continue };
            // What fails stays in doubt.
            let Ok(held) = self.held_since(*shard, owner, &since).await else { continue };
            self.doubts().remove(&doubt);
            found.extend(held);
        }
        found.sort_by_key(|claimed| claimed.job.id);
        found.dedup_by_key(|claimed| claimed.job.id);
        let known = |claimed: &Claimed| told.iter().any(|(_, told)| told.job.id == claimed.job.id);
        found.retain(|claimed| claimed.job.state == State::Scheduled && !known(claimed));
        found
    }

    /// Returns what an owner holds in a shard; in all of them when a slot has moved since a map, perhaps with a claim.
    async fn held_since(&self, shard: usize, owner: &Lease, since: &ShardMap) -> Result<Vec<Claimed>> {
        let held = self.ask_one(shard, self.shards()[shard].leases_of(owner)).await?;
        if self.is_still(since).await? {
            return Ok(held);
        }
        self.leases_of(owner).await
    }

    /// Asks all shards for their lanes, and leaves out those that do not answer.
    pub(super) async fn lanes_of_all(&self, served: &Served) -> Result<Lanes> {
        let map = self.map();
        let asked = self.shards().iter().enumerate().map(|(n, shard)| (n, shard.lanes(served))).collect();
        let mut all: Option<Lanes> = None;
        let (mut failure, mut strange) = (None, false);
        for (shard, answer) in self.ask(asked).await {
            match answer {
                Ok(lanes) => {
                    let of_another = |head: &LaneHead| map.shard_of(head.lane.tenant.slot()) != shard;
                    strange |= lanes.heads.iter().any(of_another);
                    let all = all.get_or_insert_default();
                    all.heads.extend(lanes.heads);
                    all.next_due = earlier(all.next_due, lanes.next_due);
                    all.opens_at = earlier(all.opens_at, lanes.opens_at);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if strange {
            // A slot has moved; picks of its lanes go where the map has them.
            let _ = self.renew(&map).await;
        }
        match (all, failure) {
            (Some(lanes), _) => Ok(lanes),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Lanes::default()),
        }
    }
}

impl Merged {
    fn take(&mut self, part: &Part, done: Exchanged) {
        for (place, applied) in part.places.iter().zip(done.applied) {
            self.done.applied[*place] = applied;
        }
        self.claimed.extend(by_pick(&part.picks, done.claimed));
        self.done.owner_lost |= done.owner_lost;
        self.done.partial |= done.partial;
        self.done.next_due = earlier(self.done.next_due, done.next_due);
        self.done.changes.extend(done.changes);
    }

    fn finish(mut self, nobody_answered: bool) -> Result<Exchanged> {
        // Where trying again may help, the doubts are noted, and a shard that answers again settles its part whatever
        // the others do. An error would leave everything open until all of them answer.
        let is_for_good = |error: &Error| !error.is_retryable();
        if nobody_answered
            && self.failures.iter().all(is_for_good)
            && let Some(error) = self.failures.pop()
        {
            return Err(error);
        }
        self.claimed.sort_by_key(|(place, _)| *place);
        if self.done.owner_lost {
            // What a shard gave to an owner that another calls lost is taken back by the next reap.
            self.done.reclaimed.clear();
        } else {
            self.done.claimed = self.claimed.into_iter().map(|(_, claimed)| claimed).collect();
        }
        Ok(self.done)
    }
}

/// Says which pick each claimed job was granted to, by the rules of a claim: the lane, the levels, how many, and that a
/// job which lost an owner is alone.
fn by_pick(picks: &[(usize, Pick)], claimed: Vec<Claimed>) -> Vec<(usize, Claimed)> {
    let mut claimed = VecDeque::from(claimed);
    let mut placed = Vec::with_capacity(claimed.len());
    for (place, pick) in picks {
        let mut granted = 0;
        while let Some(next) = claimed.front() {
            let lost = next.job.lost_count > 0;
            let fits = granted < pick.n && pick.covers(next.job.spec.priority()) && (granted == 0 || !lost);
            if !fits || Lane::of(&next.job) != pick.lane {
                break;
            }
            placed.extend(claimed.pop_front().map(|claimed| (*place, claimed)));
            granted = if lost { pick.n } else { granted + 1 };
        }
    }
    placed.extend(claimed.into_iter().map(|claimed| (usize::MAX, claimed)));
    placed
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}
