//! Lists of jobs over several shards, merged in their order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::super::{Cursor, Order, Page, Query, Scope, SummaryStream};
use super::cursor::{Key, Place};
use super::store::{Asked, READ_TRIES, ShardedStore, slot_of};
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::job::JobSummary;

/// How often the shards are asked for one page before it is returned short: 64.
const ROUNDS_MAX: usize = 64;
/// How many jobs a shard is asked for at least, where the limit allows: 16.
const CHUNK_MIN: usize = 16;

/// What was read ahead of a shard.
struct Ahead {
    shard: usize,
    /// Where the page began that is being taken.
    start: Option<Cursor>,
    /// Where the next one begins.
    next: Option<Cursor>,
    /// Where a page began of which a job was listed.
    listed: Option<Cursor>,
    jobs: VecDeque<JobSummary>,
    ended: bool,
}

impl Ahead {
    fn new(shard: usize, place: &Place) -> Self {
        let (start, listed) = (place.starts[shard].clone(), place.listed[shard].clone());
        Self { shard, next: start.clone(), start, listed, jobs: VecDeque::new(), ended: false }
    }

    fn is_dry(&self) -> bool {
        self.jobs.is_empty() && !self.ended
    }

    /// Where the shard's list goes on at the latest: what was read and not taken is read again.
    fn resume(self) -> Option<Cursor> {
        if self.jobs.is_empty() && !self.ended { self.next } else { self.start }
    }
}

fn key(job: &JobSummary) -> Key {
    (job.created_at, job.id)
}

impl ShardedStore {
    /// Lists a page. Over all tenants it is read again when slots moved meanwhile.
    pub(super) async fn page(&self, scope: &Scope, query: &Query) -> Result<Page> {
        const OP: &str = "store.query";
        if query.limit == 0 || query.limit > Query::LIMIT_MAX {
            let fault = Fault::new("limit", "out_of_range").limit(Query::LIMIT_MAX as u64);
            return Err(Error::invalid(OP, vec![fault]));
        }
        let after = Place::decode(query.after.as_ref(), self.shards().len())?;
        let mut tries = 0;
        loop {
            let of_one = slot_of(scope);
            let map = if of_one.is_some() { self.map() } else { self.still(OP).await? };
            let shards: Vec<usize> = match of_one {
                Some(slot) => vec![map.shard_of(slot)],
                None => (0..self.shards().len()).collect(),
            };
            let place = if of_one.is_some() { after.clone() } else { after.at(map.arrivals()) };
            match self.merged(scope, query, &place, &shards).await {
                Ok(page) if of_one.is_some() || self.is_still(&map).await? => return Ok(page),
                Ok(_) if tries < READ_TRIES => tries += 1,
                Ok(_) => return Err(Error::new(ErrorKind::Unavailable, OP).with("map", "changing")),
                Err(error) if self.moved_on(&map, &error, &mut tries).await? => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn merged(&self, scope: &Scope, query: &Query, place: &Place, shards: &[usize]) -> Result<Page> {
        let mut ahead: Vec<Ahead> = shards.iter().map(|shard| Ahead::new(*shard, place)).collect();
        let chunk = query.limit.div_ceil(shards.len()).max(CHUNK_MIN).min(query.limit);
        let mut jobs = Vec::new();
        for _ in 0..ROUNDS_MAX {
            self.read_ahead(scope, query, place, chunk, &mut ahead).await?;
            while jobs.len() < query.limit && !ahead.iter().any(Ahead::is_dry) {
                let Some(next) = first(&mut ahead, query.order) else { break };
                jobs.push(next);
            }
            if jobs.len() == query.limit || ahead.iter().all(|of_shard| of_shard.ended) {
                break;
            }
        }
        if ahead.iter().all(|of_shard| of_shard.ended && of_shard.jobs.is_empty()) {
            return Ok(Page { jobs, next: None });
        }
        let mut next = Place { behind: jobs.last().map(key).or(place.behind), ..place.clone() };
        for of_shard in ahead {
            let shard = of_shard.shard;
            next.listed[shard].clone_from(&of_shard.listed);
            next.starts[shard] = of_shard.resume();
        }
        Ok(Page { jobs, next: Some(next.encode()) })
    }

    /// Reads on in every shard of which nothing is left, and passes over what was listed before.
    async fn read_ahead(
        &self,
        scope: &Scope,
        query: &Query,
        place: &Place,
        chunk: usize,
        ahead: &mut [Ahead],
    ) -> Result<()> {
        let dry = || ahead.iter().enumerate().filter(|(_, of_shard)| of_shard.is_dry());
        let asked = dry().map(|(_, of_shard)| {
            let mut query = query.clone().limit(chunk);
            query.after.clone_from(&of_shard.next);
            let asked: Asked<'_, Page> = self.shards()[of_shard.shard].query(scope, query);
            (of_shard.shard, asked)
        });
        let dry: Vec<usize> = dry().map(|(n, _)| n).collect();
        let answers = self.ask(asked.collect()).await;
        for (n, (_, answer)) in dry.into_iter().zip(answers) {
            let (page, of_shard) = (answer?, &mut ahead[n]);
            let read = page.jobs.len();
            of_shard.jobs =
                page.jobs.into_iter().filter(|job| place.is_before(key(job), query.order)).collect();
            match page.next {
                Some(next) => of_shard.start = of_shard.next.replace(next),
                None => {
                    of_shard.start.clone_from(&of_shard.next);
                    of_shard.ended = true;
                }
            }
            if of_shard.jobs.len() < read {
                of_shard.listed.clone_from(&of_shard.start);
            }
        }
        Ok(())
    }

    pub(super) fn pages(&self, scope: &Scope, query: Query) -> SummaryStream {
        let pages = Pages { store: self.clone(), scope: scope.clone(), query, page: None, ended: false };
        Box::pin(pages)
    }

    /// As [`Self::page`], for whoever waits for it without a borrow.
    async fn owned_page(self, scope: Scope, query: Query) -> Result<Page> {
        self.page(&scope, &query).await
    }
}

/// Takes the first job of all shards.
fn first(ahead: &mut [Ahead], order: Order) -> Option<JobSummary> {
    let heads = ahead.iter().enumerate().filter_map(|(n, of_shard)| Some((key(of_shard.jobs.front()?), n)));
    let (_, n) = match order {
        Order::OldestFirst => heads.min(),
        Order::NewestFirst => heads.max(),
    }?;
    let of_shard = &mut ahead[n];
    of_shard.listed.clone_from(&of_shard.start);
    of_shard.jobs.pop_front()
}

/// The pages of a query, one after the other.
struct Pages {
    store: ShardedStore,
    scope: Scope,
    query: Query,
    /// The page that is waited for.
    page: Option<Asked<'static, Page>>,
    ended: bool,
}

impl Stream for Pages {
    type Item = Result<Vec<JobSummary>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            if self.page.is_none() {
                let (scope, query) = (self.scope.clone(), self.query.clone());
                self.page = Some(Box::pin(self.store.clone().owned_page(scope, query)));
            }
            let Some(page) = &mut self.page else { break };
            let page = ready!(page.as_mut().poll(cx));
            self.page = None;
            match page {
                Ok(page) => {
                    self.ended = page.next.is_none();
                    self.query.after = page.next;
                    if !page.jobs.is_empty() {
                        return Poll::Ready(Some(Ok(page.jobs)));
                    }
                }
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        Poll::Ready(None)
    }
}
