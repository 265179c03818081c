//! The change logs of several shards as one.
//!
//! Each shard's log is taken in its order, and the logs are merged by their clocks. Changes of a slot that has moved are
//! in several logs: those of a later shard wait until the earlier one has told all of its own, which is so when its
//! log is at its end or has come past the time at which the slot left.

use std::collections::VecDeque;

use super::super::{Change, ChangePage, Cursor, Scope};
use super::cursor::{Starts, changes_of, of_changes};
use super::map::{Former, ShardMap};
use super::store::{Asked, ShardedStore, slot_of};
use crate::error::{Error, Fault, Result};

/// How often the shards are asked for one page before it is returned short: 4.
const ROUNDS_MAX: usize = 4;

/// What was read ahead of a shard's log.
struct Ahead {
    shard: usize,
    /// Where the page began that is being taken, and where the next one begins.
    start: Option<Cursor>,
    next: Option<Cursor>,
    changes: VecDeque<Change>,
    /// How many of the page were taken.
    taken: usize,
    /// Whether nothing follows just now.
    drained: bool,
}

impl Ahead {
    fn is_dry(&self) -> bool {
        self.changes.is_empty() && !self.drained
    }
}

impl ShardedStore {
    pub(super) async fn changes_after(
        &self,
        scope: &Scope,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<ChangePage> {
        if limit == 0 {
            return Err(Error::invalid("store.changes", vec![Fault::new("limit", "zero")]));
        }
        let mut starts = changes_of(after, self.shards().len())?;
        let map = self.map();
        let mut ahead: Vec<Ahead> = self.logs_of(&map, scope).map(|n| at(n, &starts)).collect();
        let mut changes = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if !self.read_logs(scope, limit - changes.len(), &mut ahead).await? {
                break;
            }
            while changes.len() < limit && !ahead.iter().any(Ahead::is_dry) {
                let Some(next) = first(&map, &mut ahead) else { break };
                changes.push(next);
            }
            if changes.len() == limit {
                break;
            }
        }
        let at_end = changes.is_empty() && ahead.iter().all(|of_shard| of_shard.drained);
        for of_shard in ahead {
            let n = of_shard.shard;
            starts[n] = self.cursor_behind(scope, of_shard).await?;
        }
        if at_end && slot_of(scope).is_some() {
            self.pass_over_others(&map, scope, &mut starts).await;
        }
        Ok(ChangePage { changes, next: of_changes(&starts) })
    }

    pub(super) async fn end_of_changes(&self) -> Result<Cursor> {
        let ends = self.ask_all(|shard| shard.changes_end()).await?;
        Ok(of_changes(&ends.into_iter().map(Some).collect()))
    }

    /// The shards whose logs have changes of a scope: of a tenant those in which its slot is or was.
    fn logs_of<'a>(&'a self, map: &'a ShardMap, scope: &Scope) -> impl Iterator<Item = usize> + 'a {
        let slot = slot_of(scope);
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
            let (shard, after) = (ahead[*n].shard, ahead[*n].next.clone());
            let asked: Asked<'_, ChangePage> = self.shards()[shard].changes(scope, after, limit);
            (shard, asked)
        });
        let answers = self.ask(asked.collect()).await;
        for (n, (_, answer)) in dry.iter().zip(answers) {
            let (page, of_shard) = (answer?, &mut ahead[*n]);
            of_shard.drained = page.changes.is_empty() && of_shard.next.as_ref() == Some(&page.next);
            of_shard.start = of_shard.next.replace(page.next);
            of_shard.changes = page.changes.into();
            of_shard.taken = 0;
        }
        Ok(!dry.is_empty())
    }

    /// Returns the cursor behind what was taken of a shard's log. A log does not change, so the part of a page that was
    /// taken can be read again for the place where it ends.
    async fn cursor_behind(&self, scope: &Scope, of_shard: Ahead) -> Result<Option<Cursor>> {
        if of_shard.changes.is_empty() {
            return Ok(of_shard.next);
        }
        let (mut after, mut left) = (of_shard.start, of_shard.taken);
        while left > 0 {
            let asked = self.shards()[of_shard.shard].changes(scope, after.clone(), left);
            let page = self.ask_one(of_shard.shard, asked).await?;
            left = left.saturating_sub(page.changes.len());
            after = Some(page.next);
        }
        Ok(after)
    }

    /// At the end of a tenant's changes moves the cursor behind those of the other tenants, where it is sure that none
    /// of its own are among them: the map has not changed since.
    async fn pass_over_others(&self, map: &ShardMap, scope: &Scope, starts: &mut Starts) {
        let own: Vec<usize> = self.logs_of(map, scope).collect();
        let others = (0..starts.len()).filter(|n| !own.contains(n));
        let asked = others.map(|n| (n, self.shards()[n].changes_end())).collect();
        let ends = self.ask(asked).await;
        if self.renew(map).await.unwrap_or(true) {
            return;
        }
        for (n, end) in ends {
            if let Ok(end) = end {
                starts[n] = Some(end);
            }
        }
    }
}

fn at(shard: usize, starts: &Starts) -> Ahead {
    let start = starts[shard].clone();
    Ahead { shard, next: start.clone(), start, changes: VecDeque::new(), taken: 0, drained: false }
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
    let before = |former: &&Former| usize::from(former.shard) != own || former.until < next.at;
    map.former_of(next.job.slot()).take_while(before).find_map(|former| {
        let earlier = ahead.iter().position(|of_shard| of_shard.shard == usize::from(former.shard))?;
        let head = ahead[earlier].changes.front()?;
        (earlier != chosen && head.at <= former.until).then_some(earlier)
    })
}
