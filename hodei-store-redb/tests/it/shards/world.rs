//! Files as shards, and everything that can be read of them.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use hodei_core::job::Job;
use hodei_core::store::*;
use hodei_core::testkit::fault::{Faults, Faulty};
use hodei_core::{JobId, Result, SystemClock, Tenant};
use hodei_store_redb::RedbStore;

use crate::env::Env;

/// Files on one clock, each with a folder of its own.
pub(crate) struct Files(pub(crate) Vec<Env>);

impl Files {
    pub(crate) fn new(count: usize) -> Self {
        let first = Env::new();
        let clock = Arc::clone(&first.clock);
        let more = (1..count).map(|_| Env { clock: Arc::clone(&clock), ..Env::new() });
        Self(std::iter::once(first).chain(more).collect())
    }

    /// Opens every file.
    pub(crate) fn stores(&self) -> Vec<RedbStore> {
        self.0.iter().map(Env::open).collect()
    }

    /// Opens the files as one store.
    pub(crate) async fn open(&self) -> ShardedStore {
        as_one(self.stores().into_iter().map(|store| Arc::new(store) as Arc<dyn Shard>).collect()).await
    }

    /// Opens the files as one store on the clock of the operating system.
    pub(crate) async fn open_on_real_time(&self) -> ShardedStore {
        let open = |env: &Env| env.builder().clock(Arc::new(SystemClock)).open().expect("the file is sound");
        as_one(self.0.iter().map(|env| Arc::new(open(env)) as Arc<dyn Shard>).collect()).await
    }

    /// Opens the files as one store whose calls fail as a plan says.
    pub(crate) async fn open_faulty(&self, faults: &Faults) -> ShardedStore {
        let faulty = |store| Arc::new(Faulty::new(store, faults.clone())) as Arc<dyn Shard>;
        as_one(self.stores().into_iter().map(faulty).collect()).await
    }

    /// Returns the bytes of the files, which nobody has open.
    pub(crate) fn bytes(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|env| fs::read(env.path()).expect("the file is there")).collect()
    }

    /// Makes the files what they were.
    pub(crate) fn restore(&self, bytes: &[Vec<u8>]) {
        for (env, bytes) in self.0.iter().zip(bytes) {
            fs::write(env.path(), bytes).expect("there is room");
        }
    }
}

async fn as_one(shards: Vec<Arc<dyn Shard>>) -> ShardedStore {
    ShardedStore::open(shards).await.expect("they are shards of one store")
}

/// Returns the n-th tenant whose slot is in a shard at first, of so many.
pub(crate) fn tenant_in(shard: usize, shards: usize, n: usize) -> Tenant {
    let names = (0..).map(|i| Tenant::new(format!("tenant-{i}")).expect("a name"));
    let mut here = names.filter(|tenant| usize::from(tenant.slot().number()) % shards == shard);
    here.nth(n).expect("there is no end of names")
}

/// Everything that can be read, but for the changes.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) jobs: Vec<Job>,
    counts: Counts,
    queues: Vec<QueuePolicy>,
    limits: Vec<LimitUse>,
    schedules: Vec<Schedule>,
}

/// Reads everything.
pub(crate) async fn seen(store: &dyn Store) -> Result<Seen> {
    let mut query = Query::new().oldest_first().limit(64);
    let mut jobs = Vec::new();
    loop {
        let page = store.query(&Scope::All, query.clone()).await?;
        let ids: Vec<JobId> = page.jobs.iter().map(|job| job.id).collect();
        let read = store.get_many(&Scope::All, ids, Consistency::Latest).await?;
        let read: Vec<Job> = read.into_iter().map(|job| job.expect("a listed job is there")).collect();
        assert_eq!(page.jobs, read.iter().map(Job::summary).collect::<Vec<_>>());
        jobs.extend(read);
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    let mut queues = store.queues(&Scope::All).await?;
    queues.sort_by(|a, b| (&a.tenant, &a.queue).cmp(&(&b.tenant, &b.queue)));
    let mut limits = store.limits(&Scope::All).await?;
    limits.sort_by(|a, b| a.limit.of.cmp(&b.limit.of));
    let mut schedules = store.schedules(&Scope::All).await?;
    schedules.sort_by(|a, b| (&a.tenant, &a.name).cmp(&(&b.tenant, &b.name)));
    Ok(Seen { jobs, counts: store.counts(&Scope::All).await?, queues, limits, schedules })
}

/// Reads every change that is kept.
pub(crate) async fn changes(store: &dyn Store) -> Vec<Change> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.changes(&Scope::All, after.clone(), 100).await.expect("changes");
        let end = page.changes.is_empty() && after.as_ref() == Some(&page.next);
        all.extend(page.changes);
        if end {
            return all;
        }
        after = Some(page.next);
    }
}

/// Each job's changes have every version once, in order, but for the first of them, which may be pruned. A job that was
/// pruned may be submitted again, and begins anew.
pub(crate) fn versions_in_order(changes: &[Change]) {
    let mut last: HashMap<JobId, u32> = HashMap::new();
    for change in changes {
        let before = last.insert(change.job, change.version);
        let follows = before.is_none_or(|before| change.version == before + 1);
        assert!(follows || change.from.is_none(), "{change:?} after {before:?}");
    }
}
