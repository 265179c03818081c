//! The change logs of several shards as one.
//!
//! Each shard's log is taken in its order, and the logs are merged by their clocks. Changes of a slot that has moved are
//! in several logs: those of a later shard wait until the earlier one has told all of its own, which is so when its
//! log is at its end or has come past the time at which the slot left.

use std::collections::{BTreeSet, VecDeque};

use super::super::{Change, ChangePage, Cursor, Scope};
use super::cursor::{Start, changes_of, of_changes};
use super::map::{Former, ShardMap, Stay};
use super::store::{Asked, READ_TRIES, ShardedStore, slot_of};
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::id::{JobId, Slot};

/// How often the shards are asked for one page before it is returned short: 4.
const ROUNDS_MAX: usize = 4;
const OP: &str = "store.changes";

/// What was read ahead of a shard's log.
struct Ahead {
    shard: usize,
    /// Where the page began that is being taken, and where the next one begins.
    start: Start,
    next: Start,
    /// The first of the page.
    head: Option<(JobId, u32)>,
    changes: VecDeque<Change>,
    /// How many of the page were taken.
    taken: usize,
    /// Whether nothing follows just now.
    drained: bool,
}

impl Ahead {
    fn new(shard: usize, start: Start) -> Self {
        let (changes, next) = (VecDeque::new(), start.clone());
        Self { shard, start, next, head: None, changes, taken: 0, drained: false }
    }

    fn is_dry(&self) -> bool {
        self.changes.is_empty() && !self.drained
    }

    /// Takes the next page of the log.
    fn take_in(&mut self, page: ChangePage) -> Result<()> {
        let head = head_of(&page);
        if let Start::Head(job, version) = self.next
            && head != Some((job, version))
        {
            return Err(expired(self.shard));
        }
        self.drained = page.changes.is_empty() && self.next.cursor() == Some(&page.next);
        self.start = std::mem::replace(&mut self.next, Start::Behind(page.next));
        (self.head, self.changes, self.taken) = (head, page.changes.into(), 0);
        Ok(())
    }
}

fn head_of(page: &ChangePage) -> Option<(JobId, u32)> {
    page.changes.first().map(|change| (change.job, change.version))
}

/// What followed in a shard's log is not kept any more.
fn expired(shard: usize) -> Error {
    Error::new(ErrorKind::CursorExpired, OP).with("shard", shard)
}

