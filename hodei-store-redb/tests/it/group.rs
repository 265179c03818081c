//! Who shares a commit, and what becomes of the others when one of them fails or goes away.

use std::future::Future;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use hodei_core::job::{Finish, JobSpec, NewJob, Output, SpecLimits};
use hodei_core::store::{
    Applied, Change, ChangeSink, Committed, Consistency, Coordination, JobStore, Move, Policies, QueuePolicy,
    Scope, StoreStats, SubmitOptions, Submitted,
};
use hodei_core::{Error, ErrorKind, Name, OwnerId, Result, Tenant};
use hodei_store_redb::{RedbStore, RedbStoreBuilder};
use tokio::sync::oneshot;

use crate::env::{Env, TTL, job, owner, submit};
use crate::gate::GateClock;

type Submission<'s> = BoxFuture<'s, Result<Committed<Submitted>>>;

/// A store whose groups a test puts together.
struct Gated {
    env: Env,
    clock: Arc<GateClock>,
    store: RedbStore,
}

impl Gated {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(set: impl FnOnce(RedbStoreBuilder) -> RedbStoreBuilder) -> Self {
        let (env, clock) = (Env::new(), GateClock::new());
        let given: Arc<GateClock> = Arc::clone(&clock);
        let store = set(env.builder().clock(given)).open().expect("a new file");
        Self { env, clock, store }
    }

    /// Closes the gate behind one call of its own, with which the writer's transaction waits until it opens.
    fn hold(&self) -> Submission<'_> {
        self.clock.close();
        let first = self.ask(vec![job()]);
        self.clock.somebody_waits();
        first
    }

    /// Asks for a submission without waiting for it.
    fn ask(&self, jobs: Vec<NewJob>) -> Submission<'_> {
        asked(self.store.submit(jobs, SubmitOptions::each()))
    }

    fn commits_since(&self, before: StoreStats) -> u64 {
        let now = self.store.stats();
        assert_eq!(now.commits, now.syncs, "what is acknowledged is synced");
        now.commits - before.commits
    }
}

/// Lets a future run until it waits for the writer, and not for its turn, which tokio makes it do now and then.
fn asked<'f, T>(future: impl Future<Output = T> + Send + 'f) -> BoxFuture<'f, T> {
    let mut future: BoxFuture<'f, T> = Box::pin(tokio::task::unconstrained(future));
    let first = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(first, Poll::Pending), "the writer is busy");
    future
}

/// A job that passes every check and whose row is too large all the same.
pub(crate) fn huge() -> NewJob {
    let mut limits = SpecLimits::default();
    (limits.arg_bytes, limits.argv_bytes) = (usize::MAX, usize::MAX);
    let spec = JobSpec::command(["x".repeat(17 << 20)]).build_within(&limits);
    NewJob::new(spec.expect("within its limits"))
}

async fn stored(store: &RedbStore, job: &NewJob) -> bool {
    let found = store.get_many(&Scope::All, vec![job.id], Consistency::Latest).await;
    found.expect("the store is sound")[0].is_some()
}

#[tokio::test]
async fn callers_that_come_before_a_commit_share_it() {
    const CALLERS: usize = 256;
    const ROUNDS: u64 = 5;
    let gated = Gated::new();
    let before = gated.store.stats();
    for _ in 0..ROUNDS {
        let first = gated.hold();
        let others: Vec<_> = (1..CALLERS).map(|_| gated.ask(vec![job()])).collect();
        gated.clock.open();
        first.await.unwrap();
        assert!(join_all(others).await.iter().all(Result::is_ok));
    }
    assert_eq!(gated.commits_since(before), ROUNDS, "one for all");
    let total = gated.store.counts(&Scope::All).await.unwrap().total();
    assert_eq!(total, ROUNDS * CALLERS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crowds_are_served_whole_and_share_commits() {
    const CALLERS: u64 = 256;
    let env = Env::new();
    let store = env.open();
    let before = store.stats();
    let callers = (0..CALLERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..4 {
                submit(&store, vec![job()]).await;
            }
        })
    });
    assert!(join_all(callers).await.iter().all(Result::is_ok));
    let after = store.stats();
    assert_eq!(store.counts(&Scope::All).await.unwrap().total(), 4 * CALLERS);
    assert_eq!(after.commits, after.syncs);
    assert!(after.commits - before.commits < 4 * CALLERS, "{} commits", after.commits - before.commits);
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_lone_caller_has_a_commit_of_his_own_each_time() {
    let env = Env::new();
    let store = env.open();
    let before = store.stats();
    for n in 1..=10 {
        submit(&store, vec![job()]).await;
        assert_eq!((store.stats().commits - before.commits, store.stats().syncs - before.syncs), (n, n));
    }
}

