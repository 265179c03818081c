//! The verbs of jobs, shard by shard.

use std::sync::Arc;

use async_trait::async_trait;

use super::super::*;
use super::seat::Seat;
use super::store::{Asked, ShardedStore, slot_of};
use crate::error::{Error, Fault, Result};
use crate::id::{JobId, Name, Tenant};
use crate::job::{Job, Lease, NewJob, Output};
use crate::time::Timestamp;

/// Items of a batch by the shard they go to, each with its place in the batch.
struct Parts<T>(Vec<(usize, Vec<usize>, Vec<T>)>);

impl<T> Parts<T> {
    /// Splits a batch; the items of a shard stay in their order.
    fn split(items: Vec<T>, shard_of: impl Fn(&T) -> usize) -> Self {
        let mut parts: Vec<(usize, Vec<usize>, Vec<T>)> = Vec::new();
        for (n, item) in items.into_iter().enumerate() {
            let shard = shard_of(&item);
            match parts.iter_mut().find(|(known, ..)| *known == shard) {
                Some((_, places, items)) => {
                    places.push(n);
                    items.push(item);
                }
                None => parts.push((shard, vec![n], vec![item])),
            }
        }
        Self(parts)
    }
}

/// Brings the replies of the shards into the order of the batch.
fn in_order<R>(replies: impl Iterator<Item = (Vec<usize>, Vec<R>)>) -> Vec<R> {
    let mut all: Vec<(usize, R)> =
        replies.flat_map(|(places, replies)| places.into_iter().zip(replies)).collect();
    all.sort_unstable_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, reply)| reply).collect()
}