impl ShardedStore {
    pub(super) async fn changes_after(
        &self,
        scope: &Scope,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<ChangePage> {
        if limit == 0 {
            return Err(Error::invalid(OP, vec![Fault::new("limit", "zero")]));
        }
        let starts = changes_of(after, self.shards().len())?;
        for _ in 0..READ_TRIES {
            let map = self.map();
            let Some(begun) = self.begun(&map, scope, starts.clone()).await? else { continue };
            let (page, several) = self.merged_logs(&map, scope, begun, limit).await?;
            // In one log the order is that of the log. Of several one was read first: a slot that has moved since may
            // have changes in the others that come after some that were not read.
            if !several || !self.renew(&map).await? {
                return Ok(page);
            }
            let later = self.map();
            if page.changes.iter().all(|change| map.kept(change.job.slot(), &later)) {
                return Ok(page);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, OP).with("map", "changing"))
    }

    /// Returns where the logs of a tenant that has moved are read where no cursor says so; nothing when the map has
    /// changed meanwhile.
    ///
    /// Whoever goes on reads a log in which the tenant has arrived since from the place at which it did. Whoever begins
    /// reads from the last stay on of which the log does not keep the beginning: earlier changes are gone as well, for
    /// nobody would see that some are missing between them and what follows.
    async fn begun(
        &self,
        map: &ShardMap,
        scope: &Scope,
        mut starts: Vec<Start>,
    ) -> Result<Option<Vec<Start>>> {
        let Some(slot) = slot_of(scope) else { return Ok(Some(starts)) };
        let stays = map.stays_of(slot);
        if stays.len() == 1 {
            return Ok(Some(starts));
        }
        let begins = starts.iter().all(|start| *start == Start::Oldest);
        let first = if begins { self.first_kept(&stays).await? } else { 0 };
        for (n, start) in starts.iter_mut().enumerate().filter(|(_, start)| **start == Start::Oldest) {
            match stays[first..].iter().position(|stay| stay.shard == n) {
                // Its log begins in the middle of the stay, or with it.
                Some(0) if begins => {}
                Some(place) => {
                    let since = stays[first + place].since.clone();
                    *start = since.map_or(Start::Oldest, Start::Behind);
                }
                None if stays.iter().any(|stay| stay.shard == n) => {
                    *start = Start::Behind(self.ask_one(n, self.shards()[n].changes_end()).await?);
                }
                None => {}
            }
        }
        // A slot that has come back meanwhile may have changes before such an end.
        Ok((first == 0 || !self.renew(map).await?).then_some(starts))
    }

    /// Returns the number of the last stay whose beginning is not kept any more; of the first nobody asks.
    async fn first_kept(&self, stays: &[Stay]) -> Result<usize> {
        let (mut first, mut whole) = (0, BTreeSet::new());
        for (n, stay) in stays.iter().enumerate().skip(1) {
            // What began later in a log is kept where what began earlier is.
            if let Some(since) = stay.since.clone().filter(|_| !whole.contains(&stay.shard)) {
                let asked = self.shards()[stay.shard].changes(&Scope::All, Some(since), 1);
                match self.ask_one(stay.shard, asked).await {
                    Err(error) if error.kind() == ErrorKind::CursorExpired => first = n,
                    Err(error) => return Err(error),
                    Ok(_) => drop(whole.insert(stay.shard)),
                }
            }
        }
        Ok(first)
    }

    /// Merges a page; says beside it whether several logs were read.
    async fn merged_logs(
        &self,
        map: &ShardMap,
        scope: &Scope,
        mut starts: Vec<Start>,
        limit: usize,
    ) -> Result<(ChangePage, bool)> {
        let start = |n: usize| Ahead::new(n, starts[n].clone());
        let mut ahead: Vec<Ahead> = self.logs_of(map, slot_of(scope)).map(start).collect();
        let several = ahead.len() > 1;
        let mut changes = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if !self.read_logs(scope, limit - changes.len(), &mut ahead).await? {
                break;
            }
            while changes.len() < limit && !ahead.iter().any(Ahead::is_dry) {
                let Some(next) = first(map, &mut ahead) else { break };
                changes.push(next);
            }
            if changes.len() == limit {
                break;
            }
        }
        let at_end = changes.is_empty() && ahead.iter().all(|of_shard| of_shard.drained);
        for of_shard in ahead {
            let n = of_shard.shard;
            starts[n] = self.start_behind(scope, of_shard).await?;
        }
        if at_end && let Some(slot) = slot_of(scope) {
            self.pass_over_others(map, slot, &mut starts).await;
        }
        Ok((ChangePage { changes, next: of_changes(&starts) }, several))
    }

    pub(super) async fn end_of_changes(&self) -> Result<Cursor> {
        let ends = self.ask_all(|shard| shard.changes_end()).await?;
        Ok(of_changes(&ends.into_iter().map(Start::Behind).collect::<Vec<_>>()))
    }

    /// The shards whose logs have changes of a slot: those in which it is or was. All shards where none is asked for.
    fn logs_of<'a>(&'a self, map: &'a ShardMap, slot: Option<Slot>) -> impl Iterator<Item = usize> + 'a {
        (0..self.shards().len()).filter(move |n| {
            slot.is_none_or(|slot| {
                let moving = map.move_of(slot).is_some_and(|relocation| usize::from(relocation.to) == *n);
                let was = map.former_of(slot).any(|former| usize::from(former.shard) == *n);
                map.shard_of(slot) == *n || moving || was
            })
        })
    }

