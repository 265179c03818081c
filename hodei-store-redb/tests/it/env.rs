//! A file of its own for every test, and the few steps that all of them take.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use hodei_core::job::{Epoch, Finish, Job, JobSpec, JobSpecBuilder, Lease, NewJob, Output, Priority};
use hodei_core::store::{
    Applied, Change, Claimed, Consistency, Counts, Cursor, Exchange, Lane, LaneHead, LimitUse, Move, Pick,
    Query, QueuePolicy, Schedule, Scope, Served, Store, SubmitOptions, Submitted, Term, Transition,
};
use hodei_core::{JobId, ManualClock, Name, OwnerId, Result, Tenant, Timestamp};
use hodei_store_redb::{RedbStore, RedbStoreBuilder};
use tempfile::TempDir;

/// Longer than any test lets the clock run.
pub(crate) const TTL: Duration = Duration::from_secs(3_600);

/// A folder, and a clock that stands still.
pub(crate) struct Env {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
}

impl Env {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
        Self { dir: TempDir::new().expect("a folder for the test"), clock: Arc::new(clock) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("jobs.redb")
    }

    pub(crate) fn builder(&self) -> RedbStoreBuilder {
        let clock: Arc<ManualClock> = Arc::clone(&self.clock);
        RedbStore::builder(self.path()).clock(clock).cache_bytes(16 << 20)
    }

    pub(crate) fn open(&self) -> RedbStore {
        self.builder().open().expect("the file is sound")
    }
}

pub(crate) fn tenant(name: &str) -> Tenant {
    Tenant::new(name).expect("a name")
}

pub(crate) fn spec() -> JobSpecBuilder {
    JobSpec::command(["/bin/true"])
}

/// A small job of the default tenant.
pub(crate) fn job() -> NewJob {
    job_of(&Tenant::default(), spec())
}

pub(crate) fn job_of(tenant: &Tenant, spec: JobSpecBuilder) -> NewJob {
    NewJob::of(tenant.clone(), spec.build().expect("a valid spec"))
}

/// Submits jobs that are all new.
pub(crate) async fn submit(store: &dyn Store, jobs: Vec<NewJob>) -> Vec<JobId> {
    let done = store.submit(jobs, SubmitOptions::each()).await.expect("the store is sound");
    let id = |reply: &Submitted| match reply {
        Submitted::New(id) => *id,
        other => panic!("{other:?}"),
    };
    done.replies.iter().map(id).collect()
}

pub(crate) async fn owner(store: &dyn Store, name: &str) -> Lease {
    let owner = OwnerId::new(name).expect("a name");
    store.register(&owner, TTL).await.expect("the store is sound")
}

pub(crate) async fn term(store: &dyn Store, duty: &str, holder: &Lease) -> Term {
    let duty = Name::new(duty).expect("a name");
    let term = store.take_term(&duty, holder, TTL).await.expect("the store is sound");
    term.expect("nobody leads")
}

/// Claims from every lane, at most so many from each.
pub(crate) async fn claim(store: &dyn Store, owner: &Lease, n: u32) -> Vec<Claimed> {
    let lanes = store.lanes(&Served::default()).await.expect("the store is sound");
    let mut lanes: Vec<Lane> = lanes.heads.into_iter().map(|head| head.lane).collect();
    lanes.sort();
    let picks = lanes
        .into_iter()
        .map(|lane| Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n })
        .collect();
    let exchange = Exchange { owner: owner.clone(), transitions: Vec::new(), picks };
    store.exchange(exchange).await.expect("the store is sound").claimed
}

/// Reports one step of a job.
pub(crate) async fn report(store: &dyn Store, owner: &Lease, of: (JobId, Epoch), step: Move) -> Applied {
    let transitions = vec![Transition { job: of.0, epoch: of.1, step }];
    let exchange = Exchange { owner: owner.clone(), transitions, picks: Vec::new() };
    store.exchange(exchange).await.expect("the store is sound").applied[0]
}

pub(crate) fn done() -> Move {
    Move::Finished(Box::new(Finish::succeeded(Output::none())))
}

/// Everything that a store can be asked for.
#[derive(Debug, PartialEq)]
pub(crate) struct Everything {
    pub(crate) jobs: Vec<Job>,
    pub(crate) counts: Counts,
    pub(crate) lanes: Vec<LaneHead>,
    pub(crate) next_due: Option<Timestamp>,
    pub(crate) queues: Vec<QueuePolicy>,
    pub(crate) limits: Vec<LimitUse>,
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) changes: Vec<Change>,
    pub(crate) end: Cursor,
}

/// Reads everything.
pub(crate) async fn everything(store: &dyn Store) -> Result<Everything> {
    let query = Query::new().oldest_first().limit(64);
    let listed: Vec<_> = store.stream(&Scope::All, query).try_collect().await?;
    let ids: Vec<JobId> = listed.iter().flatten().map(|summary| summary.id).collect();
    let mut jobs = Vec::new();
    for ids in ids.chunks(20) {
        let read = store.get_many(&Scope::All, ids.to_vec(), Consistency::Latest).await?;
        jobs.extend(read.into_iter().map(|job| job.expect("a listed job is there")));
    }
    let shown: Vec<_> = listed.into_iter().flatten().collect();
    assert_eq!(shown, jobs.iter().map(Job::summary).collect::<Vec<_>>());
    let mut lanes = store.lanes(&Served::default()).await?;
    lanes.heads.sort_by(|a, b| a.lane.cmp(&b.lane));
    let (mut changes, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.changes(&Scope::All, cursor, 50).await?;
        cursor = Some(page.next);
        if page.changes.is_empty() {
            break;
        }
        changes.extend(page.changes);
    }
    let end = store.changes_end().await?;
    assert_eq!(cursor, Some(end.clone()));
    Ok(Everything {
        jobs,
        counts: store.counts(&Scope::All).await?,
        lanes: lanes.heads,
        next_due: lanes.next_due,
        queues: store.queues(&Scope::All).await?,
        limits: store.limits(&Scope::All).await?,
        schedules: store.schedules(&Scope::All).await?,
        changes,
        end,
    })
}