#[tokio::test]
async fn what_changes_nothing_commits_nothing() {
    let env = Env::new();
    let store = env.open();
    let known = job();
    submit(&store, vec![known.clone()]).await;
    let before = store.stats();
    let again = store.submit(vec![known.clone()], SubmitOptions::each()).await.unwrap();
    assert_eq!(again.replies, [Submitted::Existing(known.id)]);
    assert!(store.verify_indexes().await.unwrap().is_empty());
    assert_eq!(store.stats().commits, before.commits);
}

#[tokio::test]
async fn groups_end_at_their_limits() {
    for (gated, expected) in [
        (Gated::with(|builder| builder.group_calls(10)), 11),
        (Gated::with(|builder| builder.group_items(20)), 6),
        (Gated::with(|builder| builder.waiting_calls(100)), 1),
    ] {
        let before = gated.store.stats();
        let first = gated.hold();
        let others: Vec<_> = (0..100).map(|_| gated.ask(vec![job()])).collect();
        gated.clock.open();
        first.await.unwrap();
        assert!(join_all(others).await.iter().all(Result::is_ok));
        assert_eq!(gated.commits_since(before), expected);
    }
}

#[tokio::test]
async fn callers_beyond_the_waiting_ones_wait_for_room() {
    let gated = Gated::with(|builder| builder.waiting_calls(2));
    let first = gated.hold();
    let others: Vec<_> = (0..50).map(|_| gated.ask(vec![job()])).collect();
    gated.clock.open();
    first.await.unwrap();
    assert!(join_all(others).await.iter().all(Result::is_ok));
    assert_eq!(gated.store.counts(&Scope::All).await.unwrap().total(), 51);
}