impl ShardedStore {
    /// Writes a batch, split by shard. The first failure is returned after every shard has answered.
    async fn write_split<'a, T, R: Send>(
        &'a self,
        items: Vec<T>,
        slot_of: impl Fn(&T) -> crate::id::Slot,
        write: impl Fn(&'a dyn Shard, Vec<T>) -> Asked<'a, Committed<R>>,
    ) -> Result<Committed<R>> {
        let map = self.map();
        let parts = Parts::split(items, |item| map.shard_of(slot_of(item)));
        let (mut places, mut asked) = (Vec::new(), Vec::new());
        for (shard, of_shard, items) in parts.0 {
            places.push(of_shard);
            asked.push((shard, write(&*self.shards()[shard], items)));
        }
        let answers: Result<Vec<Committed<R>>> =
            self.ask(asked).await.into_iter().map(|(_, answer)| answer).collect();
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => return self.refused(&map, error).await,
        };
        let (replies, changes): (Vec<_>, Vec<_>) =
            answers.into_iter().map(|done| (done.replies, done.changes)).unzip();
        Ok(Committed {
            replies: in_order(places.into_iter().zip(replies)),
            changes: changes.into_iter().flatten().collect(),
        })
    }

    /// Reads by id, split by shard, again when a slot has moved.
    async fn read_split<'a, R: Send>(
        &'a self,
        ids: Vec<JobId>,
        read: impl Fn(&'a dyn Shard, Vec<JobId>) -> Asked<'a, Vec<R>> + Sync,
    ) -> Result<Vec<R>> {
        let mut tries = 0;
        loop {
            let map = self.map();
            let parts = Parts::split(ids.clone(), |id| map.shard_of(id.slot()));
            let (mut places, mut asked) = (Vec::new(), Vec::new());
            for (shard, of_shard, ids) in parts.0 {
                places.push(of_shard);
                asked.push((shard, read(&*self.shards()[shard], ids)));
            }
            let answers: Result<Vec<Vec<R>>> =
                self.ask(asked).await.into_iter().map(|(_, answer)| answer).collect();
            match answers {
                Ok(answers) => return Ok(in_order(places.into_iter().zip(answers))),
                Err(error) if self.moved_on(&map, &error, &mut tries).await? => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Refuses an atomic batch of several tenants: they share no transaction.
fn of_one_tenant(jobs: &[NewJob]) -> Result<()> {
    let other = jobs.windows(2).find(|pair| pair[0].tenant != pair[1].tenant);
    other.map_or(Ok(()), |pair| {
        let fault = Fault::new("jobs", "several_tenants")
            .detail(format!("{} and {}", pair[0].tenant, pair[1].tenant));
        Err(Error::invalid("store.submit", vec![fault]))
    })
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl JobStore for ShardedStore {
    fn capabilities(&self) -> Capabilities {
        // One that joins later offers no less.
        let all = || self.shards().iter().filter_map(Seat::taken).map(|shard| shard.capabilities());
        Capabilities {
            durable: all().all(|of| of.durable),
            exclusive: all().all(|of| of.exclusive),
            spans_tenants: false,
            // No shard sees what the others have leased.
            limits_all: self.shards().len() == 1 && all().all(|of| of.limits_all),
            rates: all().all(|of| of.rates),
        }
    }

    fn stats(&self) -> StoreStats {
        let add = |sum: StoreStats, of: StoreStats| StoreStats {
            commits: sum.commits + of.commits,
            syncs: sum.syncs + of.syncs,
            rows_written: sum.rows_written + of.rows_written,
            rows_read: sum.rows_read + of.rows_read,
            bytes_written: sum.bytes_written + of.bytes_written,
            cache: sum.cache.into_iter().chain(of.cache).reduce(CacheStats::and),
        };
        self.shards().iter().map(|shard| shard.stats()).fold(StoreStats::default(), add)
    }

    async fn submit(&self, jobs: Vec<NewJob>, options: SubmitOptions) -> Result<Committed<Submitted>> {
        if options.atomic {
            of_one_tenant(&jobs)?;
            let slot = jobs.first().map(|job| job.tenant.slot());
            return self
                .write_split(
                    jobs,
                    |job| slot.unwrap_or_else(|| job.id.slot()),
                    |shard, jobs| shard.submit(jobs, options),
                )
                .await;
        }
        // By the slot of the id: a job whose id has another slot than its tenant is invalid wherever it is told so.
        self.write_split(jobs, |job| job.id.slot(), |shard, jobs| shard.submit(jobs, options)).await
    }

    /// Those of the shards that answer.
    async fn lanes(&self, served: &Served) -> Result<Lanes> {
        self.lanes_of_all(served).await
    }

    async fn before(&self, job: &Job, most: u64) -> Result<Before> {
        let of_each = self.read_all("store.before", |shard| shard.before(job, most)).await?;
        let sum = |before: Before, of: Before| Before {
            lane: before.lane + of.lane,
            all: before.all + of.all,
            more: before.more || of.more,
        };
        Ok(of_each.into_iter().fold(Before::default(), sum).up_to(most))
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged> {
        self.exchange_split(exchange).await
    }

    async fn request_cancel(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<CancelReply>> {
        self.write_split(jobs, |id| id.slot(), |shard, jobs| shard.request_cancel(scope, jobs)).await
    }

    async fn leases_of(&self, owner: &Lease) -> Result<Vec<Claimed>> {
        let held = self.read_all("store.leases_of", |shard| shard.leases_of(owner)).await?;
        let mut held: Vec<Claimed> = held.into_iter().flatten().collect();
        held.sort_by_key(|claimed| claimed.job.id);
        Ok(held)
    }

    async fn redrive(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Committed<Redriven>> {
        self.write_split(jobs, |id| id.slot(), |shard, jobs| shard.redrive(scope, jobs)).await
    }

    async fn reap(&self, term: &Term, lost_max: u16, limit: usize) -> Result<Reaped> {
        self.reap_each(term, lost_max, limit).await
    }

    async fn fire(&self, term: &Term, tenant: &Tenant, schedule: &Name, at: Timestamp) -> Result<Fired> {
        self.fire_in_shard(term, tenant, schedule, at).await
    }

    async fn prune(&self, term: &Term, retention: Retention, limit: usize) -> Result<Pruned> {
        self.prune_each(term, retention, limit).await
    }

    async fn get_many(
        &self,
        scope: &Scope,
        jobs: Vec<JobId>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Job>>> {
        self.read_split(jobs, |shard, jobs| shard.get_many(scope, jobs, consistency)).await
    }

    async fn query(&self, scope: &Scope, query: Query) -> Result<Page> {
        self.page(scope, &query).await
    }

    fn stream(&self, scope: &Scope, query: Query) -> SummaryStream {
        self.pages(scope, query)
    }

    async fn outputs(&self, scope: &Scope, jobs: Vec<JobId>) -> Result<Vec<Option<Output>>> {
        self.read_split(jobs, |shard, jobs| shard.outputs(scope, jobs)).await
    }

    async fn counts(&self, scope: &Scope) -> Result<Counts> {
        if let Some(slot) = slot_of(scope) {
            return self.read_slot(slot, |shard| shard.counts(scope)).await;
        }
        let counts = self.read_all("store.counts", |shard| shard.counts(scope)).await?;
        Ok(counts.into_iter().fold(Counts::default(), Counts::plus))
    }

    async fn queue_counts(&self, scope: &Scope, query: QueueQuery) -> Result<Vec<QueueCounts>> {
        query.check()?;
        if let Some(slot) = slot_of(scope) {
            return self.read_slot(slot, |shard| shard.queue_counts(scope, query.clone())).await;
        }
        // A tenant is in one shard: what each has of the page is a part of it.
        let parts =
            self.read_all("store.queue_counts", |shard| shard.queue_counts(scope, query.clone())).await?;
        let mut page = parts.concat();
        page.sort_unstable_by(|a, b| (&a.tenant, &a.queue).cmp(&(&b.tenant, &b.queue)));
        page.truncate(query.limit);
        Ok(page)
    }

    async fn changes(&self, scope: &Scope, after: Option<Cursor>, limit: usize) -> Result<ChangePage> {
        self.changes_after(scope, after.as_ref(), limit).await
    }

    async fn changes_end(&self) -> Result<Cursor> {
        self.end_of_changes().await
    }

    fn wakeups(&self) -> Wakeups {
        self.wakeups_of_all()
    }

    fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        self.feed_of_all(sink)
    }

    async fn verify_indexes(&self) -> Result<Vec<String>> {
        self.contradictions().await
    }
}
