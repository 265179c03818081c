//! Settle and claim in every shard that answers.

use std::collections::VecDeque;

use super::super::{Applied, Claimed, Exchange, Exchanged, Lane, Lanes, Pick, Served, Transition};
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
    answered: bool,
    failure: Option<Error>,
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
            answered: false,
            failure: None,
        };
        let mut parts = self.parts(&map, transitions, picks);
        for (shard, answer) in self.ask_parts(&owner, &mut parts).await {
            match answer {
                Ok(Answer::Due(due)) => {
                    merged.answered = true;
                    merged.done.next_due = earlier(merged.done.next_due, due);
                }
                Ok(Answer::Exchanged(done)) => {
                    merged.answered = true;
                    let done = self.with_owner_known(shard, &owner, &parts[shard], *done).await;
                    merged.take(&parts[shard], done);
                }
                Err(error) => {
                    if !parts[shard].picks.is_empty() {
                        self.doubts().insert((shard, owner.clone()));
                    }
                    merged.failure = merged.failure.or(Some(error));
                    continue;
                }
            }
            let reclaimed = self.claims_in_doubt(shard, &owner, &merged.claimed).await;
            merged.done.reclaimed.extend(reclaimed);
        }
        if merged.failure.is_none() && merged.done.applied.contains(&Applied::Unavailable) {
            // A slot has moved or is about to; whoever tells it again finds it. What fails here fails again there.
            let _ = self.renew(&map).await;
        }
        merged.finish()
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
        let nothing = Served { queues: Some(Vec::new()) };
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
            Err(_) => drop(self.doubts().insert((shard, owner.clone()))),
        }
        done
    }

    /// After a lost reply of a shard that answers again: what the owner holds there and was perhaps never told of.
    async fn claims_in_doubt(&self, shard: usize, owner: &Lease, told: &[(usize, Claimed)]) -> Vec<Claimed> {
        let doubt = (shard, owner.clone());
        if !self.doubts().contains(&doubt) {
            return Vec::new();
        }
        let Ok(held) = self.ask_one(shard, self.shards()[shard].leases_of(owner)).await else {
            return Vec::new();
        };
        self.doubts().remove(&doubt);
        let unstarted = |claimed: &Claimed| {
            let known = |(_, told): &(usize, Claimed)| told.job.id == claimed.job.id;
            claimed.job.state == State::Scheduled && !told.iter().any(known)
        };
        held.into_iter().filter(unstarted).collect()
    }

    /// Asks all shards for their lanes, and leaves out those that do not answer.
    pub(super) async fn lanes_of_all(&self, served: &Served) -> Result<Lanes> {
        let asked = self.shards().iter().enumerate().map(|(n, shard)| (n, shard.lanes(served))).collect();
        let mut all: Option<Lanes> = None;
        let mut failure = None;
        for (_, answer) in self.ask(asked).await {
            match answer {
                Ok(lanes) => {
                    let all = all.get_or_insert_default();
                    all.heads.extend(lanes.heads);
                    all.next_due = earlier(all.next_due, lanes.next_due);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
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
        self.done.next_due = earlier(self.done.next_due, done.next_due);
        self.done.changes.extend(done.changes);
    }

    fn finish(mut self) -> Result<Exchanged> {
        match self.failure {
            Some(error) if !self.answered => return Err(error),
            _ => {}
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

/// Says which pick each claimed job was granted to, by the rules of a claim: the lane, the floor, how many, and that a
/// job which lost an owner is alone.
fn by_pick(picks: &[(usize, Pick)], claimed: Vec<Claimed>) -> Vec<(usize, Claimed)> {
    let mut claimed = VecDeque::from(claimed);
    let mut placed = Vec::with_capacity(claimed.len());
    for (place, pick) in picks {
        let mut granted = 0;
        while let Some(next) = claimed.front() {
            let lost = next.job.lost_count > 0;
            let fits = granted < pick.n && next.job.spec.priority() >= pick.floor && (granted == 0 || !lost);
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