#[tokio::test]
async fn one_that_fails_does_not_fail_the_others_of_its_group() {
    let gated = Gated::new();
    let node = owner(&gated.store, "node").await;
    let (early, late, along) = (job(), job(), job());
    let before = gated.store.stats();
    let first = gated.hold();
    let good = gated.ask(vec![early.clone()]);
    // It is refused before it writes: the transaction goes on with the others.
    let bad = gated.ask(vec![along.clone(), huge()]);
    let queue =
        QueuePolicy { tenant: Tenant::default(), queue: Name::literal("q"), paused: false, weight: 0 };
    let invalid = asked(gated.store.set_queue(queue));
    let id = OwnerId::new("other").unwrap();
    let other = asked(gated.store.register(&id, TTL));
    let last = gated.ask(vec![late.clone()]);
    gated.clock.open();
    first.await.unwrap();
    assert_eq!(good.await.unwrap().replies, [Submitted::New(early.id)]);
    assert_eq!(bad.await.unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(invalid.await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(other.await.unwrap().incarnation, node.incarnation + 1);
    assert_eq!(last.await.unwrap().replies, [Submitted::New(late.id)]);
    assert_eq!(gated.commits_since(before), 1);
    assert!(stored(&gated.store, &early).await && stored(&gated.store, &late).await);
    assert!(!stored(&gated.store, &along).await, "a call is carried out whole or not at all");
    assert_eq!(gated.store.verify_indexes().await.unwrap(), Vec::<String>::new());
}

/// One that fails after it has written something spoils the transaction, and all others run again without it.
#[tokio::test]
async fn those_who_share_a_transaction_that_is_spoilt_run_again_and_once() {
    let gated = Gated::new();
    let (open, ended) = (job(), job());
    submit(&gated.store, vec![open.clone()]).await;
    submit(&gated.store, vec![ended.clone()]).await;
    gated.store.request_cancel(&Scope::All, vec![ended.id]).await.unwrap();
    let Gated { env, clock, store } = gated;
    drop(store);
    crate::aside::damage(&env.path(), "heads", ended.id, Some(b"something else"));
    let given: Arc<GateClock> = Arc::clone(&clock);
    let store = env.builder().clock(given).open().expect("what has ended is not read");
    let gated = Gated { env, clock, store };
    let node = owner(&gated.store, "node").await;
    let ear = Arc::new(Ear::default());
    let feed = gated.store.feed(Arc::<Ear>::clone(&ear));
    let (early, late) = (job(), job());
    let before = gated.store.stats();
    let first = gated.hold();
    let good = gated.ask(vec![early.clone()]);
    let bad = asked(gated.store.request_cancel(&Scope::All, vec![open.id, ended.id]));
    let worse = asked(gated.store.redrive(&Scope::All, vec![ended.id]));
    let id = OwnerId::new("other").unwrap();
    let other = asked(gated.store.register(&id, TTL));
    let last = gated.ask(vec![late.clone()]);
    gated.clock.open();
    let first = first.await.unwrap();
    let (good, last) = (good.await.unwrap(), last.await.unwrap());
    assert_eq!(bad.await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(worse.await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(other.await.unwrap().incarnation, node.incarnation + 1, "none was given out twice");
    assert_eq!(gated.commits_since(before), 1);
    let told = [first.changes, good.changes, last.changes].concat();
    assert_eq!(*ear.0.lock().unwrap(), told, "each change once, in its order");
    let log = gated.store.changes(&Scope::All, None, 100).await.unwrap().changes;
    assert_eq!(log[log.len() - told.len()..], told);
    // What the transaction that was given up had done is not remembered.
    let claimed = crate::env::claim(&gated.store, &node, 9).await;
    assert_eq!(claimed.len(), 4, "the one that was cancelled in it waits, and three that came");
    assert!(claimed.iter().any(|of| of.job.id == open.id && of.job.version == 2));
    drop(feed);
}

#[tokio::test]
async fn a_full_store_refuses_exactly_what_is_too_many() {
    let gated = Gated::with(|builder| builder.max_jobs(5));
    let first = gated.hold();
    let asked: Vec<_> = [2, 3, 2, 1].map(|n| gated.ask((0..n).map(|_| job()).collect())).into();
    gated.clock.open();
    first.await.unwrap();
    let kinds: Vec<_> =
        join_all(asked).await.into_iter().map(|end| end.err().as_ref().map(Error::kind)).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Full), None, Some(ErrorKind::Full)]);
    assert_eq!(gated.store.counts(&Scope::All).await.unwrap().total(), 5);
    let known = job();
    let error = gated.store.submit(vec![known], SubmitOptions::each()).await.unwrap_err();
    assert_eq!((error.kind(), error.context("max_jobs")), (ErrorKind::Full, Some("5")));
}

#[tokio::test]
async fn a_full_store_still_knows_what_it_has_and_takes_the_ends_of_runs() {
    let env = Env::new();
    let store = env.builder().max_jobs(1).open().unwrap();
    let known = job();
    submit(&store, vec![known.clone()]).await;
    let again = store.submit(vec![known.clone()], SubmitOptions::each()).await.unwrap();
    assert_eq!(again.replies, [Submitted::Existing(known.id)]);
    let node = owner(&store, "node").await;
    let held = crate::env::claim(&store, &node, 1).await;
    let mut finish = Finish::succeeded(Output::none());
    let spawned = job();
    finish.spawn = vec![spawned.clone()];
    let step = Move::Finished(Box::new(finish));
    let applied = crate::env::report(&store, &node, (held[0].job.id, held[0].job.epoch), step).await;
    assert_eq!((applied, stored(&store, &spawned).await), (Applied::Done, true));
    let more = store.submit(vec![job()], SubmitOptions::each()).await.unwrap_err();
    assert_eq!(more.kind(), ErrorKind::Full);
}

#[tokio::test]
async fn a_caller_that_goes_away_breaks_nothing() {
    let gated = Gated::new();
    let (left, unasked) = (job(), job());
    let before = gated.store.stats();
    let first = gated.hold();
    drop(gated.ask(vec![left.clone()]));
    drop(gated.store.submit(vec![unasked.clone()], SubmitOptions::each()));
    let other = gated.ask(vec![job()]);
    drop(first);
    gated.clock.open();
    other.await.unwrap();
    assert_eq!(gated.commits_since(before), 1);
    assert!(stored(&gated.store, &left).await, "what was asked for is carried out");
    assert!(!stored(&gated.store, &unasked).await, "a future that was never polled asked for nothing");
}

#[tokio::test]
async fn the_last_clone_waits_for_what_was_asked_and_frees_the_file() {
    for _ in 0..5 {
        let gated = Gated::new();
        let asked: Vec<NewJob> = (0..50).map(|_| job()).collect();
        drop(gated.hold());
        for job in &asked {
            drop(gated.ask(vec![job.clone()]));
        }
        let clone = gated.store.clone();
        gated.clock.open();
        let Gated { env, store, .. } = gated;
        drop(store);
        drop(clone);
        let again = env.open();
        assert_eq!(again.counts(&Scope::All).await.unwrap().total(), 51);
        assert!(stored(&again, &asked[49]).await);
    }
}

#[tokio::test]
async fn a_limit_without_end_is_no_limit() {
    let gated = Gated::new();
    let node = owner(&gated.store, "node").await;
    let duty = crate::env::term(&gated.store, "maintain", &node).await;
    let first = gated.hold();
    let reaped = asked(gated.store.reap(&duty, 3, usize::MAX));
    let pruned = asked(gated.store.prune(&duty, hodei_core::store::Retention::default(), usize::MAX));
    let last = gated.ask(vec![job()]);
    gated.clock.open();
    first.await.unwrap();
    assert!(reaped.await.is_ok() && pruned.await.is_ok() && last.await.is_ok());
}

#[derive(Debug, Default)]
struct Ear(std::sync::Mutex<Vec<Change>>);

impl ChangeSink for Ear {
    fn committed(&self, changes: &[Change]) {
        self.0.lock().expect("no panic").extend_from_slice(changes);
    }
}

/// Wherever in a group a sink registers, it hears the whole group, once, and then all that follows.
#[tokio::test]
async fn a_sink_that_registers_during_a_commit_misses_nothing_and_hears_nothing_twice() {
    // The writer asks when it begins, which it does before the gate opens, and then before each of the three calls.
    for asked in 0..4 {
        let gated = Gated::new();
        let (ear, feed) = (Arc::new(Ear::default()), Arc::new(std::sync::Mutex::new(None)));
        let first = gated.hold();
        let others = [gated.ask(vec![job()]), gated.ask(vec![job(), job()])];
        let (listening, store) = (Arc::<Ear>::clone(&ear), gated.store.clone());
        let kept = Arc::clone(&feed);
        gated.clock.after(asked, move || *kept.lock().unwrap() = Some(store.feed(listening)));
        let before = gated.store.stats();
        gated.clock.open();
        first.await.unwrap();
        join_all(others).await.into_iter().for_each(|done| drop(done.unwrap()));
        assert_eq!(gated.commits_since(before), 1, "one group");
        assert!(feed.lock().unwrap().is_some(), "it has registered");
        submit(&gated.store, vec![job()]).await;
        let log = gated.store.changes(&Scope::All, None, 100).await.unwrap().changes;
        assert_eq!(*ear.0.lock().unwrap(), log, "registered when the clock was asked {asked} times");
        drop(feed.lock().unwrap().take());
    }
}

/// Comparing the indexes with the rows once went on in the thread that writes: whoever wanted to write waited for its end, and
/// so did the lives of owners.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_answered_while_the_indexes_are_compared() {
    /// Only whoever does wait for the end waits that long.
    const PATIENCE: Duration = Duration::from_secs(20);
    let Gated { env: _env, clock, store } = Gated::new();
    submit(&store, (0..500).map(|_| job()).collect()).await;
    let node = owner(&store, "node").await;
    let (begins, begun) = oneshot::channel();
    let (written, is_written) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    // Whoever compares looks at the clock, and goes on once others have written.
    clock.after(0, move || {
        let _ = begins.send(());
        let _ = tell.send(is_written.recv_timeout(PATIENCE).is_ok());
    });
    let writes = async {
        begun.await.expect("somebody compares");
        submit(&store, vec![job()]).await;
        store.beat(vec![node], TTL).await.expect("the store is sound");
        let _ = written.send(());
    };
    let (wrong, ()) = tokio::join!(store.verify_indexes(), writes);
    assert!(told.recv().expect("it was told"), "the writes were answered before");
    assert_eq!(wrong.unwrap(), Vec::<String>::new(), "of the commit before them");
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
}
