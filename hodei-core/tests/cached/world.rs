//! What the tests do to stores.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hodei_core::job::{Finish, Job, JobSpec, Lease, NewJob, Output};
use hodei_core::store::{
    Applied, Consistency, Exchange, Lane, MemoryStore, Move, Pick, Scope, Store, SubmitOptions, Transition,
};
use hodei_core::{JobId, ManualClock, Name, OwnerId, Timestamp};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const CACHED: Consistency = Consistency::Cached(SECOND);

/// A store in memory on a clock that stands still.
pub(crate) fn memory() -> (MemoryStore, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_750_000_000_000_000)));
    (MemoryStore::with_clock(Arc::<ManualClock>::clone(&clock)), clock)
}

pub(crate) fn job() -> NewJob {
    NewJob::new(JobSpec::command(["true"]).build().expect("a valid spec"))
}

pub(crate) async fn add(store: &dyn Store, job: NewJob) -> JobId {
    let id = job.id;
    let done = store.submit(vec![job], SubmitOptions::each()).await.expect("the store answers");
    assert_eq!(done.replies[0].stored(), Some(id));
    id
}

pub(crate) async fn cancel(store: &dyn Store, id: JobId) {
    store.request_cancel(&Scope::All, vec![id]).await.expect("the store answers");
}

pub(crate) async fn redrive(store: &dyn Store, id: JobId) {
    store.redrive(&Scope::All, vec![id]).await.expect("the store answers");
}

pub(crate) async fn owner(store: &dyn Store) -> Lease {
    store.register(&OwnerId::from(Name::literal("worker")), HOUR).await.expect("the store answers")
}

/// Claims a job that is the first of its lane and starts it.
pub(crate) async fn start(store: &dyn Store, owner: &Lease, id: JobId) -> Arc<Job> {
    let lane = Lane::of(&read(store, id, Consistency::Latest).await.expect("the job is stored"));
    let pick =
        Pick { lane, floor: hodei_core::job::Priority::MIN, ceiling: hodei_core::job::Priority::MAX, n: 1 };
    let exchange = Exchange { owner: owner.clone(), transitions: Vec::new(), picks: vec![pick] };
    let held = store.exchange(exchange).await.expect("the store answers").claimed.remove(0).job;
    assert_eq!(held.id, id);
    tell(store, owner, &held, Move::Started { lease: None }).await;
    held
}

pub(crate) async fn tell(store: &dyn Store, owner: &Lease, held: &Job, step: Move) {
    let transitions = vec![Transition { job: held.id, epoch: held.epoch, step }];
    let exchange = Exchange { owner: owner.clone(), transitions, picks: Vec::new() };
    assert_eq!(store.exchange(exchange).await.expect("the store answers").applied, [Applied::Done]);
}

/// Adds a job that succeeds with an output.
pub(crate) async fn succeed(store: &dyn Store, new: NewJob) -> JobId {
    let owner = owner(store).await;
    let id = add(store, new).await;
    let held = start(store, &owner, id).await;
    tell(store, &owner, &held, Move::Finished(Box::new(Finish::succeeded(output())))).await;
    id
}

pub(crate) fn output() -> Output {
    Output::Inline(Bytes::from_static(b"42"))
}

pub(crate) async fn read(store: &dyn Store, id: JobId, consistency: Consistency) -> Option<Job> {
    store.get_many(&Scope::All, vec![id], consistency).await.expect("the store answers").remove(0)
}

pub(crate) async fn version(store: &dyn Store, id: JobId, consistency: Consistency) -> u32 {
    read(store, id, consistency).await.expect("the job is stored").version
}

/// Polls a future once.
pub(crate) fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}
