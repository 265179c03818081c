//! Memory stores as shards, each with faults of its own, on one clock.

use std::sync::Arc;
use std::time::Duration;

use hodei_core::job::{Finish, JobSpec, Lease, NewJob, Output, Priority};
use hodei_core::store::*;
use hodei_core::testkit::fault::{Faults, Faulty};
use hodei_core::{Clock, JobId, ManualClock, Name, OwnerId, Result, Tenant, Timestamp};

pub(crate) const LIFE: Duration = Duration::from_secs(60);

pub(crate) struct Shards {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) faults: Vec<Faults>,
    pub(crate) stores: Vec<Arc<Faulty<MemoryStore>>>,
}

impl Shards {
    pub(crate) fn new(n: usize) -> Self {
        Self::with((0..n).map(|_| Faults::new()).collect())
    }

    pub(crate) fn with(faults: Vec<Faults>) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_000_000_000)));
        let store = |faults: &Faults| {
            let inner = MemoryStore::with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
            Arc::new(Faulty::new(inner, faults.clone()))
        };
        let stores = faults.iter().map(store).collect();
        Self { clock, faults, stores }
    }

    /// Opens the shards, as a process that has just begun.
    pub(crate) async fn open(&self) -> ShardedStore {
        self.try_open().await.expect("it opens")
    }

    pub(crate) async fn try_open(&self) -> Result<ShardedStore> {
        ShardedStore::open(self.stores.iter().map(|store| Arc::clone(store) as Arc<dyn Shard>).collect())
            .await
    }

    /// Lets a moment pass, so that what follows has another time.
    pub(crate) fn tick(&self) {
        self.clock.advance(Duration::from_micros(1));
    }
}

/// Returns the n-th tenant whose slot is in a shard at first, of so many.
pub(crate) fn tenant_in(shard: usize, shards: usize, n: usize) -> Tenant {
    let names = (0..).map(|i| Tenant::new(format!("tenant-{i}")).expect("a name"));
    let mut here = names.filter(|tenant| usize::from(tenant.slot().number()) % shards == shard);
    here.nth(n).expect("there is no end of names")
}

pub(crate) fn job(tenant: &Tenant) -> NewJob {
    NewJob::of(tenant.clone(), JobSpec::command(["true"]).name("job").build().expect("a valid spec"))
}

pub(crate) fn limited(tenant: &Tenant, key: &'static str) -> NewJob {
    let spec = JobSpec::command(["true"]).name("limited").limited_by(key);
    NewJob::of(tenant.clone(), spec.build().expect("a valid spec"))
}

pub(crate) fn name(text: &'static str) -> Name {
    Name::literal(text)
}

pub(crate) fn owner(text: &'static str) -> OwnerId {
    OwnerId::from(name(text))
}

/// Submits jobs that are all new.
pub(crate) async fn add(store: &ShardedStore, jobs: Vec<NewJob>) -> Vec<JobId> {
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let done = store.submit(jobs, SubmitOptions::each()).await.expect("submit");
    assert_eq!(done.replies, ids.iter().copied().map(Submitted::New).collect::<Vec<_>>());
    ids
}

/// Picks from the lane of jobs.
pub(crate) fn pick(job: &NewJob, n: u32) -> Pick {
    let lane = Lane { tenant: job.tenant.clone(), queue: job.spec.queue().clone(), class: job.spec.class() };
    Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n }
}

pub(crate) fn claiming(owner: &Lease, picks: Vec<Pick>) -> Exchange {
    Exchange { owner: owner.clone(), transitions: Vec::new(), picks }
}

pub(crate) fn telling(owner: &Lease, transitions: Vec<Transition>) -> Exchange {
    Exchange { owner: owner.clone(), transitions, picks: Vec::new() }
}

pub(crate) fn ended(claimed: &Claimed) -> Transition {
    let step = Move::Finished(Box::new(Finish::succeeded(Output::none())));
    Transition { job: claimed.job.id, epoch: claimed.job.epoch, step }
}

pub(crate) fn ids(claimed: &[Claimed]) -> Vec<JobId> {
    claimed.iter().map(|claimed| claimed.job.id).collect()
}

/// Reads every change that is kept, from a cursor on, and where to go on.
pub(crate) async fn changes(
    store: &dyn Store,
    scope: &Scope,
    mut after: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<Change>, Cursor)> {
    let mut all = Vec::new();
    loop {
        let page = store.changes(scope, after.clone(), limit).await?;
        assert!(page.changes.len() <= limit);
        let end = page.changes.is_empty() && after.as_ref() == Some(&page.next);
        all.extend(page.changes);
        if end {
            return Ok((all, page.next));
        }
        after = Some(page.next);
    }
}

/// Each job's changes have every version once, in order.
pub(crate) fn versions_in_order(changes: &[Change]) {
    let mut last: std::collections::HashMap<JobId, u32> = std::collections::HashMap::new();
    for change in changes {
        let before = last.insert(change.job, change.version).unwrap_or(0);
        assert_eq!(change.version, before + 1, "{change:?}");
    }
}

/// Reads a list by pages of a size.
pub(crate) async fn listed(store: &dyn Store, scope: &Scope, mut query: Query) -> Result<Vec<JobId>> {
    let mut found = Vec::new();
    loop {
        let page = store.query(scope, query.clone()).await?;
        assert!(page.jobs.len() <= query.limit);
        found.extend(page.jobs.iter().map(|job| job.id));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(found),
        }
    }
}