    /// Reads on in every log of which nothing is left; says whether there was one.
    async fn read_logs(&self, scope: &Scope, limit: usize, ahead: &mut [Ahead]) -> Result<bool> {
        let dry: Vec<usize> = (0..ahead.len()).filter(|n| ahead[*n].is_dry()).collect();
        let asked = dry.iter().map(|n| {
            let (shard, after) = (ahead[*n].shard, ahead[*n].next.cursor().cloned());
            let asked: Asked<'_, ChangePage> = self.shards()[shard].changes(scope, after, limit);
            (shard, asked)
        });
        let answers = self.ask(asked.collect()).await;
        for (n, (_, answer)) in dry.iter().zip(answers) {
            ahead[*n].take_in(answer?)?;
        }
        Ok(!dry.is_empty())
    }

    /// Returns where to go on behind what was taken of a shard's log. A log does not change, so the part of a page that
    /// was taken can be read again for the place where it ends.
    async fn start_behind(&self, scope: &Scope, of_shard: Ahead) -> Result<Start> {
        let Ahead { shard, start, next, head, changes, taken: mut left, .. } = of_shard;
        if changes.is_empty() {
            return Ok(next);
        }
        let mut start = match (start, head) {
            (Start::Oldest, Some((job, version))) => Start::Head(job, version),
            (start, _) => start,
        };
        while left > 0 {
            let asked = self.shards()[shard].changes(scope, start.cursor().cloned(), left);
            let page = self.ask_one(shard, asked).await?;
            if start.cursor().is_none() && head_of(&page) != head {
                return Err(expired(shard));
            }
            left = left.saturating_sub(page.changes.len());
            start = Start::Behind(page.next);
        }
        Ok(start)
    }

    /// At the end of a tenant's changes moves the cursor behind those of the other tenants, where it is sure that none
    /// of its own are among them: the map has not changed since.
    async fn pass_over_others(&self, map: &ShardMap, slot: Slot, starts: &mut [Start]) {
        let own: Vec<usize> = self.logs_of(map, Some(slot)).collect();
        let others = (0..starts.len()).filter(|n| !own.contains(n));
        let asked = others.map(|n| (n, self.shards()[n].changes_end())).collect();
        let ends = self.ask(asked).await;
        if self.renew(map).await.unwrap_or(true) {
            return;
        }
        for (n, end) in ends {
            if let Ok(end) = end {
                starts[n] = Start::Behind(end);
            }
        }
    }
}

/// Takes the earliest change that has to wait for none.
fn first(map: &ShardMap, ahead: &mut [Ahead]) -> Option<Change> {
    let heads = ahead.iter().enumerate().filter_map(|(n, of_shard)| Some((of_shard.changes.front()?.at, n)));
    let (_, mut chosen) = heads.min()?;
    // Whoever is waited for may wait itself; each log is looked at once at most.
    for _ in 0..ahead.len() {
        match waits_for(map, ahead, chosen) {
            Some(earlier) => chosen = earlier,
            None => break,
        }
    }
    let of_shard = &mut ahead[chosen];
    of_shard.taken += 1;
    of_shard.changes.pop_front()
}

/// Returns the log that may still have changes of a slot from a stay before the one of the change that is next here.
/// Times are compared with those of the same shard only.
fn waits_for(map: &ShardMap, ahead: &[Ahead], chosen: usize) -> Option<usize> {
    let next = ahead[chosen].changes.front()?;
    if next.at <= map.forgotten {
        return None;
    }
    let own = ahead[chosen].shard;
    let before = |former: &Former| usize::from(former.shard) != own || former.until < next.at;
    map.former_of(next.job.slot()).take_while(before).find_map(|former| {
        let earlier = ahead.iter().position(|of_shard| of_shard.shard == usize::from(former.shard))?;
        let head = ahead[earlier].changes.front()?;
        (earlier != chosen && head.at <= former.until).then_some(earlier)
    })
}
